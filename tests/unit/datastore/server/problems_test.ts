/** Every misuse gets one clear error with a code, and changes nothing. */
import assert from "node:assert/strict";
import { requires } from "../../../support/requires.ts";
import { type Ask, MIB, mirrorBody, openTestStore, TOKEN } from "../../../support/store_app.ts";

interface Misuse {
  readonly what: string;
  readonly method: string;
  readonly path: string;
  readonly ask?: Ask;
  readonly status: number;
  readonly code: string;
}

const volume = (body: Record<string, unknown>): Ask => ({
  body: { name: "new", size_bytes: MIB, ...body },
});
const source = { agent: "node-1", volume: "data", size_bytes: MIB, used_bytes: MIB };
const manyExtents = Array.from({ length: 1025 }, () => ({ at: 0, length: 4096 }));
const create = { method: "POST", path: "/v1/volumes", status: 400, code: "usage/request" };
const named = { ...create, code: "usage/name" };
const unauthorised = { ...create, status: 401, code: "auth/token" };
const digest = { ...create, path: "/v1/volumes/data/digests" };
const promote = { ...create, path: "/v1/volumes/data/promote" };
const resize = { ...create, method: "PATCH", path: "/v1/volumes/data" };
const mirror = { ...create, path: "/v1/mirror-requests" };
const good = volume({});

const MISUSES: readonly Misuse[] = [
  { what: "no token", ...unauthorised, ask: { ...good, authorization: null } },
  { what: "wrong token", ...unauthorised, ask: { ...good, authorization: `Bearer ${TOKEN}0` } },
  { what: "token as Basic", ...unauthorised, ask: { ...good, authorization: `Basic ${TOKEN}` } },
  {
    what: "no token on digests",
    ...unauthorised,
    path: "/v1/volumes/data/digests",
    ask: { body: { extents: [] }, authorization: null },
  },
  {
    what: "no token on delete",
    ...unauthorised,
    method: "DELETE",
    path: "/v1/volumes/data",
    ask: { authorization: null },
  },
  { what: "name that climbs", ...named, ask: volume({ name: "../data" }) },
  { what: "name with a slash", ...named, ask: volume({ name: "a/b" }) },
  { what: "name with an epoch", ...named, ask: volume({ name: "data@9" }) },
  { what: "hidden name", ...named, ask: volume({ name: ".psma-lock" }) },
  { what: "empty name", ...named, ask: volume({ name: "" }) },
  { what: "name with a zero byte", ...named, ask: volume({ name: "a\0b" }) },
  { what: "name that is too long", ...create, ask: volume({ name: "a".repeat(65) }) },
  { what: "name that is a number", ...create, ask: volume({ name: 7 }) },
  { what: "negative size", ...create, ask: volume({ size_bytes: -MIB }) },
  { what: "zero size", ...create, ask: volume({ size_bytes: 0 }) },
  { what: "huge size", ...create, ask: volume({ size_bytes: 2 ** 53 }) },
  { what: "size with a fraction", ...create, ask: volume({ size_bytes: 4096.5 }) },
  { what: "size as text", ...create, ask: volume({ size_bytes: "1MiB" }) },
  { what: "unknown field", ...create, ask: volume({ sise_bytes: MIB }) },
  { what: "missing field", ...create, ask: { body: { name: "new" } } },
  { what: "no body", ...create },
  { what: "broken JSON", ...create, ask: { raw: '{"name":' } },
  { what: "a list", ...create, ask: { raw: "[]" } },
  { what: "another content type", ...create, ask: { ...good, content_type: "text/plain" } },
  {
    what: "oversize body",
    ...create,
    ask: { raw: " ".repeat(300_000) },
    status: 413,
    code: "usage/body-size",
  },
  {
    what: "body of unknown length",
    ...create,
    ask: { ...good, content_length: null },
    code: "usage/length",
  },
  { what: "endless idempotency key", ...create, ask: { ...good, key: "k".repeat(129) } },
  {
    what: "duplicate name",
    ...create,
    ask: volume({ name: "data" }),
    status: 409,
    code: "state/exists",
  },
  {
    what: "used idempotency key",
    ...create,
    ask: { ...good, key: "first" },
    status: 409,
    code: "state/idempotency-key",
  },
  {
    what: "more than there is",
    ...create,
    ask: volume({ size_bytes: 101 * MIB }),
    status: 507,
    code: "store/full",
  },
  { what: "oversize digest list", ...digest, ask: { body: { extents: manyExtents } } },
  { what: "oversize extent", ...digest, ask: { body: { extents: [{ at: 0, length: MIB + 1 }] } } },
  { what: "empty extent", ...digest, ask: { body: { extents: [{ at: 0, length: 0 }] } } },
  { what: "negative extent", ...digest, ask: { body: { extents: [{ at: -4096, length: 4096 }] } } },
  {
    what: "extent beyond the end",
    ...digest,
    ask: { body: { extents: [{ at: 4 * MIB - 512, length: 4096 }] } },
    code: "usage/extent",
  },
  {
    what: "digests of no volume",
    ...digest,
    path: "/v1/volumes/none/digests",
    ask: { body: { extents: [] } },
    status: 404,
    code: "not-found/store-volume",
  },
  {
    what: "stale epoch",
    ...promote,
    ask: { body: { epoch: 4 } },
    status: 409,
    code: "fenced/stale-epoch",
  },
  { what: "negative epoch", ...promote, ask: { body: { epoch: -1 } } },
  { what: "epoch beyond 2^53", ...promote, ask: { raw: '{"epoch": 9007199254740993}' } },
  { what: "shrinking", ...resize, ask: { body: { size_bytes: MIB } }, code: "usage/shrink" },
  {
    what: "growing beyond what there is",
    ...resize,
    ask: { body: { size_bytes: 200 * MIB } },
    status: 507,
    code: "store/full",
  },
  { what: "renaming", ...resize, ask: { body: { size_bytes: 8 * MIB, name: "other" } } },
  { what: "mirror request without a key", ...mirror, ask: { body: mirrorBody() } },
  { what: "mirror by pull", ...mirror, ask: { key: "m", body: mirrorBody({ mode: "pull" }) } },
  {
    what: "mirror of a bad name",
    ...mirror,
    ask: { key: "m", body: mirrorBody({ source: { ...source, volume: "../x" } }) },
    code: "usage/name",
  },
  {
    what: "mirror with more in use than there is room",
    ...mirror,
    ask: { key: "m", body: mirrorBody({ source: { ...source, used_bytes: 2 ** 52 } }) },
    status: 507,
    code: "store/full",
  },
  {
    what: "mirror with a level of 95",
    ...mirror,
    ask: {
      key: "m",
      body: mirrorBody({ predicted_need: { bytes: 1, level: 95, at: "2026-01-02T03:04:05Z" } }),
    },
  },
  {
    what: "mirror until someday",
    ...mirror,
    ask: { key: "m", body: mirrorBody({ deadline: "soon" }) },
  },
  {
    what: "cancelling no request",
    method: "DELETE",
    path: "/v1/mirror-requests/mr-0",
    status: 404,
    code: "not-found/mirror-request",
  },
  {
    what: "deleting a path",
    method: "DELETE",
    path: "/v1/volumes/..%2F..%2Fetc",
    status: 404,
    code: "not-found/store-volume",
  },
  {
    what: "no such route",
    method: "GET",
    path: "/v2/volumes",
    status: 404,
    code: "not-found/route",
  },
  {
    what: "no such method",
    method: "PUT",
    path: "/v1/volumes/data",
    status: 404,
    code: "not-found/route",
  },
];

