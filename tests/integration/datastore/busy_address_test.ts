/** `psma store serve` where somebody else has one of its addresses: no directory, no token, no socket is left. */
import { deepEqual, match } from "node:assert/strict";
import { makeCertificates } from "../../support/certificates.ts";
import { freePort, psma } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const CODE = /^ {2}code: state\/address-in-use$/m;

Deno.test({
  name: "store: an address that is another's ends it before it has made anything",
  ...requires({ io_uring: true, commands: ["openssl"] }),
  async fn(test) {
    using temp = tempDir();
    const { server } = await makeCertificates(temp.file("pki"));
    using other = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const busy = `127.0.0.1:${other.addr.port}`;
    const before = namesIn(temp.path);
    const refused = async (...args: string[]) => {
      const serve = ["store", "serve", "--path", temp.file("store"), ...args];
      const { stderr } = await psma(serve, { exit: 4 });
      match(stderr, CODE);
      deepEqual(namesIn(temp.path), before);
      return stderr;
    };
    await test.step("HTTP", async () => {
      const stderr = await refused("--listen", busy, "--nbd-listen", `127.0.0.1:${freePort()}`);
      match(stderr, /^psma: Cannot listen on http:.*: another process listens there$/m);
      match(stderr, /Stop the other process, or set --listen to another address/);
    });
    const http = ["--listen", `unix:${temp.file("http.sock")}`];
    await test.step("NBD", async () => {
      const stderr = await refused(...http, "--nbd-listen", busy);
      match(stderr, /^psma: Cannot listen on 127.*: address is in use$/m);
      match(stderr, /Stop the other process, or choose another address/);
    });
    await test.step("NBD over TLS", async () => {
      const tls = ["--tls-cert", server.cert_file, "--tls-key", server.key_file];
      const stderr = await refused(...http, "--nbd-listen", busy, ...tls);
      match(stderr, /^psma: Cannot listen on 127.*: another process listens there$/m);
    });
  },
});

function namesIn(path: string): string[] {
  return [...Deno.readDirSync(path)].map(({ name }) => name).sort();
}
