import assert from "node:assert/strict";
import { requires } from "../../../support/requires.ts";
import { tempDir } from "../../../support/temp.ts";
import { MIB, mirrorBody, openTestStore } from "../../../support/store_app.ts";

const needs = requires({ io_uring: true });

Deno.test({
  name: "a volume is made, shown, listed, grown and deleted",
  ...needs,
  async fn() {
    await using store = await openTestStore();
    const made = await store.ask("POST", "/v1/volumes", {
      body: { name: "data", size_bytes: 4 * MIB },
    });
    assert.equal(made.status, 201);
    assert.equal(made.body.id, "data");
    assert.equal(made.body.size_bytes, 4 * MIB);
    assert.equal(made.body.epoch, 1);
    assert.match(made.body.uri, /^nbd\+unix:\/\/\/data@1\?socket=\/.*nbd\.sock$/);
    assert.deepEqual((await store.ask("GET", "/v1/volumes/data")).body, made.body);
    assert.deepEqual((await store.ask("GET", "/v1/volumes")).body, { volumes: [made.body] });
    const grown = await store.ask("PATCH", "/v1/volumes/data", { body: { size_bytes: 8 * MIB } });
    assert.equal(grown.body.size_bytes, 8 * MIB);
    const status = await store.plane.command("volumeStatus", { name: "data" });
    assert.equal(status.size_bytes, 8 * MIB);
    assert.equal((await store.ask("DELETE", "/v1/volumes/data")).status, 204);
    assert.equal((await store.ask("GET", "/v1/volumes/data")).status, 404);
    assert.deepEqual([...Deno.readDirSync(store.temp.file("volumes"))].map(({ name }) => name), [
      ".psma-lock",
    ]);
  },
});

Deno.test({
  name: "two creates with one idempotency key make one volume, also at the same moment",
  ...needs,
  async fn() {
    await using store = await openTestStore();
    const create = () =>
      store.ask("POST", "/v1/volumes", { key: "k1", body: { name: "data", size_bytes: MIB } });
    const [one, two] = await Promise.all([create(), create()]);
    assert.equal(one.status, 201);
    assert.deepEqual(one, two);
    assert.deepEqual(await create(), one);
    const other = await store.ask("POST", "/v1/volumes", {
      key: "k1",
      body: { name: "data", size_bytes: 2 * MIB },
    });
    assert.equal(other.body.code, "state/idempotency-key");
    const mirror = () =>
      store.ask("POST", "/v1/mirror-requests", { key: "k2", body: mirrorBody() });
    const [first, second] = await Promise.all([mirror(), mirror()]);
    assert.deepEqual(first, second);
    assert.equal((await store.ask("GET", "/v1/volumes")).body.volumes.length, 2);
  },
});

Deno.test({
  name: "two creates of one name without a key: one wins, the other is told",
  ...needs,
  async fn() {
    await using store = await openTestStore();
    const create = (size_bytes: number) =>
      store.ask("POST", "/v1/volumes", { body: { name: "data", size_bytes } });
    const answers = await Promise.all([create(MIB), create(2 * MIB)]);
    assert.deepEqual(answers.map(({ status }) => status).sort(), [201, 409]);
    const { volumes } = (await store.ask("GET", "/v1/volumes")).body;
    const winner = answers.find(({ status }) => status === 201);
    assert.deepEqual(volumes, [winner?.body]);
  },
});

Deno.test({
  name: "what is promised never passes the capacity, and the refusal has the numbers",
  ...needs,
  async fn() {
    await using store = await openTestStore({ capacity_bytes: 10 * MIB });
    const create = (name: string, mib: number) =>
      store.ask("POST", "/v1/volumes", { body: { name, size_bytes: mib * MIB } });
    const both = await Promise.all([create("a", 6), create("b", 6)]);
    assert.deepEqual(both.map(({ status }) => status).sort(), [201, 507]);
    const refused = both.find(({ status }) => status === 507);
    assert.equal(refused?.body.code, "store/full");
    assert.match(refused?.body.detail, /6MiB.*4MiB of 10MiB is left/);
    assert.ok(refused?.body.hint);
    const winner = both.find(({ status }) => status === 201)?.body.id;
    const grow = (mib: number) =>
      store.ask("PATCH", `/v1/volumes/${winner}`, { body: { size_bytes: mib * MIB } });
    assert.equal((await grow(11)).body.code, "store/full");
    assert.equal((await grow(10)).status, 200);
    const { total_bytes, free_bytes, promised_bytes } =
      (await store.ask("GET", "/v1/capacity")).body;
    assert.deepEqual([total_bytes, free_bytes, promised_bytes], [10 * MIB, 0, 10 * MIB]);
    assert.equal((await store.ask("DELETE", `/v1/volumes/${winner}`)).status, 204);
    assert.equal((await create("c", 10)).status, 201);
  },
});

