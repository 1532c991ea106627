/** A volume of a real file with a mirror to another one, in the test's own thread. */
import { FileBackend } from "../../src/backend/mod.ts";
import { digestExtents } from "../../src/dataplane/digests.ts";
import { DIGEST_ALGORITHM, loadDigest, Mirror } from "../../src/mirror/mod.ts";
import {
  ChangeMap,
  MirrorLink,
  type Placement,
  type VerifyRecord,
  Volume,
} from "../../src/volume/mod.ts";
import { type InThread, until } from "./in_thread.ts";
import { sparseFile } from "./attached_loop.ts";
import { mirrorTerms } from "./mirror_terms.ts";
import type { TempDir } from "./temp.ts";

const digest = await loadDigest();

export interface MirroredVolume {
  readonly volume: Volume;
  readonly link: MirrorLink;
  readonly mirror: Mirror;
  /** Types of what was told. */
  readonly events: string[];
  readonly sourcePath: string;
  readonly targetPath: string;
}

/** Makes the volume; nothing is mirrored yet. */
export function fileVolume(thread: InThread, temp: TempDir, sizeBytes: number): Volume {
  const { reactor, operations } = thread;
  const path = sparseFile(temp.file("source"), sizeBytes);
  const active = new FileBackend({ path, reactor, operations });
  return new Volume({ name: "data", sizeBytes, active, ...thread });
}

/** Starts its mirror, and waits until the first round has ended. */
export async function mirrorVolume(
  thread: InThread,
  temp: TempDir,
  volume: Volume,
  { beforeDigests = () => Promise.resolve() }: { beforeDigests?: () => Promise<void> } = {},
): Promise<MirroredVolume> {
  const { reactor, operations, calls, turns, memory, clock, files } = thread;
  const targetPath = sparseFile(temp.file("target"), volume.sizeBytes);
  const target = new FileBackend({ path: targetPath, reactor, operations });
  const placement: Placement = {
    store: "local",
    store_volume: "target",
    size_bytes: volume.sizeBytes,
    backend: { type: "file", path: targetPath },
  };
  const map = await ChangeMap.create(files, temp.file("map"), volume.sizeBytes);
  const link = new MirrorLink(target, map);
  volume.attachLink(link);
  for (const { at, length } of await volume.active.dataExtents(0, volume.sizeBytes)) {
    map.markDirty(at, length);
  }
  const events: string[] = [];
  const mirror = new Mirror({
    record: {
      id: "m1",
      target: placement,
      role: "scale",
      terms: mirrorTerms({ resync_interval_ms: 5 }),
      compare: false,
      digest_algorithm: DIGEST_ALGORITHM,
      paused: false,
    },
    volume,
    link,
    calls,
    turns,
    memory,
    clock,
    control: {
      digests: async (ranges) => {
        await beforeDigests();
        return (await digestExtents(target, ranges, calls, digest)).digests;
      },
      promote: () => Promise.resolve(),
    },
    digest,
    emit: (type) => void events.push(type),
  });
  mirror.start();
  await until(thread, () => mirror.progress().rounds > 0, "the first round");
  return { volume, link, mirror, events, sourcePath: temp.file("source"), targetPath };
}

/** Ends the mirror and closes both sides. */
export async function endMirror({ volume, link, mirror }: MirroredVolume): Promise<void> {
  await mirror.end();
  await volume.detachLink();
  await link.close();
  await link.target.close();
  await volume.active.close();
}

/** A verify that has not begun. */
export function freshVerify(sizeBytes: number): VerifyRecord {
  return {
    id: "op-1",
    side: "mirror",
    of: "m1",
    state: "running",
    max_rate_bytes_per_s: null,
    started_at: "2030-01-01T00:00:00.000Z",
    ended_at: null,
    total_bytes: sizeBytes,
    done_bytes: 0,
    later: [],
    equal_bytes: 0,
    behind_bytes: 0,
    busy_bytes: 0,
    recorded_bytes: 0,
    mismatched_bytes: 0,
    mismatches: [],
  };
}

/** Flips one bit in a file, behind everybody's back. */
export function flipBit(path: string, at: number): void {
  using file = Deno.openSync(path, { read: true, write: true });
  const byte = new Uint8Array(1);
  file.seekSync(at, Deno.SeekMode.Start);
  file.readSync(byte);
  byte[0] = (byte[0] as number) ^ 1;
  file.seekSync(at, Deno.SeekMode.Start);
  file.writeSync(byte);
}
