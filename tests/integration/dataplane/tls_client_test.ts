/** NBD over TLS as a client: our own server, nbdkit's and qemu-nbd's, and servers that are not to be trusted. */
import { deepEqual, equal, match, rejects } from "node:assert/strict";
import { silentLog } from "../../../src/core/mod.ts";
import { DataPlane, type DataPlaneEvent, type TlsSpec } from "../../../src/dataplane/mod.ts";
import { type Certificates, makeCertificates } from "../../support/certificates.ts";
import { freePort, run, start, type Started, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";
import { serveByTls } from "../../support/tls_plane.ts";

const MIB = 1024 * 1024;
const NBDKIT = requires({ io_uring: true, commands: ["openssl", "nbdkit"] });

interface Client extends AsyncDisposable {
  readonly plane: DataPlane;
  readonly events: DataPlaneEvent[];
  /** Opens an export, writes to it, reads back, closes it. @returns its size. */
  use(uri: string, tls: TlsSpec): Promise<number>;
}

async function newClient(temp: TempDir): Promise<Client> {
  const events: DataPlaneEvent[] = [];
  const plane = await DataPlane.start({
    log: silentLog,
    onEvent: (event) => events.push(event),
    tls_directory: temp.file("client-tls"),
  });
  return {
    plane,
    events,
    async use(uri, tls) {
      const { device, size_bytes } = await plane.command("openDevice", { uri, tls });
      const bytes = new Uint8Array(size_bytes).fill(7);
      await plane.command("writeDevice", { device, at: 0, bytes });
      await plane.command("flushDevice", { device });
      const read = await plane.command("readDevice", { device, at: 0, length: size_bytes });
      deepEqual(new Uint8Array(read), bytes);
      await plane.command("closeDevice", { device });
      return size_bytes;
    },
    [Symbol.asyncDispose]: () => plane.stop(),
  };
}

interface Kit extends AsyncDisposable {
  readonly port: number;
  readonly uri: string;
}

async function startKit(certificates: Certificates, ...flags: string[]): Promise<Kit> {
  const port = freePort();
  const tls = ["--tls=require", `--tls-certificates=${certificates.dir}`];
  const child = start("nbdkit", ["-f", "-v", "-p", String(port), ...tls, ...flags, "memory", "1M"]);
  await listening(child, port);
  return {
    port,
    uri: `nbds://localhost:${port}/`,
    [Symbol.asyncDispose]: () => child[Symbol.asyncDispose](),
  };
}

async function listening(child: Started, port: number): Promise<void> {
  try {
    await waitUntil(
      () => Deno.connect({ port }).then((one) => (one.close(), true), () => false),
      { what: () => `a server on port ${port}: ${child.output()}` },
    );
  } catch (error) {
    await child[Symbol.asyncDispose]();
    throw error;
  }
}

Deno.test({
  name: "our client and our server speak TLS, with certificates on both sides",
  ...requires({ io_uring: true, commands: ["openssl"] }),
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    await using served = await serveByTls(temp, {
      certificates,
      size_bytes: 2 * MIB,
      demand: true,
    });
    await using client = await newClient(temp);
    const { ca_file, client: shown } = certificates;
    equal(await client.use(served.uri, { ca_file, ...shown }), 2 * MIB);
    // By address, for which the certificate is too, and by another name that is asked for.
    const byAddress = served.uri.replace("localhost", "127.0.0.1");
    equal(await client.use(byAddress, { ca_file, ...shown }), 2 * MIB);
    equal(await client.use(byAddress, { ca_file, ...shown, server_name: "localhost" }), 2 * MIB);
    deepEqual(client.events, []);
    deepEqual(served.events, []);
    equal((Deno.statSync(temp.file("client-tls")).mode ?? 0) & 0o777, 0o700);
    // Without a certificate: TLS 1.3 says so only after the handshake.
    await rejects(client.use(served.uri, { ca_file }), /demands a client certificate/);
  },
});

Deno.test({
  name: "our client speaks to nbdkit, which demands TLS and a certificate",
  ...NBDKIT,
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    await using kit = await startKit(certificates, "--tls-verify-peer");
    await using client = await newClient(temp);
    const { ca_file, client: shown } = certificates;
    equal(await client.use(kit.uri, { ca_file, ...shown }), MIB);
    await rejects(client.use(kit.uri, { ca_file }), /it demands a client certificate/);
  },
});

Deno.test({
  name: "our client speaks to qemu-nbd with TLS",
  ...requires({ io_uring: true, commands: ["openssl", "qemu-nbd"] }),
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    const port = freePort(), image = temp.file("image");
    Deno.writeFileSync(image, new Uint8Array(MIB));
    const creds = `tls-creds-x509,id=tls0,endpoint=server,verify-peer=yes,dir=${certificates.dir}`;
    const export_ = ["-x", "data", "-f", "raw", "-t", "-p", String(port), image];
    await using server = start("qemu-nbd", ["--object", creds, "--tls-creds", "tls0", ...export_]);
    await listening(server, port);
    await using client = await newClient(temp);
    const { ca_file, client: shown } = certificates;
    equal(await client.use(`nbds://localhost:${port}/data`, { ca_file, ...shown }), MIB);
  },
});