Deno.test({
  name: "a mirror request is granted, shown, promoted and then a volume in its own right",
  ...needs,
  async fn() {
    await using store = await openTestStore();
    const asked = await store.ask("POST", "/v1/mirror-requests", { key: "k", body: mirrorBody() });
    assert.equal(asked.status, 201);
    const { id, state, volume, epoch } = asked.body;
    assert.deepEqual([state, epoch, volume.epoch], ["granted", 3, 3]);
    assert.match(volume.id, /^data-[0-9a-f]{8}$/);
    assert.match(volume.uri, new RegExp(`/${volume.id}@4\\?`));
    assert.deepEqual((await store.ask("GET", `/v1/mirror-requests/${id}`)).body, asked.body);

    const deleting = await store.ask("DELETE", `/v1/volumes/${volume.id}`);
    assert.equal(deleting.body.code, "state/mirror-active");
    assert.match(deleting.body.hint, new RegExp(id));

    const promote = (epoch: number) =>
      store.ask("POST", `/v1/volumes/${volume.id}/promote`, { body: { epoch } });
    assert.equal((await promote(4)).body.epoch, 4);
    assert.equal((await promote(4)).status, 200);
    const stale = await promote(3);
    assert.deepEqual([stale.status, stale.body.code], [409, "fenced/stale-epoch"]);
    const after = (await store.ask("GET", `/v1/mirror-requests/${id}`)).body;
    assert.deepEqual([after.state, after.volume.epoch], ["promoted", 4]);
    const cancel = await store.ask("DELETE", `/v1/mirror-requests/${id}`);
    assert.equal(cancel.body.code, "state/promoted");
    assert.equal((await store.ask("DELETE", `/v1/volumes/${volume.id}`)).status, 204);
  },
});

Deno.test({
  name: "cancelling a mirror request deletes its volume",
  ...needs,
  async fn() {
    await using store = await openTestStore();
    const { id, volume } =
      (await store.ask("POST", "/v1/mirror-requests", { key: "k", body: mirrorBody() })).body;
    assert.equal((await store.ask("DELETE", `/v1/mirror-requests/${id}`)).status, 204);
    assert.equal((await store.ask("GET", `/v1/mirror-requests/${id}`)).status, 404);
    assert.equal((await store.ask("GET", `/v1/volumes/${volume.id}`)).status, 404);
  },
});

Deno.test({
  name: "promotions at the same moment end at the highest epoch, and no lower one comes after it",
  ...needs,
  async fn() {
    await using store = await openTestStore();
    await store.ask("POST", "/v1/volumes", { body: { name: "data", size_bytes: MIB } });
    const epochs = [5, 9, 7, 9, 2];
    const answers = await Promise.all(
      epochs.map((epoch) => store.ask("POST", "/v1/volumes/data/promote", { body: { epoch } })),
    );
    assert.deepEqual(answers.map(({ status }) => status), [200, 200, 409, 200, 409]);
    assert.equal((await store.ask("GET", "/v1/volumes/data")).body.epoch, 9);
    const record = JSON.parse(Deno.readTextFileSync(store.temp.file("volumes/data/volume.json")));
    assert.equal(record.epoch, 9);
  },
});

Deno.test({
  name: "digests differ where bytes differ, and name their algorithm",
  ...needs,
  async fn() {
    await using store = await openTestStore();
    const { uri } = (await store.ask("POST", "/v1/volumes", {
      body: { name: "data", size_bytes: 4 * MIB },
    })).body;
    const { device } = await store.plane.command("openDevice", { uri });
    const bytes = new Uint8Array(65_536).fill(7);
    await store.plane.command("writeDevice", { device, at: MIB, bytes });
    await store.plane.command("writeDevice", { device, at: 3 * MIB, bytes });
    await store.plane.command("flushDevice", { device });
    const extents = [0, 1, 3].map((mib) => ({ at: mib * MIB, length: 65_536 }));
    const { algorithm, digests } =
      (await store.ask("POST", "/v1/volumes/data/digests", { body: { extents } })).body;
    assert.ok(algorithm.length > 0);
    assert.equal(digests.length, 3);
    assert.match(digests[0], /^[0-9a-f]{16,}$/);
    assert.equal(digests[1], digests[2]);
    assert.notEqual(digests[0], digests[1]);
    await store.plane.command("closeDevice", { device });
  },
});

