/** TLS files that are missing: what waits for them, and what must not. */
import assert from "node:assert/strict";
import { silentLog, systemClock } from "../../../src/core/mod.ts";
import { DataPlane, type Placement } from "../../../src/dataplane/mod.ts";
import { TlsRelay } from "../../../src/dataplane/tls/relay_handle.ts";
import { makeCertificates } from "../../support/certificates.ts";
import { thinPlacement } from "../../support/planes.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";
import { serveByTls } from "../../support/tls_plane.ts";
import { mirrorTerms } from "../../support/mirror_terms.ts";

const MIB = 1024 * 1024;
const needs = requires({ io_uring: true, commands: ["openssl"] });

Deno.test({
  name:
    "a volume opens although the TLS files of its mirror's store are missing, and finds them later",
  ...needs,
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    await using far = await serveByTls(temp, { certificates, size_bytes: 2 * MIB });
    const ca_file = temp.file("ca.pem");
    Deno.copyFileSync(certificates.ca_file, ca_file);
    const target: Placement = {
      store: "far",
      store_volume: "data",
      size_bytes: 2 * MIB,
      backend: { type: "nbd", uri: far.uri, tls: { ca_file } },
    };
    const open = async (initial?: Placement) => {
      const plane = await DataPlane.start({
        log: silentLog,
        tls_directory: temp.file("agent-tls"),
      });
      const [name, directory] = ["data", temp.file("agent")];
      const rest = { max_size_bytes: 4 * MIB, ...(initial ? { initial } : {}) };
      await plane.command("openVolume", { name, directory, ...rest });
      return plane;
    };
    const reason = async (plane: DataPlane) =>
      (await plane.command("mirrorStatus", { volume: "data" }))?.reason;
    const first = await open(thinPlacement(temp.file("source"), 2 * MIB));
    await first.command("startMirror", {
      volume: "data",
      id: "m1",
      target,
      terms: mirrorTerms({ write_through_timeout_ms: 200, resync_interval_ms: 50 }),
      compare: false,
    });
    await first.stop();
    Deno.renameSync(ca_file, temp.file("away.pem"));
    const second = await open();
    try {
      await waitUntil(async () => (await reason(second)) === "the target is not reachable", {
        what: "the mirror to wait for its target",
      });
      Deno.renameSync(temp.file("away.pem"), ca_file);
      await waitUntil(async () => (await reason(second)) === undefined, {
        what: "the mirror to reach its target",
      });
    } finally {
      await second.stop();
    }
  },
});

Deno.test({
  name: "route() gives no two servers one socket when another route has failed in between",
  ...needs,
  async fn() {
    using temp = tempDir();
    const { ca_file } = await makeCertificates(temp.file("pki"));
    const relay = new TlsRelay({
      directory: temp.file("relay"),
      log: silentLog,
      clock: systemClock,
      onEvent: ({ message }) => assert.fail(message),
    });
    try {
      const missing = relay.route("nbds://localhost:1/a", { ca_file: temp.file("none") });
      const one = relay.route("nbds://localhost:2/a", { ca_file });
      await assert.rejects(missing, { code: "config/tls-file" });
      assert.notEqual(await one, await relay.route("nbds://localhost:3/a", { ca_file }));
    } finally {
      relay.stop();
    }
  },
});
