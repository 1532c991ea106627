import assert from "node:assert/strict";
import { atEpoch, decodeManifest, encodeManifest, type Manifest } from "../../../src/codec/mod.ts";

const manifest: Manifest = {
  name: "data",
  size_bytes: 1 << 30,
  epoch: 3,
  active: {
    store: "local",
    store_volume: "data-1",
    size_bytes: 1 << 30,
    backend: { type: "file", path: "/v/data" },
  },
  mirror: null,
  prepare: null,
  backup: null,
  backup_mode: "frozen",
  backup_rest: null,
  last_cutover: null,
};

Deno.test("atEpoch() renames an export for another epoch, and leaves what nothing fences", () => {
  const place = { store: "far", store_volume: "data-1", size_bytes: 4096 };
  const at = (uri: string) => atEpoch({ ...place, backend: { type: "nbd", uri } }, 12).backend;
  assert.deepEqual(at("nbd+unix:///data-1@3?socket=/tmp/a@4"), {
    type: "nbd",
    uri: "nbd+unix:///data-1@12?socket=/tmp/a@4",
  });
  assert.deepEqual(at("nbds://h:1/data-1@3"), { type: "nbd", uri: "nbds://h:1/data-1@12" });
  assert.deepEqual(at("nbd://h:1/data-1"), { type: "nbd", uri: "nbd://h:1/data-1" });
  const file = { ...place, backend: { type: "file", path: "/a@3" } } as const;
  assert.deepEqual(atEpoch(file, 12), file);
});

Deno.test("decodeManifest() gives back what encodeManifest() took", () => {
  assert.deepEqual(decodeManifest(encodeManifest(manifest), "manifest"), manifest);
});

Deno.test("decodeManifest() reads a manifest from before mirrors had terms", () => {
  const { backup_mode: _, ...former } = manifest;
  const flat = {
    id: "m1",
    target: manifest.active,
    max_rate_bytes_per_s: null,
    write_through_timeout_ms: 100,
    resync_interval_ms: 5000,
    paused: true,
  };
  const bytes = encodeManifest({ ...former, mirror: flat } as unknown as Manifest);
  const { backup_mode, mirror } = decodeManifest(bytes, "manifest");
  assert.equal(backup_mode, "frozen");
  assert.equal(mirror?.role, "scale");
  assert.equal(mirror?.paused, true);
  assert.equal(mirror?.terms.write_through_timeout_ms, 100);
  assert.equal(mirror?.terms.resync_interval_ms, 5000);
});

Deno.test("decodeManifest() keeps how a placement is reached over TLS", () => {
  const tls = { ca_file: "/ca.pem", cert_file: "/c.pem", key_file: "/k.pem", server_name: "s" };
  const backend = { type: "nbd", uri: "nbds://s.example:10809/data@3", tls } as const;
  const far: Manifest = { ...manifest, active: { ...manifest.active, backend } };
  assert.deepEqual(decodeManifest(encodeManifest(far), "manifest").active.backend, backend);
});

Deno.test("decodeManifest() refuses every truncation", () => {
  const bytes = encodeManifest(manifest);
  for (let length = 0; length < bytes.length; length++) {
    assert.throws(() => decodeManifest(bytes.subarray(0, length), "manifest"), {
      code: "state/manifest",
    });
  }
});

Deno.test("decodeManifest() refuses every flipped bit", () => {
  const bytes = encodeManifest(manifest);
  for (let at = 0; at < bytes.length; at++) {
    const damaged = bytes.slice();
    damaged[at] = (damaged[at] as number) ^ 1;
    assert.throws(() => decodeManifest(damaged, "manifest"), { code: "state/manifest" }, `${at}`);
  }
});
