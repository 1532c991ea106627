/** Which process /proc/locks says has a file. */
import assert from "node:assert/strict";
import { decodeClaims } from "../../../src/codec/mod.ts";

/** From a Linux 6.12 machine; 08:01 is major 8, minor 1. */
const LOCKS = `1: POSIX  ADVISORY  WRITE 17 08:01:42 0 EOF
2: FLOCK  ADVISORY  WRITE 4711 08:01:42 0 EOF
2: -> FLOCK  ADVISORY  WRITE 4712 08:01:42 0 EOF
3: FLOCK  ADVISORY  WRITE 5 103:1f4:42 0 EOF
4: FLOCK  ADVISORY  WRITE 0 08:01:43 0 EOF
`;

Deno.test("decodeClaims() finds who holds the lock, by device and inode", () => {
  assert.equal(decodeClaims(LOCKS, 0x801, 42), 4711);
  // 0x103 and 0x1f4 as makedev(3) packs them: the low byte of the minor, 12 bits of the major, the rest.
  assert.equal(decodeClaims(LOCKS, 0x1103f4, 42), 5);
});

Deno.test("decodeClaims() names nobody for a file without a lock, or with one of another namespace", () => {
  assert.equal(decodeClaims(LOCKS, 0x801, 41), undefined);
  assert.equal(decodeClaims(LOCKS, 0x802, 42), undefined);
  assert.equal(decodeClaims(LOCKS, 0x801, 43), undefined);
  assert.equal(decodeClaims("", 0x801, 42), undefined);
});
