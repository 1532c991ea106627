/** URIs of NBD over TLS: what is read, what is refused, what is written. */
import { deepEqual, equal, throws } from "node:assert/strict";
import {
  isTlsUri,
  parseTlsUri,
  tlsUriBase,
  unixUri,
} from "../../../../src/dataplane/tls/relay_uri.ts";
import { parseNbdUri } from "../../../../src/backend/nbd/uri.ts";

Deno.test("parseTlsUri() reads hosts, ports, names and sockets", () => {
  deepEqual(parseTlsUri("nbds://store.example:10810/data@3"), {
    address: { host: "store.example", port: 10810 },
    host: "store.example",
    exportPath: "data@3",
  });
  deepEqual(parseTlsUri("nbds://[2001:db8::1]").address, { host: "2001:db8::1", port: 10809 });
  const { address, host, exportPath } = parseTlsUri("nbds+unix:///a%20b?socket=/run/s.sock");
  deepEqual([address, host, exportPath], [{ path: "/run/s.sock" }, "localhost", "a%20b"]);
});

Deno.test("parseTlsUri() refuses what leads nowhere", () => {
  const wrong = ["nbd://h/x", "nbds:///x", "nbds://h:0/x", "nbds://h:99999/x", "nbds+unix:///x"];
  for (const uri of wrong) throws(() => parseTlsUri(uri), { code: "usage/nbd-uri" }, uri);
});

Deno.test("isTlsUri() tells the schemes apart", () => {
  deepEqual(
    ["nbds://h/x", "nbds+unix:///x?socket=/s", "nbd://h/x", "nbd+unix:///x?socket=/s"].map(
      isTlsUri,
    ),
    [true, true, false, false],
  );
});

Deno.test("unixUri() and tlsUriBase() write what is read again", () => {
  equal(tlsUriBase("::1", 1), "nbds://[::1]:1");
  deepEqual(parseTlsUri(`${tlsUriBase("::1", 1)}/x`).address, { host: "::1", port: 1 });
  const target = parseNbdUri(unixUri("a%20b@2", "/run/with space/7"));
  deepEqual(target, { address: { path: "/run/with space/7" }, exportName: "a b@2" });
});
