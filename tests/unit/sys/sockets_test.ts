import assert from "node:assert/strict";
import {
  addressText,
  listenSocket,
  parseIpv4,
  parseIpv6,
  sockaddrOf,
} from "../../../src/sys/mod.ts";
import { tempDir } from "../../support/temp.ts";

Deno.test("sockaddrOf() writes addresses as the kernel reads them", () => {
  assert.deepEqual(sockaddrOf({ host: "127.0.0.1", port: 10809 }), {
    family: 2,
    bytes: Uint8Array.of(2, 0, 0x2a, 0x39, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0),
  });
  const v6 = sockaddrOf({ host: "::1", port: 1 });
  assert.equal(v6.family, 10);
  assert.equal(v6.bytes.length, 28);
  assert.deepEqual([...v6.bytes.subarray(0, 4)], [10, 0, 0, 1]);
  assert.equal(v6.bytes[23], 1);
  const unix = sockaddrOf({ path: "/s" });
  assert.deepEqual([...unix.bytes], [1, 0, 47, 115, 0]);
});

Deno.test("sockaddrOf() refuses names, long paths and ports out of range", () => {
  assert.throws(() => sockaddrOf({ host: "store.example", port: 1 }), { code: "usage/host" });
  assert.throws(() => sockaddrOf({ path: "/" + "x".repeat(107) }), { code: "usage/socket-path" });
  assert.throws(() => sockaddrOf({ path: "" }), { code: "usage/socket-path" });
  assert.throws(() => sockaddrOf({ host: "::", port: 65_536 }), { code: "usage/port" });
});

Deno.test("parseIpv6() knows the forms of RFC 4291 without zone and dotted quad", () => {
  const text = (address: string) => parseIpv6(address)?.join(" ");
  assert.equal(text("::"), new Array(16).fill(0).join(" "));
  assert.equal(text("2001:db8::ff"), "32 1 13 184 0 0 0 0 0 0 0 0 0 0 0 255");
  assert.equal(text("1:2:3:4:5:6:7:8"), "0 1 0 2 0 3 0 4 0 5 0 6 0 7 0 8");
  for (const bad of ["", "1", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "g::", "12345::"]) {
    assert.equal(parseIpv6(bad), undefined, bad);
  }
  assert.equal(parseIpv4("256.0.0.1"), undefined);
  assert.equal(addressText({ host: "::1", port: 5 }), "[::1]:5");
});

Deno.test("listenSocket() leaves a file that is no socket alone", () => {
  using temp = tempDir();
  const path = temp.file("notes");
  Deno.writeTextFileSync(path, "mine");
  assert.throws(() => listenSocket({ path }), { code: "state/address-in-use" });
  assert.equal(Deno.readTextFileSync(path), "mine");
});
