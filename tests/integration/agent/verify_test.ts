/** `psma mirror verify` on a mounted file system: a rotten byte is found, named and repaired; a kill costs nothing. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { listMounts, syncFilesystem, umountLazily } from "../../../src/sys/mod.ts";
import { placeOf } from "../../support/file_places.ts";
import { flipBit } from "../../support/mirrored_volume.ts";
import { psma, startPsma, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MIB = 2 ** 20, CHUNK = 64 * 1024;

const needs = requires({
  io_uring: true,
  root: true,
  fuse: true,
  loop: true,
  commands: ["mkfs.xfs"],
  filesystems: ["xfs"],
});

function writeConfig(temp: TempDir): string {
  const path = temp.file("psma.yaml");
  Deno.writeTextFileSync(
    path,
    `
api: { listen: "unix:${temp.path}/api.sock" }
state_dir: state
sampling: { interval: 1s }
forecast: { horizon: 1m, interval: 1h }
stores:
  near: { type: embedded, path: near }
  far: { type: embedded, path: far }
volumes:
  data:
    size: 320MiB
    max_size: 2GiB
    frontend: fuse
    filesystem: { type: xfs, mount: ${temp.path}/mnt }
    mirror: { store: far, rpo: 1s }
    scale: { approve: advise }
`,
  );
  return path;
}

/** The one file of bytes of an embedded store. */
function bytesOf(temp: TempDir, store: string): string {
  for (const { name, isDirectory } of Deno.readDirSync(temp.file(store))) {
    const folder = temp.file(`${store}/${name}`);
    for (const file of isDirectory ? Deno.readDirSync(folder) : []) {
      if (Deno.statSync(`${folder}/${file.name}`).size > 100 * MIB) return `${folder}/${file.name}`;
    }
  }
  throw new Error(`there are no bytes in ${store}`);
}

/** What a failed test would leave in the kernel. */
function unmountedAtTheEnd(temp: TempDir): Disposable {
  return {
    [Symbol.dispose]() {
      const ours = listMounts().filter(({ at }) => at.startsWith(temp.path)).reverse();
      for (const { at } of ours) umountLazily(at);
    },
  };
}

Deno.test({
  name: "psma mirror verify names the file whose copy is rotten, exits with 5, and has it repaired",
  ...needs,
  async fn() {
    using temp = tempDir();
    using _unmounted = unmountedAtTheEnd(temp);
    const config = writeConfig(temp);
    await using agent = startPsma(["run", "--config", config]);
    await agent.line(/data is served at/);
    const mount = temp.file("mnt");
    for (const name of ["good", "bad", "other"]) {
      const bytes = new Uint8Array(2 * MIB).fill(name.length);
      bytes.set(new TextEncoder().encode(`marker of ${name}`), MIB);
      Deno.writeFileSync(`${mount}/${name}`, bytes);
    }
    syncFilesystem(mount);
    const cli = (...args: string[]) => psma(["mirror", ...args, "--config", config]);
    await cli("start", "data", "--size", "640MiB");
    const sound = await cli("verify", "data");
    match(sound.stdout, /differed +0B/);

    const at = placeOf(bytesOf(temp, "far"), "marker of bad");
    flipBit(bytesOf(temp, "far"), at + 3);
    const rotten = await psma(["mirror", "verify", "data", "--json", "--config", config], {
      exit: 5,
    });
    const { state, result } = JSON.parse(rotten.stdout);
    equal(state, "done");
    deepEqual(result.mismatches, [{ at: at - at % CHUNK, length: CHUNK }]);
    deepEqual(result.owners.map((one: { files: string[] }) => one.files), [[`${mount}/bad`]]);
    match(rotten.stderr, /verify\/mismatch/);

    await waitUntil(async () => {
      const { stdout } = await cli("status", "data", "--json");
      return JSON.parse(stdout).dirty_bytes === 0;
    }, { what: "the repair" });
    const repaired = await cli("verify", "data");
    match(repaired.stdout, /differed +0B/);
    match((await cli("status", "data")).stdout, /verify +done .*: no difference/);
    equal((await agent.end()).code, 0, agent.output());
  },
});

Deno.test({
  name: "psma mirror verify goes on after a kill of the agent, under the same operation",
  ...needs,
  async fn() {
    using temp = tempDir();
    using _unmounted = unmountedAtTheEnd(temp);
    const config = writeConfig(temp);
    const cli = (...args: string[]) => psma(["mirror", ...args, "--config", config]);
    const verifyOf = async () => JSON.parse((await cli("status", "data", "--json")).stdout).verify;
    let begun: { id: string };
    let before: { done_bytes: number };
    {
      await using agent = startPsma(["run", "--config", config]);
      await agent.line(/data is served at/);
      Deno.writeFileSync(temp.file("mnt/bytes"), new Uint8Array(24 * MIB).fill(5));
      syncFilesystem(temp.file("mnt"));
      await cli("start", "data", "--size", "640MiB");
      const slow = await cli("verify", "data", "--max-rate", "1MiB", "--no-wait", "--json");
      begun = JSON.parse(slow.stdout);
      const stopped = await waitUntil(async () => {
        const now = await verifyOf();
        return now.done_bytes > 0 ? now : undefined;
      }, { what: "a beginning" });
      equal(stopped.id, begun.id);
      await psma(["mirror", "verify", "data", "--stop", "--config", config]);
      before = await verifyOf();
      ok(before.done_bytes < 320 * MIB);
      const again = await cli(
        "verify",
        "data",
        "--resume",
        "--max-rate",
        "1MiB",
        "--no-wait",
        "--json",
      );
      begun = JSON.parse(again.stdout);
      ok((await verifyOf()).done_bytes >= before.done_bytes, "goes on where it was stopped");
      await agent.end("SIGKILL");
    }
    await using agent = startPsma(["run", "--config", config]);
    await agent.line(/data is served at/);
    const after = await verifyOf();
    deepEqual([after.id, after.state], [begun.id, "running"]);
    ok(after.done_bytes >= before.done_bytes, `${after.done_bytes} < ${before.done_bytes}`);
    const { stderr } = await psma(["mirror", "verify", "data", "--config", config], { exit: 4 });
    match(stderr, /a verify is under way/);
    match((await cli("verify", "data", "--stop")).stdout, /^stopped /);
    const done = JSON.parse((await cli("verify", "data", "--resume", "--json")).stdout);
    equal(done.result.equal_bytes + done.result.behind_bytes, 320 * MIB);
    equal((await agent.end()).code, 0, agent.output());
  },
});
