/**
 * What every backend promises, as one suite: each joins with a name, what it needs, and how to make a place
 * of SIZE_BYTES zeros and open it. A place outlives the ring that the backend is opened in.
 */
import assert from "node:assert/strict";
import { type Backend, OPERATION_FLAG } from "../../src/backend/mod.ts";
import { type Rng, seededRng } from "../../src/core/mod.ts";
import { BackendIo } from "./backend_io.ts";
import { type InThread, inThread } from "./in_thread.ts";
import { type Requirements, requires } from "./requires.ts";
import { tempDir } from "./temp.ts";

const MIB = 1 << 20;
const SIZE_BYTES = 16 * MIB;
const ROUNDS = 40;
const PAGE_BYTES = 4096, EOPNOTSUPP = 95;

/** Somewhere that holds bytes: a file, a device, a server. */
export interface Place extends AsyncDisposable {
  /** Called in the ring's own time: it may await only what the ring completes. */
  open(thread: InThread): Promise<Backend>;
  /** Makes the place larger from outside, at once; for backends that cannot do so by themselves. */
  enlarge?(sizeBytes: number): void;
}

export interface Subject {
  readonly name: string;
  readonly needs: Requirements;
  /** @param dir an empty folder. @param sizeBytes of zeros to begin with. */
  prepare(dir: string, sizeBytes: number): Promise<Place>;
  /** `itself`: by `grow` alone; `outside`: it picks up what `enlarge` did; `not`: it refuses. */
  readonly grows: "itself" | "outside" | "not";
  /** Knows its holes. */
  readonly tellsHoles: boolean;
  /** Has a transport that can be lost. */
  readonly transport: boolean;
}

/** Something whose promise is checked: the open backend, by promises, and what its place can do. */
interface Case {
  readonly io: BackendIo;
  readonly backend: Backend;
  readonly thread: InThread;
  readonly place: Place;
  readonly rng: Rng;
}

