/** A volume with a mirror whose source and target can be held back, and single blocks of I/O on it. */
import assert from "node:assert/strict";
import { DelayBackend, ErrorBackend, FileBackend, OPERATION } from "../../src/backend/mod.ts";
import { digestExtents } from "../../src/dataplane/digests.ts";
import {
  cutOver,
  CutoverWindow,
  DIGEST_ALGORITHM,
  loadDigest,
  Mirror,
} from "../../src/mirror/mod.ts";
import {
  ChangeMap,
  ManifestFile,
  MirrorLink,
  newManifest,
  type Placement,
  Volume,
} from "../../src/volume/mod.ts";
import { type InThread, inThread } from "./in_thread.ts";
import { type TempDir, tempDir } from "./temp.ts";
import { mirrorTerms } from "./mirror_terms.ts";

const MIB = 2 ** 20;
const BLOCK_BYTES = 4096;
const digest = await loadDigest();

export interface MirrorRigOptions {
  readonly role?: "scale" | "backup";
  readonly sizeBytes?: number;
  /** It is to be in lock-step, unasked. */
  readonly keepsReady?: boolean;
}

/** A rig on a thread of its own ring, for as long as the body takes. */
export async function withMirrorRig(
  options: MirrorRigOptions,
  body: (rig: MirrorRig) => Promise<void>,
): Promise<void> {
  using temp = tempDir();
  await inThread(async (thread) => {
    const rig = await MirrorRig.start(thread, temp, options);
    await body(rig);
    await rig.end();
  });
}

export class MirrorRig {
  readonly #waiting = new Map<number, (errno: number) => void>();
  readonly #owner: number;

  private constructor(
    readonly thread: InThread,
    readonly volume: Volume,
    readonly target: DelayBackend,
    /** Fails what it is told to, at the target. */
    readonly targetFaults: ErrorBackend,
    readonly link: MirrorLink,
    readonly mirror: Mirror,
    readonly manifest: ManifestFile,
  ) {
    this.#owner = thread.requests.registerOwner((slot) => {
      thread.reactor.wake();
      this.#waiting.get(slot)?.(thread.requests.errno[slot] as number);
    });
  }

  /** A volume of zeros, its mirror started with a target that is 1 MiB larger. */
  static async start(
    thread: InThread,
    temp: TempDir,
    { role = "scale", sizeBytes = 4 * MIB, keepsReady = false }: MirrorRigOptions = {},
  ): Promise<MirrorRig> {
    const { reactor, operations, calls, turns, memory, clock, files } = thread;
    const place = (name: string, size_bytes: number): Placement => {
      const path = temp.file(name);
      Deno.writeFileSync(path, new Uint8Array(0));
      Deno.truncateSync(path, size_bytes);
      return { store: "local", store_volume: name, size_bytes, backend: { type: "file", path } };
    };
    const active = place("source", sizeBytes), record_target = place("target", sizeBytes + MIB);
    const backend = (name: string) =>
      new FileBackend({ path: temp.file(name), reactor, operations });
    const target = new DelayBackend(backend("target"), thread);
    const volume = new Volume({
      name: "data",
      sizeBytes,
      active: backend("source"),
      ...thread,
    });
    const manifest = await ManifestFile.create(
      files,
      temp.file("manifest"),
      newManifest("data", active),
    );
    const map = await ChangeMap.create(files, temp.file("map"), sizeBytes);
    const targetFaults = new ErrorBackend(target, operations);
    const link = new MirrorLink(targetFaults, map);
    volume.attachLink(link);
    const mirror = new Mirror({
      record: {
        id: "m1",
        target: record_target,
        terms: mirrorTerms({ resync_interval_ms: 50 }),
        compare: false,
        role,
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
        digests: async (ranges) => (await digestExtents(target, ranges, calls, digest)).digests,
        promote: () => Promise.resolve(),
      },
      digest,
      emit: () => {},
      keepsReady,
    });
    mirror.start();
    return new MirrorRig(thread, volume, target, targetFaults, link, mirror, manifest);
  }

  /** Fills a block, the first one unless told. */
  write(fill: number, at = 0): Promise<void> {
    return this.#run(OPERATION.write, (bytes) => void bytes.fill(fill), () => {}, at);
  }

  /** @returns the first byte. */
  async read(): Promise<number> {
    let found = -1;
    await this.#run(OPERATION.read, () => {}, (bytes) => found = bytes[0] as number);
    return found;
  }

  /** @param promote what the store does when it is asked to fence. */
  async switchOver(promote: () => Promise<void> = () => Promise.resolve()): Promise<void> {
    const { thread: { turns, clock }, volume, mirror, manifest } = this;
    await cutOver({
      volume,
      mirror,
      manifest,
      control: { digests: () => Promise.reject(), promote },
      turns,
      clock,
      claimant: "rig",
      window: new CutoverWindow(volume.counters, 0),
      onRetry: assert.fail,
      aftermath: { mode: "frozen", mirror: null, rest: null },
      onCommitted: () => {},
      isClosing: () => false,
    });
  }

  async end(): Promise<void> {
    await this.mirror.end();
    await this.volume.detachLink();
  }

  async #run(
    code: number,
    before: (bytes: Uint8Array) => void,
    after: (bytes: Uint8Array) => void,
    offset = 0,
  ): Promise<void> {
    const { requests, reactor } = this.thread;
    const slot = requests.take(this.#owner);
    requests.code[slot] = code;
    requests.flags[slot] = 0;
    requests.at[slot] = offset;
    requests.length[slot] = BLOCK_BYTES;
    const at = requests.dataOffset(slot);
    const bytes = requests.arena.bytes.subarray(at, at + BLOCK_BYTES);
    before(bytes);
    const { promise, resolve } = reactor.deferred<number>();
    this.#waiting.set(slot, resolve);
    this.volume.submit(slot);
    assert.equal(await promise, 0);
    after(bytes);
    requests.release(slot);
  }
}
