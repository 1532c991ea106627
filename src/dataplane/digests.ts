/** Digests of what a backend holds: read back through it and hashed, a few extents at a time. */
import { errnoText, PsmaError } from "../core/mod.ts";
import { type Backend, type BackendCalls, OPERATION } from "../backend/mod.ts";
import { type Digest, DIGEST_ALGORITHM } from "../mirror/mod.ts";
import { allocateMemory, type Memory, unmapMemory } from "../sys/mod.ts";

const LANES = 2;
/** Then the thread looks at the requests of applications, which wait meanwhile. */
const BYTES_PER_TURN = 128 * 1024;
export const MAX_DIGEST_EXTENT_BYTES = 1 << 20;
/** Kept per thread, because the kernel would have to find and clear every page again for the next question. */
const spares = new WeakMap<BackendCalls, Memory[]>();

/** @returns one digest per extent, in order. @throws {PsmaError} usage/extent out of bounds, io/read */
export async function digestExtents(
  backend: Backend,
  extents: readonly { at: number; length: number }[],
  calls: BackendCalls,
  digest: Digest,
): Promise<{ algorithm: typeof DIGEST_ALGORITHM; digests: string[] }> {
  for (const { at, length } of extents) {
    const inside = Number.isSafeInteger(at) && at >= 0 && Number.isSafeInteger(length) &&
      length > 0 && length <= MAX_DIGEST_EXTENT_BYTES && at + length <= backend.sizeBytes;
    if (!inside) {
      throw new PsmaError(
        "usage/extent",
        `Cannot digest ${length} bytes at ${at}: the extent is empty, too long or outside`,
      );
    }
  }
  const digests: string[] = new Array(extents.length);
  const longest = extents.reduce((most, extent) => Math.max(most, extent.length), 1);
  let nextIndex = 0, sinceTurn = 0;
  const lane = async (buffer: Memory) => {
    while (nextIndex < extents.length) {
      const index = nextIndex++;
      const { at, length } = extents[index] as { at: number; length: number };
      const errno = await calls.run(backend, OPERATION.read, {
        at,
        length,
        address: buffer.address,
      });
      if (errno !== 0) {
        throw new PsmaError("io/read", `Cannot read ${backend.description}: ${errnoText(errno)}`);
      }
      digests[index] = digest(buffer.bytes.subarray(0, length));
      sinceTurn += length;
      if (sinceTurn < BYTES_PER_TURN) continue;
      sinceTurn = 0;
      await calls.turns.sleep(0);
    }
  };
  const buffers = Array.from(
    { length: Math.min(LANES, extents.length) },
    () => takeBuffer(calls, longest),
  );
  const outcomes = await Promise.allSettled(buffers.map(lane));
  for (const buffer of buffers) giveBack(calls, buffer);
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  return { algorithm: DIGEST_ALGORITHM, digests };
}

function takeBuffer(calls: BackendCalls, length: number): Memory {
  const buffer = spares.get(calls)?.pop();
  if (buffer !== undefined && buffer.bytes.length >= length) return buffer;
  if (buffer !== undefined) unmapMemory(buffer);
  return allocateMemory(length);
}

function giveBack(calls: BackendCalls, buffer: Memory) {
  const spare = spares.get(calls) ?? [];
  spares.set(calls, spare);
  if (spare.length < LANES) spare.push(buffer);
  else unmapMemory(buffer);
}