Deno.test({
  name: "misuse gets a clear error each and changes nothing",
  ...requires({ io_uring: true }),
  async fn(t) {
    await using store = await openTestStore({ capacity_bytes: 100 * MIB });
    const first = { key: "first", body: { name: "data", size_bytes: 4 * MIB } };
    assert.equal((await store.ask("POST", "/v1/volumes", first)).status, 201);
    const promoted = await store.ask("POST", "/v1/volumes/data/promote", { body: { epoch: 5 } });
    assert.equal(promoted.status, 200);
    const before = await stateOf(store);
    for (const { what, method, path, ask, status, code } of MISUSES) {
      await t.step(what, async () => {
        const answer = await store.ask(method, path, ask);
        assert.deepEqual([answer.status, answer.body.code], [status, code], answer.body.detail);
        assert.equal(answer.type, "application/problem+json");
        assert.equal(answer.body.status, status);
        assert.match(answer.body.title, /^[A-Z]/);
        assert.match(answer.body.detail, /^Cannot .*[^.]$/s);
        assert.deepEqual(await stateOf(store), before);
      });
    }
  },
});

async function stateOf(store: Awaited<ReturnType<typeof openTestStore>>) {
  return {
    volumes: (await store.ask("GET", "/v1/volumes")).body,
    promised_bytes: (await store.ask("GET", "/v1/capacity")).body.promised_bytes,
    folders: [...Deno.readDirSync(store.temp.file("volumes"))].map(({ name }) => name).sort(),
    record: Deno.readTextFileSync(store.temp.file("volumes/data/volume.json")),
  };
}
