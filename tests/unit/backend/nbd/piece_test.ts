import assert from "node:assert/strict";
import { type NbdOffer, NO_OFFER } from "../../../../src/backend/nbd/offer.ts";
import {
  isTooSlow,
  nextPiece,
  type Piece,
  STEP,
  stepAfterRefusedZero,
} from "../../../../src/backend/nbd/piece.ts";
import { OPERATION, OPERATION_FLAG, Operations } from "../../../../src/backend/mod.ts";
import { NBD_CMD, NBD_CMD_FLAG, NBD_FLAG } from "../../../../src/codec/mod.ts";

const MIB = 1 << 20, GIB = 2 ** 30;
const ZEROES = NBD_FLAG.hasFlags | NBD_FLAG.sendWriteZeroes;

const offer = (flags: number): NbdOffer => ({ ...NO_OFFER, flags, blockBytesMax: 32 * MIB });

/** An operation of so many bytes, with the pieces that it goes in when all succeed. */
class Bench {
  readonly operations = new Operations(1);
  readonly op: number;
  readonly piece: Piece = { type: 0, flags: 0, at: 0, length: 0, payload: 0 };

  constructor(code: number, length: number, flags = 0) {
    const owner = this.operations.registerOwner(() => {});
    this.op = this.operations.take(owner, 0, code, MIB, length, 4096, flags);
    this.operations.scratch[this.op] = STEP.itself;
  }

  next(flags: number): Piece {
    nextPiece(this.operations, this.op, offer(flags), this.piece);
    return { ...this.piece };
  }

  done(): void {
    const { progress } = this.operations;
    progress[this.op] = (progress[this.op] as number) + this.piece.length;
  }

  refused(flags: number): number | undefined {
    const step = stepAfterRefusedZero(this.operations, this.op, offer(flags));
    if (step !== undefined) this.operations.scratch[this.op] = step;
    return step;
  }
}

Deno.test("large zeroing asks for what is fast, and goes slowly in small pieces when it is not", () => {
  const flags = ZEROES | NBD_FLAG.sendFastZero;
  const bench = new Bench(OPERATION.trim, 3 * GIB);
  const first = bench.next(flags);
  assert.equal(first.type, NBD_CMD.writeZeroes);
  assert.deepEqual([first.at, first.length, first.flags], [MIB, GIB, NBD_CMD_FLAG.fastZero]);
  bench.done();
  assert.equal(bench.next(flags).flags, NBD_CMD_FLAG.fastZero);
  assert.equal(bench.refused(flags), STEP.zeroingSlowly);
  const slow = bench.next(flags);
  assert.deepEqual([slow.type, slow.at, slow.length, slow.flags], [
    NBD_CMD.writeZeroes,
    MIB + GIB,
    128 * MIB,
    0,
  ]);
  // Not even slowly: zeros are written.
  assert.equal(bench.refused(flags), STEP.writingZeros);
  const written = bench.next(flags);
  assert.deepEqual([written.type, written.length], [NBD_CMD.write, MIB]);
  assert.equal(bench.refused(flags), undefined);
});

Deno.test("zeroing is not said to be fast where it is small or the server could not say", () => {
  const small = new Bench(OPERATION.writeZeroes, MIB, OPERATION_FLAG.noHole);
  assert.equal(small.next(ZEROES | NBD_FLAG.sendFastZero).flags, NBD_CMD_FLAG.noHole);
  const large = new Bench(OPERATION.writeZeroes, GIB).next(ZEROES);
  assert.deepEqual([large.flags, large.length], [0, 128 * MIB]);
});

Deno.test("zeroing that must be fast is so or fails", () => {
  const bench = new Bench(OPERATION.writeZeroes, 4096, OPERATION_FLAG.fastZero);
  const flags = ZEROES | NBD_FLAG.sendFastZero;
  assert.equal(isTooSlow(bench.operations, bench.op, offer(flags)), false);
  assert.equal(bench.next(flags).flags, NBD_CMD_FLAG.fastZero);
  assert.equal(bench.refused(flags), undefined);
  assert.equal(isTooSlow(bench.operations, bench.op, offer(ZEROES)), true);
});
