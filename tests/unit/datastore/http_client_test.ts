import assert from "node:assert/strict";
import { type Clock, seededRng, silentLog, systemClock } from "../../../src/core/mod.ts";
import { openStore } from "../../../src/datastore/mod.ts";
import { PsmaStore } from "../../../src/datastore/psma.ts";
import { tempDir } from "../../support/temp.ts";

const TIMEOUT_MS = 10_000;

/** Time passes at once for waits between attempts, and never for the time limit of one attempt. */
const impatient: Clock = {
  ...systemClock,
  sleep: (ms, signal) => ms < TIMEOUT_MS ? Promise.resolve() : untilAborted(signal),
};
const options = { log: silentLog, clock: impatient, rng: seededRng(1), timeout_ms: TIMEOUT_MS };

function untilAborted(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((_, reject) =>
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true })
  );
}

/** A server that answers with `answers` in turn, the last one forever. */
function serve(...answers: (() => Response | Promise<Response>)[]) {
  const requests: { method: string; path: string; key: string | null; auth: string | null }[] = [];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, (request) => {
    const { method, url, headers } = request;
    const key = headers.get("idempotency-key"), auth = headers.get("authorization");
    requests.push({ method, path: new URL(url).pathname, key, auth });
    const answer = answers.length > 1 ? answers.shift() : answers[0];
    return answer?.() ?? new Response(null, { status: 500 });
  });
  return {
    url: `http://127.0.0.1:${server.addr.port}`,
    requests,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

const volume = {
  id: "data",
  size_bytes: 4096,
  allocated_bytes: 0,
  epoch: 1,
  uri: "nbd://127.0.0.1:10809/data@1",
  created_at: "2026-01-02T03:04:05Z",
  mirror_request: null,
};
const problem = (status: number, code: string, detail: string, hint: string) => () =>
  Response.json({ code, title: "t", status, detail, hint }, { status });

Deno.test("a busy store is asked again with the same idempotency key", async () => {
  const later = { ...volume, a_field_of_a_later_version: true };
  await using server = serve(
    problem(503, "unavailable/busy", "Cannot serve: too busy", "Wait."),
    () => new Response("<h1>Bad gateway</h1>", { status: 502 }),
    () => Response.json(later, { status: 201 }),
  );
  const client = new PsmaStore("far", server.url, options);
  const placement = await client.createVolume({ name: "data", size_bytes: 4096 });
  assert.deepEqual(placement, {
    store: "far",
    store_volume: "data",
    size_bytes: 4096,
    backend: { type: "nbd", uri: volume.uri },
  });
  const keys = new Set(server.requests.map(({ key }) => key));
  assert.equal(server.requests.length, 3);
  assert.equal(keys.size, 1);
  assert.ok(!keys.has(null));
  client.close();
});

Deno.test("what the store refuses comes back as it said it, and is asked once", async () => {
  await using server = serve(problem(507, "store/full", "Cannot promise 9GiB", "Delete some."));
  const client = new PsmaStore("far", server.url, options);
  await assert.rejects(client.createVolume({ name: "data", size_bytes: 4096 }), {
    code: "store/full",
    message: "Cannot promise 9GiB",
    hint: "Delete some.",
  });
  assert.equal(server.requests.length, 1);
  client.close();
});

Deno.test("a store that is not there is unreachable after four attempts", async () => {
  const server = serve();
  await server[Symbol.asyncDispose]();
  const client = new PsmaStore("far", server.url, options);
  await assert.rejects(client.list(), {
    code: "store/unreachable",
    message: /Cannot reach store far/,
  });
  client.close();
});

Deno.test("an answer that does not come in time is a timeout", async () => {
  const never = Promise.withResolvers<Response>();
  await using server = serve(() => never.promise);
  const late: Clock = { ...systemClock, sleep: () => Promise.resolve() };
  const client = new PsmaStore("far", server.url, { ...options, clock: late });
  await assert.rejects(client.list(), { code: "timeout/store" });
  never.resolve(new Response());
  client.close();
});

Deno.test("an answer that is not the protocol's is refused, not believed", async () => {
  const answers = [
    () => Response.json({ ...volume, size_bytes: -1 }),
    () => new Response("hello"),
    () => new Response(null, { status: 302, headers: { location: "http://127.0.0.1:1/" } }),
    () => new Response("x".repeat(9 * 1024 * 1024)),
  ];
  for (const answer of answers) {
    await using server = serve(answer);
    const client = new PsmaStore("far", server.url, options);
    await assert.rejects(client.resize("data", 8192), { code: "store/protocol" });
    client.close();
  }
  const placement = { store: "far", store_volume: "data", size_bytes: 8192 };
  const backend = { type: "nbd", uri: volume.uri } as const;
  const extents = [{ at: 0, length: 4096 }, { at: 4096, length: 4096 }];
  const refused = async (body: unknown, message: RegExp) => {
    await using server = serve(() => Response.json(body));
    const client = new PsmaStore("far", server.url, options);
    await assert.rejects(client.digests({ ...placement, backend }, extents), {
      code: "store/protocol",
      message,
    });
    client.close();
  };
  await refused({ algorithm: "xxh64", digests: ["00"] }, /1 digests for 2 extents/);
  // Another algorithm's would look like bytes that have changed.
  await refused({ algorithm: "sha1", digests: ["00", "00"] }, /not what the protocol says/);
});

Deno.test("the token goes along, as its file says now", async () => {
  using temp = tempDir();
  const token_file = temp.file("token");
  Deno.writeTextFileSync(token_file, "0123456789abcdef", { mode: 0o600 });
  await using server = serve(() => Response.json({ volumes: [] }));
  const client = new PsmaStore("far", server.url, { ...options, token_file });
  await client.list();
  Deno.writeTextFileSync(token_file, "fedcba9876543210");
  await client.list();
  assert.deepEqual(server.requests.map(({ auth }) => auth), [
    "Bearer 0123456789abcdef",
    "Bearer fedcba9876543210",
  ]);
  Deno.chmodSync(token_file, 0o644);
  await assert.rejects(client.list(), { code: "config/token-file" });
  assert.equal(server.requests.length, 2);
  client.close();
});

Deno.test("a URL that is none, or would send the token in the clear, is a configuration error", () => {
  const urls = [
    "store.example:9320",
    "ftp://127.0.0.1/",
    "http://store.example:9320",
    "http://10.0.0.1",
  ];
  for (const url of urls) {
    const open = () => openStore("far", { type: "psma", url }, { log: silentLog });
    assert.throws(open, { code: "config/store" }, url);
  }
});
