import { deepEqual, equal } from "node:assert/strict";
import { decodeBackupDigests, encodeBackupDigests } from "../../../src/codec/mod.ts";

const list = {
  of: "near/data@3 2030-01-01T00:00:00.000Z",
  algorithm: "xxh64",
  extent_bytes: 262_144,
  digest_bytes: 8,
  digests: Uint8Array.from({ length: 24 }, (_, at) => at),
};

Deno.test("decodeBackupDigests() reads what was written", () => {
  deepEqual(decodeBackupDigests(encodeBackupDigests(list)), list);
});

Deno.test("decodeBackupDigests() knows every flipped bit of it, and every length that is too short", () => {
  const bytes = encodeBackupDigests(list);
  const padding = (at: number) => at >= 24 && at < 32;
  for (let at = 0; at < bytes.length; at++) {
    const spoilt = bytes.slice();
    spoilt[at] = (spoilt[at] as number) ^ 4;
    equal(decodeBackupDigests(spoilt), undefined, `${at}${padding(at) ? " (padding)" : ""}`);
  }
  for (let length = 0; length < bytes.length; length++) {
    equal(decodeBackupDigests(bytes.slice(0, length)), undefined, `${length} bytes`);
  }
});
