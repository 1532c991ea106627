/** What is registered with a ring, and timers that are given up. */
import assert from "node:assert/strict";
import { inThread } from "../../support/in_thread.ts";
import { requires } from "../../support/requires.ts";

const test = (name: string, fn: () => Promise<void>) =>
  Deno.test({ name, ...requires({ io_uring: true }), fn });

test("a kind that was given back stands for the next handler", async () => {
  await inThread(async ({ reactor }) => {
    const { ring } = reactor;
    const first = ring.register(() => assert.fail("it was given back"));
    ring.unregister(first);
    assert.throws(() => ring.unregister(first), /unregistered twice/);
    const { promise, resolve } = reactor.deferred<number>();
    const second = ring.register((index) => resolve(index));
    assert.equal(second, first);
    ring.fsync(-1, 0, second, 77);
    assert.equal(await promise, 77);
    ring.unregister(second);
  });
});

test("an alarm that is cancelled is over at once, and as often as one likes", async () => {
  await inThread(async ({ reactor, clock }) => {
    const began_ms = clock.monotonicMs();
    for (let i = 0; i < 10_000; i++) {
      const alarm = reactor.alarm(60_000);
      alarm.cancel();
      alarm.cancel();
      await alarm.over;
      alarm.cancel();
    }
    assert.ok(clock.monotonicMs() - began_ms < 60_000);
    // A late cancel must not hit whoever uses the record now.
    const rung = reactor.alarm(0);
    await rung.over;
    let over = false;
    const other = reactor.alarm(60_000);
    other.over.then(() => over = true);
    rung.cancel();
    await reactor.alarm(20).over;
    assert.equal(over, false);
    other.cancel();
    await other.over;
  });
});