Deno.test({
  name: "a server that is not to be trusted is refused, and one sentence says why",
  ...NBDKIT,
  async fn() {
    using temp = tempDir();
    const good = await makeCertificates(temp.file("good"));
    const stranger = await makeCertificates(temp.file("stranger"));
    const old = await makeCertificates(temp.file("old"), { expired: true });
    const other = await makeCertificates(temp.file("other"), {
      server_names: "subjectAltName=DNS:other.example",
    });
    await using kit = await startKit(good);
    await using oldKit = await startKit(old);
    await using otherKit = await startKit(other);
    await using client = await newClient(temp);
    const refused = async (uri: string, tls: TlsSpec, why: string) => {
      const { host } = new URL(uri);
      await rejects(client.use(uri, tls), (error: Error) => {
        equal(error.message, `Cannot reach ${host} over TLS: ${why}`);
        return true;
      });
      equal(client.events.at(-1)?.message, `Cannot reach ${host} over TLS: ${why}`);
    };
    const { ca_file } = stranger;
    await refused(kit.uri, { ca_file }, `its certificate is not signed by ${ca_file}`);
    await refused(oldKit.uri, { ca_file: old.ca_file }, "its certificate has expired");
    await refused(
      otherKit.uri,
      { ca_file: other.ca_file },
      "its certificate is not for localhost",
    );
    const named = { ca_file: other.ca_file, server_name: "other.example" };
    equal(await client.use(otherKit.uri, named), MIB);
    equal(await client.use(kit.uri, { ca_file: good.ca_file }), MIB);
  },
});

Deno.test({
  name: "a server that is away, has no TLS or says nothing is told apart",
  ...NBDKIT,
  async fn() {
    using temp = tempDir();
    const { ca_file } = await makeCertificates(temp.file("pki"));
    await using client = await newClient(temp);
    const away = `nbds://localhost:${freePort()}/`;
    await rejects(client.use(away, { ca_file }), /over TLS: nobody listens there/);
    await rejects(
      client.use("nbds://no-such-host.invalid/x", { ca_file }),
      /no-such-host\.invalid:10809 over TLS: its host name (is not known|can not be looked up now)/,
    );
    const port = freePort();
    await using plain = start("nbdkit", ["-f", "-p", String(port), "memory", "1M"]);
    await listening(plain, port);
    const uri = `nbds://localhost:${port}/`;
    await rejects(client.use(uri, { ca_file }), /over TLS: it does not offer TLS/);
    using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const mute = `nbds://localhost:${(silent.addr as Deno.NetAddr).port}/`;
    await rejects(client.use(mute, { ca_file }), /over TLS: it did not answer within 8 s/);
    await rejects(
      client.use(uri, { ca_file: temp.file("none") }),
      /Cannot use .*none: there is no such file/,
    );
  },
});

Deno.test({
  name: "a volume's backend goes on over TLS after its server was killed and is back",
  ...NBDKIT,
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    const { ca_file } = certificates;
    await using client = await newClient(temp);
    const port = freePort(), image = temp.file("image");
    Deno.writeFileSync(image, new Uint8Array(MIB));
    const launch = async () => {
      const tls = ["--tls=require", `--tls-certificates=${certificates.dir}`];
      const child = start("nbdkit", ["-f", "-p", String(port), ...tls, "file", image]);
      await listening(child, port);
      return child;
    };
    const first = await launch();
    const uri = `nbds://localhost:${port}/`;
    const { device } = await client.plane.command("openDevice", { uri, tls: { ca_file } });
    await first.end("SIGKILL");
    const bytes = new Uint8Array(4096).fill(9);
    const written = client.plane.command("writeDevice", { device, at: 0, bytes });
    await waitUntil(
      () => client.events.some(({ message }) => /nobody listens there/.test(message)),
      { what: () => `the loss to be told: ${JSON.stringify(client.events)}` },
    );
    await using _second = await launch();
    await written;
    deepEqual(Deno.readFileSync(image).subarray(0, 4096), bytes);
    await client.plane.command("closeDevice", { device });
  },
});

Deno.test({
  name: "a renewed certificate is in force for the next connection, and a bad one is told and left",
  ...requires({ io_uring: true, commands: ["openssl", "nbdinfo"] }),
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    const renewed = await makeCertificates(temp.file("renewed"));
    await using served = await serveByTls(temp, { certificates, size_bytes: MIB });
    await run("nbdinfo", [served.toolUri(certificates.dir)]);
    Deno.writeTextFileSync(certificates.server.cert_file, "not a certificate");
    await run("nbdinfo", [served.toolUri(certificates.dir)]);
    match(
      await served.told(/stays in force/),
      /server-cert\.pem: it holds no certificate in PEM form; the one before stays in force$/,
    );
    Deno.copyFileSync(renewed.server.key_file, certificates.server.key_file);
    Deno.copyFileSync(renewed.server.cert_file, certificates.server.cert_file);
    await run("nbdinfo", [served.toolUri(renewed.dir)]);
    await rejects(run("nbdinfo", [served.toolUri(certificates.dir)]));
  },
});
