import assert from "node:assert/strict";
import { parseNbdUri, targetText } from "../../../../src/backend/mod.ts";

Deno.test("parseNbdUri() reads hosts, ports, sockets and names", () => {
  const cases: [string, unknown][] = [
    ["nbd://127.0.0.1:10899/vol", {
      address: { host: "127.0.0.1", port: 10899 },
      exportName: "vol",
    }],
    ["nbd://localhost", { address: { host: "localhost", port: 10809 }, exportName: "" }],
    ["nbd://[::1]:1/a%2Fb", { address: { host: "::1", port: 1 }, exportName: "a/b" }],
    ["nbd://10.0.0.1/vol@7", { address: { host: "10.0.0.1", port: 10809 }, exportName: "vol@7" }],
    ["nbd+unix:///vol?socket=/run/p%20q.sock", {
      address: { path: "/run/p q.sock" },
      exportName: "vol",
    }],
    ["nbd+unix://?socket=/s", { address: { path: "/s" }, exportName: "" }],
  ];
  for (const [uri, expected] of cases) assert.deepEqual(parseNbdUri(uri), expected, uri);
});

Deno.test("parseNbdUri() refuses what it cannot reach", () => {
  const bad = [
    "",
    "http://host/x",
    "nbds://host/x",
    "nbd:///x",
    "nbd://host:port/x",
    "nbd://a:b:c/x",
    "nbd+unix:///x",
    "nbd+unix://host/x?socket=/s",
    "nbd://host/%zz",
  ];
  for (const uri of bad) assert.throws(() => parseNbdUri(uri), { code: "usage/nbd-uri" }, uri);
});

Deno.test("targetText() names the export and where it is", () => {
  assert.equal(targetText(parseNbdUri("nbd://[::1]/v")), "v on [::1]:10809");
  assert.equal(targetText(parseNbdUri("nbd+unix:///?socket=/s")), "the default export on unix:/s");
});