Deno.test({
  name: "the service routes tell health, readiness, metrics and the OpenAPI document",
  ...needs,
  async fn() {
    await using store = await openTestStore();
    await store.ask("POST", "/v1/volumes", { body: { name: "data", size_bytes: 4 * MIB } });
    await store.ask("GET", "/v1/volumes/../../etc/passwd", { authorization: null });
    assert.equal((await store.ask("GET", "/healthz")).status, 200);
    assert.equal((await store.ask("GET", "/readyz")).body, "ready\n");
    const metrics = (await store.ask("GET", "/metrics")).body;
    assert.match(metrics, /^psma_store_volumes 1$/m);
    assert.match(metrics, /^psma_store_nbd_connections 0$/m);
    assert.match(metrics, /^psma_store_nbd_connections_total{outcome="cut"} 0$/m);
    assert.match(metrics, new RegExp(`^psma_store_promised_bytes ${4 * MIB}$`, "m"));
    assert.match(
      metrics,
      /^psma_store_requests_total\{method="POST",route="\/v1\/volumes",status="201"\} 1$/m,
    );
    assert.doesNotMatch(metrics, /passwd/);
    const openapi = (await store.ask("GET", "/openapi.json")).body;
    assert.equal(openapi.openapi, "3.1.0");
    const routes = Object.entries(openapi.paths as Record<string, Record<string, unknown>>)
      .flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method} ${path}`));
    assert.deepEqual(routes.sort(), [
      "delete /v1/mirror-requests/{id}",
      "delete /v1/volumes/{id}",
      "get /v1/capacity",
      "get /v1/mirror-requests/{id}",
      "get /v1/volumes",
      "get /v1/volumes/{id}",
      "patch /v1/volumes/{id}",
      "post /v1/mirror-requests",
      "post /v1/volumes",
      "post /v1/volumes/{id}/digests",
      "post /v1/volumes/{id}/promote",
    ]);
  },
});

Deno.test({
  name: "a volume that cannot be served is left alone, counted and said; the others are served",
  ...needs,
  async fn() {
    using temp = tempDir();
    const directory = temp.file("volumes");
    {
      await using store = await openTestStore({ directory });
      for (const name of ["bad", "good"]) {
        await store.ask("POST", "/v1/volumes", { body: { name, size_bytes: 4 * MIB } });
      }
    }
    Deno.truncateSync(`${directory}/bad/data`, MIB);
    await using store = await openTestStore({ directory });
    const { volumes } = (await store.ask("GET", "/v1/volumes")).body;
    assert.deepEqual(volumes.map(({ id }: { id: string }) => id), ["good"]);
    assert.match(store.logged.join("\n"), /left a volume unserved volume=bad/);
    assert.match((await store.ask("GET", "/metrics")).body, /^psma_store_volumes_unserved 1$/m);
    const again = await store.ask("POST", "/v1/volumes", {
      body: { name: "bad", size_bytes: MIB },
    });
    assert.equal(again.body.code, "state/exists");
    assert.equal(Deno.statSync(`${directory}/bad/data`).size, MIB);
  },
});

Deno.test({
  name: "when a promotion answers, an older writer that was amid its writes writes no more",
  ...needs,
  async fn() {
    await using store = await openTestStore();
    const { uri } = (await store.ask("POST", "/v1/volumes", {
      body: { name: "data", size_bytes: 17 * MIB },
    })).body;
    const { device } = await store.plane.command("openDevice", { uri });
    const bytes = new Uint8Array(MIB).fill(7);
    const write = (mib: number) =>
      store.plane.command("writeDevice", { device, at: mib * MIB, bytes });
    await write(0);
    const writes = Promise.allSettled(Array.from({ length: 15 }, (_, i) => write(i + 1)));
    const promoted = await store.ask("POST", "/v1/volumes/data/promote", { body: { epoch: 2 } });
    assert.equal(promoted.status, 200);
    const extents = Array.from({ length: 17 }, (_, i) => ({ at: i * MIB, length: MIB }));
    const digests = async (): Promise<string[]> =>
      (await store.ask("POST", "/v1/volumes/data/digests", { body: { extents } })).body.digests;
    const then = await digests();
    const written = then[0], blank = then[16];
    assert.notEqual(written, blank);
    (await writes).forEach(({ status }, i) => {
      if (status === "fulfilled") {
        assert.equal(then[i + 1], written, "an acknowledged write is lost");
      }
    });
    await assert.rejects(write(16));
    assert.deepEqual(await digests(), then);
  },
});
