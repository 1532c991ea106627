/** What each wrapper does to operations when it is not neutral. */
import assert from "node:assert/strict";
import {
  DelayBackend,
  ErrorBackend,
  failNth,
  FileBackend,
  LimitBackend,
  noFault,
  OPERATION,
  TornBackend,
} from "../../../src/backend/mod.ts";
import { sparseFile } from "../../support/attached_loop.ts";
import { BackendIo } from "../../support/backend_io.ts";
import { type InThread, inThread } from "../../support/in_thread.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const MIB = 1 << 20, EIO = 5, ENOSPC = 28;

const test = (name: string, fn: (inner: FileBackend, thread: InThread) => Promise<void>) =>
  Deno.test({
    name,
    ...requires({ io_uring: true }),
    async fn() {
      using temp = tempDir();
      const path = sparseFile(temp.file("data"), 4 * MIB);
      await inThread(async (thread) => {
        const inner = new FileBackend({ path, ...thread });
        await fn(inner, thread);
        assert.equal(thread.operations.inUse, 0);
      });
    },
  });

const filled = (fill: number, length = 4096) => new Uint8Array(length).fill(fill);

test("delay: an operation is submitted as much later, in order", async (inner, thread) => {
  const delayed = new DelayBackend(inner, thread), io = new BackendIo(thread, delayed);
  delayed.delayMs = 30;
  const began = thread.clock.monotonicMs(), ends: number[] = [];
  await Promise.all([1, 2, 3].map(async (version) => {
    await io.write({ at: 0 }, filled(version));
    ends.push(version);
  }));
  assert.ok(thread.clock.monotonicMs() - began >= 30);
  assert.equal(ends.length, 3);
  delayed.delayMs = 0;
  assert.equal((await io.read({ at: 0 }, 1)).length, 1);
  await delayed.close();
});

test("delay: what is held waits for its release, or for the close", async (inner, thread) => {
  const delayed = new DelayBackend(inner, thread), io = new BackendIo(thread, delayed);
  await io.write({ at: 0 }, filled(1));
  delayed.hold();
  const held = io.write({ at: 0 }, filled(2));
  delayed.overtake();
  assert.equal((await io.read({ at: 0 }, 1))[0], 1, "it was not held");
  assert.equal(delayed.held, 1);
  delayed.release();
  await held;
  assert.equal((await io.read({ at: 0 }, 1))[0], 2);
  delayed.hold();
  const last = io.write({ at: 0 }, filled(3));
  await delayed.close();
  await last;
});

test(
  "error: the rule's operations fail with its errno and change nothing",
  async (inner, thread) => {
    const failing = new ErrorBackend(inner, thread.operations), io = new BackendIo(thread, failing);
    failing.rule = failNth("write", { nth: 2, errno: ENOSPC });
    const errnos = [];
    for (const fill of [1, 2, 3]) errnos.push(await io.tryWrite({ at: fill * 4096 }, filled(fill)));
    assert.deepEqual(errnos, [0, ENOSPC, 0]);
    assert.equal((await io.read({ at: 2 * 4096 }, 1))[0], 0);
    failing.rule = (code, at) => code === OPERATION.read && at === 4096 ? EIO : 0;
    assert.equal(await io.tryRead({ at: 4096 }, 1), EIO);
    assert.equal((await io.read({ at: 3 * 4096 }, 1))[0], 3);
    assert.equal(failing.failed, 2);
    failing.rule = noFault;
    assert.equal((await io.read({ at: 4096 }, 1))[0], 1);
    await failing.close();
  },
);

test("limit: no more in flight than allowed, and all of it in the end", async (inner, thread) => {
  const below = new DelayBackend(inner, thread);
  const limited = new LimitBackend(below, { ...thread, in_flight_max: 3 });
  const io = new BackendIo(thread, limited);
  below.hold();
  const writes = Array.from({ length: 10 }, (_, i) => io.write({ at: i * 4096 }, filled(i + 1)));
  assert.equal(below.held, 3);
  below.release();
  await Promise.all(writes);
  assert.equal((await io.read({ at: 9 * 4096 }, 1))[0], 10);
  await limited.close();
});

test("limit: bytes take the time that the rate gives them", async (inner, thread) => {
  const limited = new LimitBackend(inner, { ...thread, rate_bytes_per_s: 10 * MIB });
  const io = new BackendIo(thread, limited), began = thread.clock.monotonicMs();
  await Promise.all(
    Array.from({ length: 5 }, (_, i) => io.write({ at: i * MIB / 2 }, filled(1, MIB / 2))),
  );
  // The last one goes when the four before it are paid for: 2 MiB at 10 MiB/s.
  assert.ok(thread.clock.monotonicMs() - began >= 199);
  await limited.close();
});

test("torn: the beginning of a write lands, and the write fails", async (inner, thread) => {
  const tearing = new TornBackend(inner, thread.operations), io = new BackendIo(thread, tearing);
  await io.write({ at: 0 }, filled(1, 8192));
  tearing.rule = (at) => at === 0 ? 512 : -1;
  assert.equal(await io.tryWrite({ at: 0 }, filled(2)), EIO);
  await io.write({ at: 4096 }, filled(3));
  const found = await io.read({ at: 0 }, 8192);
  assert.deepEqual([found[511], found[512], found[4096]], [2, 1, 3]);
  tearing.rule = () => 0;
  assert.equal(await io.tryWrite({ at: 0 }, filled(4)), EIO);
  assert.equal((await io.read({ at: 0 }, 1))[0], 2);
  assert.equal(tearing.torn, 2);
  await tearing.close();
});

test("a wrapper passes on what it does not change", async (inner, thread) => {
  const wrapped = new TornBackend(new DelayBackend(inner, thread), thread.operations);
  let lost = 0;
  wrapped.onLost = () => void lost++;
  inner.onLost?.();
  assert.equal(lost, 1);
  assert.match(wrapped.description, /^tearing delayed file /);
  assert.equal(wrapped.allocatedBytes(), inner.allocatedBytes());
  assert.equal(wrapped.meter, inner.meter);
  await wrapped.grow(5 * MIB);
  assert.equal(inner.sizeBytes, 5 * MIB);
  await wrapped.close();
});
