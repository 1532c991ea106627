/** Who may reach NBD over TCP. */
import { equal, match } from "node:assert/strict";
import { reachFault } from "../../../../src/dataplane/tls/reach.ts";

const FILES = { cert_file: "/c", key_file: "/k" };
const WITH_CLIENTS = { ...FILES, client_ca_file: "/a" };

Deno.test("reachFault() lets loopback be plain, and everything else only with TLS and certificates", () => {
  const far = { host: "192.0.2.7", port: 1 }, near = { host: "127.0.0.1", port: 1 };
  equal(reachFault({ listen: near }), undefined);
  equal(reachFault({ listen: near, tls: FILES }), undefined);
  equal(reachFault({ listen: { path: "/s" } }), undefined);
  equal(reachFault({ listen: far, tls: WITH_CLIENTS }), undefined);
  match(reachFault({ listen: far }) ?? "", /without TLS/);
  match(reachFault({ listen: far, tls: FILES }) ?? "", /authority for clients/);
  match(reachFault({ listen: { path: "/s" }, tls: FILES }) ?? "", /no use for TLS/);
});

Deno.test("reachFault() wants a name where every address is listened on", () => {
  for (const host of ["0.0.0.0", "::"]) {
    const listen = { host, port: 1 };
    match(reachFault({ listen, tls: WITH_CLIENTS }) ?? "", /public host/);
    equal(reachFault({ listen, tls: WITH_CLIENTS, public_host: "store.example" }), undefined);
  }
});
