/** Who owns bytes of a real, mounted file system: found by a marker in its image, named by findOwners(). */
import { deepEqual, equal, ok } from "node:assert/strict";
import { systemClock } from "../../../src/core/mod.ts";
import {
  findOwners,
  mountFilesystem,
  syncFilesystem,
  unmountFilesystem,
} from "../../../src/sys/mod.ts";
import { attachedLoop, sparseFile } from "../../support/attached_loop.ts";
import { placeOf } from "../../support/file_places.ts";
import { run } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const MIB = 2 ** 20, CHUNK = 64 * 1024;
const WITHIN_MS = 20_000;

const KINDS = [
  { name: "ext4", make: ["mkfs.ext4", "-q"] },
  { name: "xfs", make: ["mkfs.xfs", "-q"] },
  { name: "xfs", make: ["mkfs.xfs", "-q", "-m", "rmapbt=1"] },
] as const;

for (const { name, make } of KINDS) {
  Deno.test({
    name: `findOwners() names the file that owns a range of ${make.join(" ")}`,
    ...requires({ root: true, loop: true, filesystems: [name], commands: [make[0]] }),
    async fn() {
      using temp = tempDir();
      const image = sparseFile(temp.file("image"), 320 * MIB);
      await using loop = await attachedLoop({ path: image });
      await run(make[0], [...make.slice(1), loop.device]);
      const mount = temp.file("mnt");
      Deno.mkdirSync(mount);
      await mountFilesystem({ device: loop.device, at: mount, type: name });
      await using _mounted = { [Symbol.asyncDispose]: () => soonUnmounted(mount) };
      Deno.mkdirSync(`${mount}/deep/er`, { recursive: true });
      for (const file of ["one", "deep/two", "deep/er/three"]) {
        const bytes = new Uint8Array(2 * MIB).fill(file.length);
        bytes.set(new TextEncoder().encode(`marker of ${file}`), MIB);
        Deno.writeFileSync(`${mount}/${file}`, bytes);
      }
      Deno.writeFileSync(`${mount}/gone`, new Uint8Array(4 * MIB).fill(9));
      syncFilesystem(mount);
      await run("blockdev", ["--flushbufs", loop.device]);
      const at = placeOf(image, "marker of deep/er/three");
      const range = { at: at - at % CHUNK, length: CHUNK };
      const start = { at: 0, length: CHUNK };
      const [owned, superblock] = findOwners({
        mount,
        ranges: [range, start],
        within_ms: WITHIN_MS,
        clock: systemClock,
      });
      deepEqual(owned?.files, [`${mount}/deep/er/three`]);
      equal(owned?.complete, true);
      // Without reverse mappings xfs does not tell its own structures from files.
      const tells = name === "ext4" || make.includes("rmapbt=1" as never);
      equal(superblock?.has_metadata, tells, JSON.stringify(superblock));
      deepEqual(superblock?.files, []);
      const last = { at: 300 * MIB, length: CHUNK };
      const [free] = findOwners({
        mount,
        ranges: [last],
        within_ms: WITHIN_MS,
        clock: systemClock,
      });
      equal(free?.has_free, true, JSON.stringify(free));
      deepEqual(free?.files, []);
      const [late] = findOwners({ mount, ranges: [range], within_ms: 0, clock: systemClock });
      ok(late?.complete === false, "nothing can be known in no time");
    },
  });
}

/** @returns where a text stands in a file. */
function soonUnmounted(mount: string): Promise<void> {
  unmountFilesystem(mount);
  return Promise.resolve();
}
