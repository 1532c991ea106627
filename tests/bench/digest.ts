/**
 * Digest algorithms that could tell a torn or rotten extent, as the mirror would use them: one extent of 256 KiB
 * after the other, from memory that no cache holds, on one thread. The mirror's own is ours, the others are peers.
 */
import {
  createBLAKE3,
  createCRC32,
  createXXHash128,
  createXXHash3,
  createXXHash64,
  type IHasher,
} from "hash-wasm";
import { loadDigest } from "../../src/mirror/mod.ts";
import {
  type Bench,
  type BenchOptions,
  type BenchResult,
  type Contestant,
  measureTurns,
} from "./pairs.ts";

const MIB = 2 ** 20;
const EXTENT_BYTES = 256 * 1024, MEMORY_BYTES = 128 * MIB, RANDOM_BYTES_MAX = 65_536;
const CASTAGNOLI = 0x82f63b78;

type Digest = (bytes: Uint8Array) => unknown;

function contestant(
  name: string,
  digest: Digest,
  memory: Uint8Array,
  seconds: number,
): Contestant<number> {
  return {
    name,
    run() {
      const began_ms = performance.now();
      let bytes = 0, elapsed_ms = 0;
      do {
        const at = bytes % MEMORY_BYTES;
        digest(memory.subarray(at, at + EXTENT_BYTES));
        bytes += EXTENT_BYTES;
        elapsed_ms = performance.now() - began_ms;
      } while (elapsed_ms < seconds * 1000);
      return Promise.resolve(bytes / elapsed_ms * 1000);
    },
  };
}

async function* measure(
  { rounds, seconds, peers, signal }: BenchOptions,
): AsyncIterable<BenchResult> {
  const memory = new Uint8Array(MEMORY_BYTES);
  for (let at = 0; at < MEMORY_BYTES; at += RANDOM_BYTES_MAX) {
    crypto.getRandomValues(memory.subarray(at, at + RANDOM_BYTES_MAX));
  }
  const all: Contestant<number>[] = [];
  for (const [name, create] of Object.entries(PEERS)) {
    if (!(peers?.includes(name) ?? true)) continue;
    const hasher = await create();
    const digest = (bytes: Uint8Array) => hasher.init().update(bytes).digest("hex");
    all.push(contestant(name, digest, memory, seconds));
  }
  const figure = {
    work: "digests of 256 KiB",
    unit: "MiB/s",
    better: "higher" as const,
    of: (bytes_per_s: number) => bytes_per_s / MIB,
  };
  const ours = contestant("the mirror's", await loadDigest(), memory, seconds);
  yield* await measureTurns({ figures: [figure], rounds, ours, peers: all, signal });
}

const PEERS: Readonly<Record<string, () => Promise<IHasher>>> = {
  xxh64: createXXHash64,
  xxh3: createXXHash3,
  xxh128: createXXHash128,
  crc32c: () => createCRC32(CASTAGNOLI),
  blake3: createBLAKE3,
};

export const bench: Bench = {
  about: "the mirror's digest algorithm against others of the same library",
  needs: {},
  peers: Object.keys(PEERS),
  run: measure,
};