/** Registers the suite for one backend. */
export function backendConformance(subject: Subject): void {
  const test = (name: string, fn: (one: Case) => Promise<void>) =>
    Deno.test({
      name: `${subject.name}: ${name}`,
      ...requires({ io_uring: true, ...subject.needs }),
      async fn() {
        using temp = tempDir();
        await using place = await subject.prepare(temp.path, SIZE_BYTES);
        await inThread(async (thread) => {
          const backend = await place.open(thread);
          try {
            const io = new BackendIo(thread, backend);
            await fn({ io, backend, thread, place, rng: seededRng(7) });
          } finally {
            await backend.close();
          }
          assert.equal(thread.operations.inUse, 0, "operations left");
        });
      },
    });

  test("has its size and reads as zeros at first", async ({ io, backend }) => {
    assert.equal(backend.sizeBytes, SIZE_BYTES);
    assert.ok(isZero(await io.read({ at: 0 }, MIB)));
    assert.ok(isZero(await io.read({ at: SIZE_BYTES - PAGE_BYTES }, PAGE_BYTES)));
    assert.equal(backend.connected, true);
  });

  test("holds what was written, trimmed and zeroed, at every alignment", async ({ io, rng }) => {
    const model = new Uint8Array(2 * MIB);
    for (let round = 0; round < ROUNDS; round++) {
      await change(io, model, rng);
      if (round % 10 === 9) assertSame(await io.read({ at: 0 }, model.length), model, round);
    }
    for (let i = 0; i < ROUNDS; i++) {
      const { at, length } = place(rng, model.length);
      const read = await io.read({ at, skew: rng.below(3) * 8 }, length);
      assertSame(read, model.subarray(at, at + length), i);
    }
    await io.flush();
  });

  test("loses nothing of neighbours that are written side by side", async ({ io, rng }) => {
    const model = new Uint8Array(256 * 1024), pending: Promise<void>[] = [];
    for (let at = 0; at < model.length;) {
      const length = Math.min(1 + rng.below(at % 3 === 0 ? 700 : 9000), model.length - at);
      const bytes = model.subarray(at, at + length).fill(1 + rng.below(255));
      pending.push(io.write({ at, fua: rng.below(16) === 0 }, bytes));
      at += length;
    }
    await Promise.all(pending);
    assertSame(await io.read({ at: 0 }, model.length), model, "neighbours");
  });

  test("has hundreds of operations in flight", async ({ io, rng }) => {
    const blocks = 300;
    const fills = Array.from({ length: blocks }, () => 1 + rng.below(255));
    const bytes = (i: number) => new Uint8Array(PAGE_BYTES).fill(fills[i] ?? 0);
    await Promise.all(fills.map((_, i) => io.write({ at: i * PAGE_BYTES }, bytes(i))));
    const flushed = io.flush();
    const read = await Promise.all(
      fills.map((_, i) => io.read({ at: i * PAGE_BYTES }, PAGE_BYTES)),
    );
    read.forEach((found, i) => assertSame(found, bytes(i), i));
    await flushed;
  });

  test("shows a completed write to whoever comes later, and the last one stands", async (one) => {
    const { io } = one;
    for (let version = 1; version <= ROUNDS; version++) {
      const bytes = new Uint8Array(3 * PAGE_BYTES).fill(version);
      await io.write({ at: 512 * (version % 4) + PAGE_BYTES, fua: version % 2 === 0 }, bytes);
      assert.equal((await io.read({ at: 2 * PAGE_BYTES }, PAGE_BYTES))[0], version);
    }
  });

  test("zeroes large ranges and nothing beside them", async ({ io }) => {
    for (const kind of ["trim", "writeZeroes"] as const) {
      for (const flags of [0, OPERATION_FLAG.fua, OPERATION_FLAG.noHole]) {
        await io.write({ at: 0 }, new Uint8Array(5 * MIB).fill(9));
        await io.zero(kind, { at: 700, length: 4 * MIB + 1000, flags });
        const found = await io.read({ at: 0 }, 5 * MIB);
        const end = 700 + 4 * MIB + 1000;
        assert.ok(isFull(found.subarray(0, 700), 9), `${kind}: before`);
        assert.ok(isZero(found.subarray(700, end)), `${kind}: within`);
        assert.ok(isFull(found.subarray(end), 9), `${kind}: after`);
      }
    }
  });

  test("makes fast zeros, or none at all", async ({ io }) => {
    const bytes = new Uint8Array(4 * PAGE_BYTES).fill(9), { fastZero, noHole } = OPERATION_FLAG;
    for (const [at, length] of [[0, 2 * PAGE_BYTES], [700, PAGE_BYTES + 1]] as const) {
      for (const flags of [fastZero, fastZero | noHole]) {
        await io.write({ at: 0 }, bytes);
        const errno = await io.tryZero("writeZeroes", { at, length, flags });
        assert.ok(errno === 0 || errno === EOPNOTSUPP, `errno ${errno}`);
        const found = await io.read({ at: 0 }, bytes.length);
        assert.ok(isFull(found.subarray(at, at + length), errno === 0 ? 0 : 9), `at ${at}`);
        assert.ok(isFull(found.subarray(at + length), 9), "after");
      }
    }
  });

  test("works off unaligned operations behind aligned ones", async ({ io, rng }) => {
    const bytes = new Uint8Array(64 * 1024).fill(1 + rng.below(255));
    const writes = Array.from({ length: 30 }, (_, i) => io.write({ at: i * bytes.length }, bytes));
    const read = io.read({ at: 1, skew: 8 }, 10);
    const extents = io.backend.dataExtents(0, SIZE_BYTES);
    await Promise.all([...writes, io.write({ at: 15 * MIB + 1 }, bytes.subarray(0, 1)), extents]);
    assert.equal((await read).length, 10);
  });

  test("fails what reaches beyond its end, and goes on", async ({ io, backend }) => {
    await io.write({ at: backend.sizeBytes - 512 }, new Uint8Array(512).fill(4));
    const beyond = await io.tryRead({ at: backend.sizeBytes }, PAGE_BYTES);
    assert.ok(typeof beyond === "number" && beyond > 0, "a read beyond the end succeeded");
    const across = await io.tryRead({ at: backend.sizeBytes - 512 }, PAGE_BYTES);
    assert.ok(typeof across === "number" && across > 0, "a read across the end succeeded");
    assert.equal((await io.read({ at: backend.sizeBytes - 512 }, 512))[0], 4);
  });

  test("lists extents that cover its data, in order", async ({ io, backend }) => {
    const written = [0, 3 * MIB + 512, 9 * MIB, SIZE_BYTES - PAGE_BYTES];
    for (const at of written) await io.write({ at }, new Uint8Array(PAGE_BYTES).fill(1));
    await io.flush();
    const extents = await backend.dataExtents(0, SIZE_BYTES);
    for (let i = 1, end = 0; i < extents.length; i++) {
      const before = extents[i - 1], now = extents[i];
      end = (before?.at ?? 0) + (before?.length ?? 0);
      assert.ok((now?.at ?? 0) >= end, "extents overlap or are out of order");
    }
    const covers = (at: number) =>
      extents.some((one) => one.at <= at && at + PAGE_BYTES <= one.at + one.length);
    assert.deepEqual(written.filter((at) => !covers(at)), []);
    const last = extents.at(-1);
    assert.ok((last?.at ?? 0) + (last?.length ?? 0) <= SIZE_BYTES);
    if (subject.tellsHoles) assert.ok(!covers(6 * MIB), "a hole is listed as data");
    const part = await backend.dataExtents(MIB, 2 * MIB);
    assert.ok(part.every((one) => one.at >= MIB && one.at + one.length <= 3 * MIB));
    assert.deepEqual(await backend.dataExtents(MIB, 0), []);
  });

  test(`grows: ${subject.grows}`, async ({ io, backend, place }) => {
    await io.write({ at: SIZE_BYTES - PAGE_BYTES }, new Uint8Array(PAGE_BYTES).fill(8));
    await backend.grow(SIZE_BYTES - MIB);
    assert.equal(backend.sizeBytes, SIZE_BYTES, "it never shrinks");
    const larger = SIZE_BYTES + 4 * MIB;
    if (subject.grows !== "itself") {
      await assert.rejects(backend.grow(larger), { code: "state/cannot-grow" });
      assert.equal(backend.sizeBytes, SIZE_BYTES);
    }
    if (subject.grows === "not") return;
    place.enlarge?.(larger);
    await backend.grow(larger);
    assert.equal(backend.sizeBytes, larger);
    await io.write({ at: larger - 512 }, new Uint8Array(512).fill(3));
    const across = await io.read({ at: SIZE_BYTES - PAGE_BYTES }, 2 * PAGE_BYTES);
    assert.ok(isFull(across.subarray(0, PAGE_BYTES), 8) && isZero(across.subarray(PAGE_BYTES)));
    assert.equal((await io.read({ at: larger - 512 }, 512))[511], 3);
  });

  test("closes when all is done, and what was written is there afterwards", async (one) => {
    const { io, backend, thread, place } = one;
    let done = 0;
    const bytes = new Uint8Array(PAGE_BYTES + 1).fill(6);
    const writes = Array.from(
      { length: 50 },
      (_, i) => io.write({ at: i * 3 * PAGE_BYTES + i }, bytes).then(() => done++),
    );
    await backend.close();
    await Promise.all(writes);
    assert.equal(done, 50);
    await backend.close();
    const again = await place.open(thread);
    const read = await new BackendIo(thread, again).read({ at: 49 * 3 * PAGE_BYTES + 49 }, 4097);
    await again.close();
    assert.ok(isFull(read, 6));
  });

  test("answers everything when its transport is given up, and works again", async (one) => {
    const { io, backend, thread } = one;
    for (const policy of ["hold", "fail"] as const) {
      backend.setLossPolicy(policy);
      const bytes = new Uint8Array(PAGE_BYTES).fill(2);
      const answers = Promise.all(
        Array.from({ length: 40 }, (_, i) => io.tryWrite({ at: i * PAGE_BYTES }, bytes)),
      );
      backend.abort();
      const errnos = await answers;
      const failed = errnos.filter((errno) => errno !== 0).length;
      if (!subject.transport || policy === "hold") assert.equal(failed, 0, `${policy}: failed`);
      else assert.ok(failed > 0, "nothing failed");
      while (!backend.connected) await thread.turns.sleep(1);
    }
    await io.write({ at: 0 }, new Uint8Array(1).fill(5));
    assert.equal((await io.read({ at: 0 }, 1))[0], 5);
  });

  test("counts what it did", async ({ io, backend }) => {
    await io.write({ at: 0 }, new Uint8Array(PAGE_BYTES));
    await io.write({ at: 100 }, new Uint8Array(1000));
    await io.flush();
    await io.zero("trim", { at: 0, length: MIB });
    await io.tryRead({ at: backend.sizeBytes }, 512);
    const report = new Map(backend.meter.report().map((kind) => [kind.operation, kind]));
    const counts = [...report.values()].map(({ operation, count, errors, bytes }) =>
      [operation, count, errors, bytes] as const
    );
    assert.deepEqual(counts, [
      ["read", 1, 1, 0],
      ["write", 2, 0, PAGE_BYTES + 1000],
      ["flush", 1, 0, 0],
      ["trim", 1, 0, MIB],
    ]);
    const { p50 = -1, p99 = -1, max = -1, mean = -1 } = report.get("write")?.latency_us ?? {};
    assert.ok(0 < mean && mean <= max && p50 <= p99 && p99 <= max, "latencies are out of order");
  });
}

