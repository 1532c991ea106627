/** The schedule of verifies, and the scrub of a frozen backup, as an operator meets them. */
import { equal, match } from "node:assert/strict";
import { silentLog } from "../../../src/core/mod.ts";
import { DataPlane } from "../../../src/dataplane/mod.ts";
import { flipBit } from "../../support/mirrored_volume.ts";
import { psma, startPsma, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MIB = 2 ** 20, WRITTEN_BYTES = 4 * MIB;

function writeConfig(temp: TempDir): string {
  const path = temp.file("psma.yaml");
  Deno.writeTextFileSync(
    path,
    `
api: { listen: "unix:${temp.path}/api.sock" }
state_dir: state
forecast: { horizon: 1m, interval: 1h }
stores:
  near: { type: embedded, path: near }
  far: { type: embedded, path: far }
volumes:
  data:
    store: near
    size: 64MiB
    max_size: 256MiB
    frontend: nbd
    mirror: { store: far, verify: { every: 1h } }
    scale: { approve: advise }
`,
  );
  return path;
}

async function write(uri: string): Promise<void> {
  const program = await DataPlane.start({ log: silentLog });
  await using _program = { [Symbol.asyncDispose]: () => program.stop() };
  const { device } = await program.command("openDevice", { uri });
  const bytes = new Uint8Array(MIB).fill(7);
  for (let at = 0; at < WRITTEN_BYTES; at += MIB) {
    await program.command("writeDevice", { device, at, bytes });
  }
  await program.command("flushDevice", { device });
}

/** The file with the bytes of the only volume of an embedded store. */
function bytesOf(temp: TempDir, store: string): string {
  for (const { name, isDirectory } of Deno.readDirSync(temp.file(store))) {
    const folder = temp.file(`${store}/${name}`);
    for (const file of isDirectory ? Deno.readDirSync(folder) : []) {
      if (Deno.statSync(`${folder}/${file.name}`).size >= 64 * MIB) return `${folder}/${file.name}`;
    }
  }
  throw new Error(`there are no bytes in ${store}`);
}

Deno.test({
  name:
    "the schedule verifies a mirror, then the backup; psma mirror verify --backup finds what rots",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    const config = writeConfig(temp);
    await using agent = startPsma(["run", "--config", config]);
    await agent.line(/data is served at/);
    const cli = (...args: string[]) => psma([...args, "--config", config]);
    const show = async () => JSON.parse((await cli("volume", "show", "data", "--json")).stdout);
    await write((await show()).exports[0].uri);

    await cli("mirror", "start", "data", "--size", "128MiB");
    const mirrored = await waitUntil(async () => {
      const { verify } = JSON.parse((await cli("mirror", "status", "data", "--json")).stdout);
      return verify?.state === "done" ? verify : undefined;
    }, { what: "the verify that the schedule begins", within_ms: 60_000, every_ms: 500 });
    equal(mirrored.mismatched_bytes, 0);

    await cli("switch", "data", "--urgent");
    equal((await show()).backup.state, "frozen");
    const scrubbed = await waitUntil(async () => {
      const { verify } = (await show()).backup;
      return verify?.state === "done" ? verify : undefined;
    }, { what: "the scrub that the schedule begins", within_ms: 60_000, every_ms: 500 });
    equal(scrubbed.side, "backup");
    equal(scrubbed.mismatched_bytes, 0);
    match((await cli("volume", "show", "data")).stdout, /verified: done .*: no difference/);
    match((await cli("mirror", "verify", "data", "--backup")).stdout, /differed +0B/);

    flipBit(bytesOf(temp, "near"), MIB + 5);
    const again = ["mirror", "verify", "data", "--backup", "--config", config];
    const { stderr } = await psma(again, { exit: 5 });
    match(stderr, /the backup of data/);
    const { verify } = (await show()).backup;
    equal(verify.mismatches.length, 1);
    equal(verify.mismatches[0].at, MIB);
    equal((await agent.end()).code, 0, agent.output());
  },
});
