import assert from "node:assert/strict";
import { formatListen, parseListen } from "../../../src/core/mod.ts";

Deno.test("parseListen() reads loopback addresses and Unix sockets", () => {
  assert.deepEqual(parseListen("127.0.0.1:9320"), { host: "127.0.0.1", port: 9320 });
  assert.deepEqual(parseListen("[::1]:0"), { host: "::1", port: 0 });
  assert.deepEqual(parseListen("localhost:80"), { host: "localhost", port: 80 });
  assert.deepEqual(parseListen("http://127.0.0.1:80/"), { host: "127.0.0.1", port: 80 });
  for (const text of ["unix:/run/store.sock", "/run/store.sock"]) {
    assert.deepEqual(parseListen(text), { path: "/run/store.sock" });
  }
});

Deno.test("parseListen() refuses what others on the network could reach", () => {
  for (const text of ["0.0.0.0:9320", "[::]:9320", "192.168.1.5:9320", "store.example:9320"]) {
    assert.throws(() => parseListen(text), { code: "config/listen", message: /without TLS/ });
  }
});

Deno.test("parseListen() refuses what is no address", () => {
  for (
    const text of [
      "",
      "9320",
      "127.0.0.1",
      "127.0.0.1:",
      "127.0.0.1:70000",
      "unix:store.sock",
      "ftp://127.0.0.1:1",
      "127.0.0.1:80/path",
    ]
  ) {
    assert.throws(() => parseListen(text), { code: "config/listen" }, text);
  }
  assert.throws(() => parseListen("127.0.0.1.example:1"), { message: /without TLS/ });
});

Deno.test("formatListen() writes what parseListen() reads", () => {
  for (const text of ["http://127.0.0.1:9310", "http://[::1]:1", "unix:/run/store.sock"]) {
    assert.equal(formatListen(parseListen(text)), text);
  }
});
