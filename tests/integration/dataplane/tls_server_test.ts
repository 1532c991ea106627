/** NBD over TLS as a server: the tools that people use, and clients that are wrong, slow or gone. */
import { deepEqual, equal, match, ok, rejects } from "node:assert/strict";
import { encodeExportQuery, encodeOption, NBD_OPTION, NBD_REP } from "../../../src/codec/mod.ts";
import { HANDSHAKES_MAX } from "../../../src/dataplane/tls/relay_server.ts";
import { makeCertificates, withoutClient } from "../../support/certificates.ts";
import { RawNbd } from "../../support/nbd_raw.ts";
import { childrenOf, kill, run, start, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";
import { serveByTls } from "../../support/tls_plane.ts";

const MIB = 1024 * 1024;
const NEEDS = { io_uring: true, commands: ["openssl"] };
const TOOLS = requires({ io_uring: true, commands: ["openssl", "nbdinfo", "nbdcopy"] });
const QEMU = requires({ io_uring: true, commands: ["openssl", "qemu-img"] });

/** Bytes that are not all alike, and the same each time. */
function sample(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let i = 0, x = 1; i < length; i++) {
    x = (x * 1103515245 + 12345) % 2147483648;
    bytes[i] = x >> 16;
  }
  return bytes;
}

function descriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

Deno.test({
  name: "nbdinfo and nbdcopy read and write over TLS, with a client certificate",
  ...TOOLS,
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    await using served = await serveByTls(temp, {
      certificates,
      size_bytes: 24 * MIB,
      demand: true,
    });
    const uri = served.toolUri(certificates.dir);
    const { stdout } = await run("nbdinfo", ["--json", uri]);
    const info = JSON.parse(stdout);
    equal(info.TLS, true);
    equal(info.exports[0]["export-size"], 24 * MIB);
    const bytes = sample(24 * MIB);
    Deno.writeFileSync(temp.file("in"), bytes);
    await run("nbdcopy", ["--flush", temp.file("in"), uri]);
    deepEqual(Deno.readFileSync(served.backing), bytes);
    await run("nbdcopy", [uri, temp.file("out")]);
    deepEqual(Deno.readFileSync(temp.file("out")), bytes);
  },
});

Deno.test({
  name: "qemu-img reads over TLS",
  ...QEMU,
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    await using served = await serveByTls(temp, {
      certificates,
      size_bytes: 4 * MIB,
      demand: true,
    });
    const bytes = sample(4 * MIB);
    Deno.writeFileSync(served.backing, bytes);
    const node = `driver=nbd,host=localhost,port=${served.port},export=data,tls-creds=tls0`;
    const creds = `tls-creds-x509,id=tls0,endpoint=client,dir=${certificates.dir}`;
    await run("qemu-img", [
      ...["convert", "--object", creds, "--image-opts", node],
      ...["-O", "raw", temp.file("out")],
    ]);
    deepEqual(Deno.readFileSync(temp.file("out")), bytes);
  },
});

Deno.test({
  name: "a client without a certificate, or with somebody else's, is refused where one is demanded",
  ...TOOLS,
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    const stranger = await makeCertificates(temp.file("stranger"));
    await using served = await serveByTls(temp, { certificates, size_bytes: MIB, demand: true });
    const bare = withoutClient(certificates, temp.file("bare"));
    await rejects(run("nbdinfo", [served.toolUri(bare)]));
    match(
      await served.told(/shows no certificate/),
      /^Cannot serve 127\.0\.0\.1:\d+ over TLS: it /,
    );
    // Trusts our server, and shows what another authority has signed.
    Deno.copyFileSync(certificates.ca_file, stranger.ca_file);
    await rejects(run("nbdinfo", [served.toolUri(stranger.dir)]));
    await served.told(/not signed by our client authority/);
    await run("nbdinfo", [served.toolUri(certificates.dir)]);
  },
});

Deno.test({
  name:
    "a client that knows another authority goes away, and the event says that it did not accept us",
  ...TOOLS,
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    const stranger = await makeCertificates(temp.file("stranger"));
    await using served = await serveByTls(temp, { certificates, size_bytes: MIB });
    await rejects(run("nbdinfo", [served.toolUri(stranger.dir)]), /certificate/);
    await served.told(/Cannot serve .* over TLS: it (does not accept our certificate|closed)/);
  },
});

Deno.test({
  name: "a client in plain text gets ERR_TLS_REQD for each option and no export",
  ...requires(NEEDS),
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    await using served = await serveByTls(temp, { certificates, size_bytes: MIB });
    const query = encodeExportQuery({ name: "data", wanted: [] });
    {
      using raw = await RawNbd.dial(served.port);
      await raw.greet();
      for (const option of [NBD_OPTION.go, NBD_OPTION.info, NBD_OPTION.list, 77]) {
        const [reply] = await raw.option(
          option,
          option === NBD_OPTION.go ? query : new Uint8Array(),
        );
        equal(reply?.type, NBD_REP.errTlsRequired);
      }
      equal(
        (await raw.option(NBD_OPTION.startTls, new Uint8Array(1)))[0]?.type,
        NBD_REP.errInvalid,
      );
      equal((await raw.option(NBD_OPTION.abort, new Uint8Array()))[0]?.type, NBD_REP.ack);
      equal(await raw.untilClosed(), 0);
    }
    using raw = await RawNbd.dial(served.port);
    await raw.greet();
    await raw.write(encodeOption(NBD_OPTION.exportName, new TextEncoder().encode("data")));
    equal(await raw.untilClosed(), 0);
    await served.told(/it wants an export without TLS/);
  },
});

