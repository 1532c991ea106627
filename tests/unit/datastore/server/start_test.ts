import assert from "node:assert/strict";
import { silentLog } from "../../../../src/core/mod.ts";
import { startStore, type StoreOptions } from "../../../../src/datastore/mod.ts";
import { RawNbd } from "../../../support/nbd_raw.ts";
import { requires } from "../../../support/requires.ts";
import { type TempDir, tempDir } from "../../../support/temp.ts";

const needs = requires({ io_uring: true });

const optionsIn = (temp: TempDir, more: Partial<StoreOptions> = {}): StoreOptions => ({
  directories: [temp.file("store")],
  listen: `unix:${temp.file("http.sock")}`,
  nbd: `unix:${temp.file("nbd.sock")}`,
  log: silentLog,
  ...more,
});

Deno.test("startStore() refuses what others could reach, before it makes anything", async () => {
  using temp = tempDir();
  const wrong: Partial<StoreOptions>[] = [
    { listen: "0.0.0.0:9320" },
    { nbd: "192.168.1.5:10809" },
    { nbd: "nonsense" },
    { nbd: "192.168.1.5:10809", nbd_tls: { cert_file: "/c", key_file: "/k" } },
    { nbd_tls: { cert_file: "/c", key_file: "/k" } },
    {
      nbd: "0.0.0.0:10809",
      nbd_tls: { cert_file: "/c", key_file: "/k", client_ca_file: "/ca" },
    },
  ];
  for (const more of wrong) {
    await assert.rejects(startStore(optionsIn(temp, more)), { code: "config/listen" });
  }
  await assert.rejects(startStore(optionsIn(temp, { directories: [] })), { code: "config/store" });
  assert.deepEqual([...Deno.readDirSync(temp.path)], []);
});

Deno.test({
  name: "startStore() refuses a token that others may read, and lets the directory go again",
  ...needs,
  async fn() {
    using temp = tempDir();
    const token_file = temp.file("token");
    Deno.writeTextFileSync(token_file, "0123456789abcdef", { mode: 0o644 });
    await assert.rejects(startStore(optionsIn(temp, { token_file })), {
      code: "config/token-file",
    });
    Deno.chmodSync(token_file, 0o600);
    const store = await startStore(optionsIn(temp, { token_file }));
    await store.stop();
    await store.stop();
  },
});

Deno.test({
  name: "startStore() takes over a dead server's socket, and not a living one's",
  ...needs,
  async fn() {
    using temp = tempDir();
    const path = temp.file("http.sock");
    // A second name for the socket: closing takes only the first away, as a kill takes none.
    const other = Deno.listen({ transport: "unix", path: temp.file("other.sock") });
    Deno.linkSync(temp.file("other.sock"), path);
    await assert.rejects(startStore(optionsIn(temp)), {
      code: "state/address-in-use",
      message: /answers/,
    });
    other.close();
    assert.ok(Deno.lstatSync(path).isSocket);
    const store = await startStore(optionsIn(temp));
    assert.equal(store.url, `unix:${path}`);
    assert.equal((Deno.statSync(path).mode ?? 0) & 0o777, 0o600);
    await store.stop();
  },
});

Deno.test({
  name: "startStore() refuses two directories that hold one volume",
  ...needs,
  async fn() {
    using temp = tempDir();
    for (const name of ["one", "two"]) {
      const directories = [temp.file(name)];
      const store = await startStore(optionsIn(temp, { directories }));
      const token = Deno.readTextFileSync(store.token_file).trim();
      using client = Deno.createHttpClient({
        proxy: { transport: "unix", path: temp.file("http.sock") },
      });
      const made = await fetch("http://localhost/v1/volumes", {
        client,
        method: "POST",
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
        body: JSON.stringify({ name: "data", size_bytes: 4096 }),
      });
      assert.equal(made.status, 201, await made.text());
      await store.stop();
    }
    const directories = [temp.file("one"), temp.file("two")];
    await assert.rejects(startStore(optionsIn(temp, { directories })), { code: "state/exists" });
  },
});

Deno.test({
  name: "startStore() gives its NBD server the limits that it was asked for",
  ...needs,
  async fn() {
    using temp = tempDir();
    const store = await startStore(optionsIn(temp, { nbd_limits: { connections: 1, idle_s: 1 } }));
    try {
      const path = store.nbd_address.slice("unix:".length);
      using first = await RawNbd.connect(path);
      await first.greet();
      using second = await RawNbd.connect(path);
      assert.equal(await second.untilClosed(), 0, "no greeting for one too many");
    } finally {
      await store.stop();
    }
  },
});
