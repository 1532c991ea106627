/** Unaligned operations beside aligned ones, on a disk whose operations land and end in any order. */
import assert from "node:assert/strict";
import { OPERATION, Operations } from "../../../src/backend/operations.ts";
import { type AlignedEngine, UnalignedOperations } from "../../../src/backend/unaligned.ts";
import { type Rng, seededRng } from "../../../src/core/mod.ts";
import { allocateMemory, copyMemory } from "../../../src/sys/mod.ts";

const DISK_BYTES = 64 * 1024, BLOCK_BYTES = 4096;
const BATCHES = 400, AT_A_TIME = 6;

interface Asked {
  readonly code: number;
  readonly at: number;
  readonly length: number;
  readonly fill: number;
  readonly memory: ReturnType<typeof allocateMemory>;
  errno: number | undefined;
}

/** Takes only aligned operations; each lands when it ends, which is when chance says so. */
class Disk implements AlignedEngine {
  readonly bytes = allocateMemory(DISK_BYTES);
  readonly operations = new Operations(64);
  readonly unaligned = new UnalignedOperations(this.operations, this, {
    memoryBytes: 512,
    offsetBytes: BLOCK_BYTES,
  });
  readonly #started: number[] = [];

  working(): number {
    return this.#started.length;
  }

  start(op: number): void {
    const { at, length, address, code } = this.operations;
    assert.equal((at[op] ?? 1) % BLOCK_BYTES, 0);
    assert.equal((length[op] ?? 1) % BLOCK_BYTES, 0);
    if ((code[op] ?? 0) <= OPERATION.write) assert.equal((address[op] ?? 1) % 512, 0);
    this.#started.push(op);
    const running = this.#started.filter((one) => this.unaligned.runs(one));
    if (running.length > 0) assert.equal(this.#started.length, 1, "an unaligned one is not alone");
  }

  submit(op: number): void {
    if (!this.unaligned.takes(op)) this.start(op);
  }

  /** Ends one of those that are at work. */
  endOne(rng: Rng, errno = 0): void {
    const [op = -1] = this.#started.splice(rng.below(this.#started.length), 1);
    if (errno === 0) this.#land(op);
    if (this.unaligned.runs(op)) this.unaligned.stepDone(op, errno);
    else this.finish(op, errno);
  }

  #land(op: number) {
    const { code, at, length, address } = this.operations;
    const from = at[op] ?? 0, bytes = length[op] ?? 0, memory = address[op] ?? 0;
    if (code[op] === OPERATION.read) copyMemory(memory, this.bytes.address + from, bytes);
    else if (code[op] === OPERATION.write) copyMemory(this.bytes.address + from, memory, bytes);
    else if (code[op] !== OPERATION.flush) this.bytes.bytes.fill(0, from, from + bytes);
  }

  finish(op: number, errno: number): void {
    this.operations.complete(op, errno);
    this.unaligned.resume();
  }
}

/** A batch of operations that overlap as chance wants it. */
function batchOf(rng: Rng): Asked[] {
  return Array.from({ length: 1 + rng.below(AT_A_TIME) }, () => {
    const grain = [1, 512, BLOCK_BYTES, BLOCK_BYTES][rng.below(4)] ?? 1;
    const length = Math.ceil((1 + rng.below(3 * BLOCK_BYTES)) / grain) * grain;
    const at = Math.floor(rng.below(4 * BLOCK_BYTES) / grain) * grain;
    const code = [
      OPERATION.read,
      OPERATION.write,
      OPERATION.write,
      OPERATION.trim,
      OPERATION.flush,
    ][rng.below(5)] ?? OPERATION.read;
    const fill = code === OPERATION.write ? 1 + rng.below(255) : 0;
    const memory = memories.pop() ?? allocateMemory(32 * 1024);
    memory.bytes.fill(fill);
    return { code, at, length, fill, memory, errno: undefined };
  });
}

const memories: ReturnType<typeof allocateMemory>[] = [];

Deno.test("UnalignedOperations leaves every byte as one of its writes made it", () => {
  const rng = seededRng(11), disk = new Disk();
  let batch: Asked[] = [];
  const owner = disk.operations.registerOwner((index, errno) => {
    (batch[index] as Asked).errno = errno;
  });
  for (let round = 0; round < BATCHES; round++) {
    const before = disk.bytes.bytes.slice();
    batch = batchOf(rng);
    batch.forEach(({ code, at, length, memory }, i) => {
      const skew = code <= OPERATION.write && rng.below(4) === 0 ? 8 : 0;
      const address = memory.address + skew;
      const none = code === OPERATION.flush;
      const place = [none ? 0 : at, none ? 0 : length] as const;
      disk.submit(disk.operations.take(owner, i, code, ...place, address, 0));
      while (rng.below(3) === 0 && disk.working() > 0) disk.endOne(rng);
    });
    while (disk.working() > 0) disk.endOne(rng);
    assert.ok(batch.every(({ errno }) => errno === 0), `round ${round}: something never ended`);
    const changes = batch.filter(({ code }) => code !== OPERATION.read && code !== OPERATION.flush);
    for (let at = 0; at < 8 * BLOCK_BYTES; at++) {
      const made = changes.filter((one) => one.at <= at && at < one.at + one.length);
      const found = disk.bytes.bytes[at];
      const right = made.length === 0
        ? found === before[at]
        : made.some(({ fill }) => fill === found);
      if (!right) throw new Error(`round ${round}: byte ${at} is ${found}, which nobody wrote`);
    }
    memories.push(...batch.map(({ memory }) => memory));
  }
  assert.equal(disk.operations.inUse, 0);
});

Deno.test("UnalignedOperations passes a step's failure on, and goes on with what waits", () => {
  const rng = seededRng(3), disk = new Disk(), errnos: number[] = [];
  const memory = allocateMemory(BLOCK_BYTES);
  const owner = disk.operations.registerOwner((index, errno) => void (errnos[index] = errno));
  const submit = (index: number, code: number, at: number, length: number) =>
    disk.submit(disk.operations.take(owner, index, code, at, length, memory.address, 0));
  submit(0, OPERATION.write, 100, 200);
  submit(1, OPERATION.write, 0, BLOCK_BYTES);
  submit(2, OPERATION.write, 300, 200);
  assert.equal(disk.unaligned.waiting, 2);
  disk.endOne(rng, 28);
  assert.deepEqual(errnos, [28]);
  while (disk.working() > 0) disk.endOne(rng);
  assert.deepEqual(errnos, [28, 0, 0]);
  assert.equal(disk.unaligned.waiting, 0);
});

Deno.test("an unaligned operation comes back to its owner as it was given", () => {
  const rng = seededRng(3), disk = new Disk(), memory = allocateMemory(BLOCK_BYTES);
  const recorded: unknown[] = [];
  const owner = disk.operations.registerOwner(() => {});
  const op = disk.operations.take(owner, 0, OPERATION.trim, 100, 10_000, memory.address, 1);
  disk.operations.begin(op, {
    record: (code, length, _micros, errno) => void recorded.push([code, length, errno]),
  });
  disk.submit(op);
  while (disk.working() > 0) disk.endOne(rng);
  assert.deepEqual(recorded, [[OPERATION.trim, 10_000, 0]]);
});