Deno.test({
  name: "what is sent in plain text behind STARTTLS never reaches the export",
  ...requires(NEEDS),
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    await using served = await serveByTls(temp, { certificates, size_bytes: MIB });
    using raw = await RawNbd.dial(served.port);
    await raw.greet();
    const smuggled = [
      ...encodeOption(NBD_OPTION.startTls, new Uint8Array()),
      ...encodeOption(NBD_OPTION.go, encodeExportQuery({ name: "data", wanted: [] })),
    ];
    await raw.write(Uint8Array.from(smuggled));
    // An acknowledgement at the most, and then no NBD any more.
    ok(await raw.untilClosed() < 60);
    equal((await served.plane.command("nbdSessions", { name: "data" })).sessions, 0);
  },
});

Deno.test({
  name: "TLS 1.3 and 1.2 are spoken, and nothing older",
  ...TOOLS,
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    await using served = await serveByTls(temp, { certificates, size_bytes: MIB });
    const without = async (versions: readonly string[]) => {
      const rules = versions.map((version) => `disabled-version = ${version}\n`).join("");
      Deno.writeTextFileSync(temp.file("gnutls"), `[overrides]\n${rules}`);
      const env = { ...Deno.env.toObject(), GNUTLS_SYSTEM_PRIORITY_FILE: temp.file("gnutls") };
      await run("nbdinfo", [served.toolUri(certificates.dir)], { env });
    };
    await without([]);
    await without(["tls1.3"]);
    await rejects(without(["tls1.2", "tls1.3"]), /TLS|handshake/i);
  },
});

Deno.test({
  name: "clients that stall in the handshake make room for others and go",
  ...TOOLS,
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    await using served = await serveByTls(temp, {
      certificates,
      size_bytes: MIB,
      handshake_ms: 3000,
    });
    using stack = new DisposableStack();
    using first = await RawNbd.dial(served.port);
    await first.untilClosed();
    await served.told(/took more than 3 s to begin TLS/);
    const stalled: RawNbd[] = [];
    for (let i = 0; i < HANDSHAKES_MAX + 8; i++) {
      const raw = stack.use(await RawNbd.dial(served.port));
      await raw.greet();
      // Some stop before STARTTLS, some inside TLS's first message.
      if (i % 2 === 0) {
        equal((await raw.option(NBD_OPTION.startTls, new Uint8Array()))[0]?.type, NBD_REP.ack);
        await raw.write(Uint8Array.of(22, 3, 1, 2, 0, 1));
      }
      stalled.push(raw);
    }
    // The oldest made room while the others still stall.
    equal(await stalled[0]?.untilClosed(), 0);
    const { stdout } = await run("nbdinfo", ["--json", served.toolUri(certificates.dir)]);
    equal(JSON.parse(stdout).TLS, true);
    for (const raw of stalled) await raw.untilClosed();
  },
});

Deno.test({
  name: "200 connections opened and dropped at random points leave no descriptor behind",
  ...requires(NEEDS),
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    await using served = await serveByTls(temp, { certificates, size_bytes: MIB });
    const ca = Deno.readTextFileSync(certificates.ca_file);
    const drop = async (stage: number) => {
      const raw = await RawNbd.dial(served.port);
      if (stage > 0) await raw.greet();
      if (stage > 1) await raw.option(NBD_OPTION.startTls, new Uint8Array());
      if (stage > 2) await raw.write(Uint8Array.of(22, 3, 1, 0, 200));
      raw[Symbol.dispose]();
    };
    const dropSecure = async () => {
      const raw = await RawNbd.dial(served.port);
      await raw.greet();
      await raw.option(NBD_OPTION.startTls, new Uint8Array());
      const tls = await Deno.startTls(raw.connection as Deno.TcpConn, {
        hostname: "localhost",
        caCerts: [ca],
      });
      await tls.write(encodeOption(NBD_OPTION.list, new Uint8Array()));
      tls.close();
    };
    await drop(3);
    await dropSecure();
    const before = await settled();
    for (let i = 0; i < 200; i++) await (i % 5 === 4 ? dropSecure() : drop(i % 5));
    await waitUntil(() => descriptors() <= before, {
      what: () => `${before} descriptors again; there are ${descriptors()}`,
      within_ms: 20_000,
    });
    equal((await served.plane.command("nbdSessions", { name: "data" })).sessions, 0);
  },
});

Deno.test({
  name: "a client that is killed in the middle of a copy leaves no session and no descriptor",
  ...TOOLS,
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    await using served = await serveByTls(temp, { certificates, size_bytes: 256 * MIB });
    const sessions = async () =>
      (await served.plane.command("nbdSessions", { name: "data" })).sessions;
    await run("nbdinfo", [served.toolUri(certificates.dir)]);
    const before = await settled();
    for (let round = 0; round < 3; round++) {
      // A reader that takes nothing: the copy can not end before it is killed.
      await using copy = start("sh", [
        "-c",
        `exec nbdcopy --no-extents '${served.toolUri(certificates.dir)}' - | sleep 60`,
      ]);
      await waitUntil(async () => await sessions() > 0, { what: "the copy to begin" });
      await using other = start("nbdcopy", [served.toolUri(certificates.dir), "null:"]);
      await other.status;
      for (const child of childrenOf(copy.pid)) kill(child, "SIGKILL");
      kill(copy.pid, "SIGKILL");
      await waitUntil(async () => await sessions() === 0, { what: "the session to end" });
    }
    await waitUntil(() => descriptors() <= before, {
      what: () => `${before} descriptors again; there are ${descriptors()}`,
    });
  },
});

/** Descriptors once they have stopped to become fewer. */
async function settled(): Promise<number> {
  let least = descriptors(), same = 0;
  await waitUntil(() => {
    const now = descriptors();
    same = now < least ? 0 : same + 1;
    least = Math.min(least, now);
    return same > 25;
  }, { what: "descriptors to settle" });
  return least;
}