/** One change at a random place, in the backend and in the model. */
async function change(io: BackendIo, model: Uint8Array, rng: Rng): Promise<void> {
  const { at, length } = place(rng, model.length);
  const what = rng.below(6);
  if (what >= 2) {
    const bytes = model.subarray(at, at + length).fill(1 + rng.below(255));
    return await io.write({ at, fua: what === 2, skew: rng.below(3) * 8 }, bytes);
  }
  const kind = what === 0 ? "trim" : "writeZeroes";
  const flags = [0, OPERATION_FLAG.fua, OPERATION_FLAG.noHole][rng.below(3)] ?? 0;
  await io.zero(kind, { at, length, flags });
  model.fill(0, at, at + length);
}

/** Somewhere in the first bytes: small and large, aligned to a page, a sector or nothing. */
function place(rng: Rng, within: number): { at: number; length: number } {
  const grain = [1, 512, PAGE_BYTES][rng.below(3)] ?? 1;
  const longest = [2000, 20_000, 200_000][rng.below(3)] ?? 2000;
  const length = Math.ceil((1 + rng.below(longest)) / grain) * grain;
  const at = Math.floor(rng.below(within - length) / grain) * grain;
  return { at, length };
}

function isFull(bytes: Uint8Array, fill: number): boolean {
  return bytes.every((byte) => byte === fill);
}

function isZero(bytes: Uint8Array): boolean {
  return isFull(bytes, 0);
}

/** Says where two byte runs differ; printing them would help nobody. */
function assertSame(found: Uint8Array, expected: Uint8Array, what: number | string): void {
  assert.equal(found.length, expected.length);
  const at = found.findIndex((byte, i) => byte !== expected[i]);
  if (at < 0) return;
  throw new Error(`${what}: byte ${at} is ${found[at]}, expected ${expected[at]}`);
}
