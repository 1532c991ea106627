import assert from "node:assert/strict";
import { GatherSender, type Ring } from "../../../src/sys/mod.ts";

/** Stands where the kernel stands: remembers what one SENDMSG was to send. */
class Wire {
  readonly sends: { address: number; length: number }[][] = [];
  readonly sent: number[] = [];
  broken: number | undefined;

  readonly ring = {
    sendmsg: (_fd: number, msghdr: number) => this.sends.push(readIovecs(msghdr)),
  } as unknown as Ring;
  readonly sender = new GatherSender(this.ring, 0, 0, 300, {
    onSent: (tag) => this.sent.push(tag),
    onBroken: (errno) => this.broken = errno,
  });
}

function readIovecs(msghdr: number): { address: number; length: number }[] {
  const pointer = Deno.UnsafePointer.create(BigInt(msghdr));
  assert.ok(pointer);
  const view = new Deno.UnsafePointerView(pointer);
  const iov = Number(view.getBigUint64(16)), count = Number(view.getBigUint64(24));
  return Array.from({ length: count }, (_, i) => ({
    address: Number(view.getBigUint64(iov - msghdr + i * 16)),
    length: Number(view.getBigUint64(iov - msghdr + i * 16 + 8)),
  }));
}

Deno.test("flush() sends what waits in one message, and nothing while one is under way", () => {
  const { sender, sends, sent } = new Wire();
  sender.flush();
  sender.queue(0x7f12_3456_7000, 16, 1);
  sender.queue(0x2000, 4112, 2);
  sender.flush();
  sender.queue(0x3000, 5, 3);
  sender.flush();
  assert.deepEqual(sends, [[
    { address: 0x7f12_3456_7000, length: 16 },
    { address: 0x2000, length: 4112 },
  ]]);
  assert.equal(sender.idle, false);
  sender.onCompletion(4128);
  assert.deepEqual(sent, [1, 2]);
  sender.flush();
  assert.deepEqual(sends[1], [{ address: 0x3000, length: 5 }]);
});

Deno.test("a short send goes on in the middle of a piece", () => {
  const { sender, sends, sent } = new Wire();
  for (const [address, tag] of [[0x1000, 1], [0x2000, 2], [0x3000, 3]] as const) {
    sender.queue(address, 100, tag);
  }
  sender.flush();
  sender.onCompletion(150);
  assert.deepEqual(sent, [1]);
  sender.flush();
  assert.deepEqual(sends[1], [
    { address: 0x2000 + 50, length: 50 },
    { address: 0x3000, length: 100 },
  ]);
  sender.onCompletion(150);
  assert.deepEqual(sent, [1, 2, 3]);
  assert.deepEqual([sender.waiting, sender.idle], [0, true]);
});

Deno.test("interrupted sends are tried again, failed ones end the stream", () => {
  for (const code of [-4, -11]) {
    const wire = new Wire();
    wire.sender.queue(0x1000, 10, 1);
    wire.sender.flush();
    wire.sender.onCompletion(code);
    wire.sender.flush();
    assert.deepEqual([wire.sends.length, wire.sent, wire.broken], [2, [], undefined]);
  }
  for (const [code, errno] of [[-32, 32], [-104, 104], [0, 32]] as const) {
    const wire = new Wire();
    wire.sender.queue(0x1000, 10, 7);
    wire.sender.flush();
    wire.sender.onCompletion(code);
    assert.deepEqual([wire.broken, wire.sent], [errno, []]);
    const dropped: number[] = [];
    wire.sender.drop((tag) => dropped.push(tag));
    assert.deepEqual([dropped, wire.sender.waiting], [[7], 0]);
  }
});

Deno.test("a message is bounded in pieces and in bytes, the queue in pieces", () => {
  const { sender, sends } = new Wire();
  for (let i = 0; i < 300; i++) sender.queue(0x1000, 16, i);
  assert.throws(() => sender.queue(0x1000, 16, 300), /too many pieces/);
  sender.flush();
  assert.equal(sends[0]?.length, 252);
  sender.onCompletion(252 * 16);
  sender.flush();
  assert.equal(sends[1]?.length, 48);
  const large = new Wire();
  for (let i = 0; i < 5; i++) large.sender.queue(0x1000, 1 << 20, i);
  large.sender.flush();
  assert.equal(large.sends[0]?.length, 2);
  assert.throws(() => large.sender.drop(() => {}), /kernel uses/);
});
