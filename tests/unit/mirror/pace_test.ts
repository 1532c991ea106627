import assert from "node:assert/strict";
import { latencyBucketLimit } from "../../../src/codec/mod.ts";
import { OPERATION } from "../../../src/backend/mod.ts";
import { seededRng } from "../../../src/core/mod.ts";
import {
  type ApplicationLoad,
  BUSY_STEP_BYTES,
  IDLE_STEP_BYTES,
  nextRate,
  type PaceLimits,
  Pacer,
} from "../../../src/mirror/pace.ts";
import { Counters } from "../../../src/volume/mod.ts";

const MIB = 2 ** 20;
const undisturbed: ApplicationLoad = {
  requests: 1000,
  iops: 10_000,
  meanMicros: 60,
  p99Micros: 200,
};
const calm = { rate: 100 * MIB, floor: 4 * MIB, ceiling: 1e12, now: undisturbed, undisturbed };

Deno.test("nextRate() climbs while the application is as fast as before", () => {
  assert.ok(nextRate(calm) > calm.rate);
});

Deno.test("nextRate() backs off for a slow tail and for a slow mean, but not below the floor", () => {
  for (const slow of [{ p99Micros: 400 }, { meanMicros: 200 }]) {
    const slowed = { ...calm, now: { ...undisturbed, ...slow } };
    assert.ok(nextRate(slowed) < calm.rate);
    let rate = calm.rate;
    for (let i = 0; i < 50; i++) rate = nextRate({ ...slowed, rate });
    assert.equal(rate, calm.floor);
  }
});

Deno.test("nextRate() lets fewer operations alone slow it down, but not stop it", () => {
  const fewer = { ...calm, now: { ...undisturbed, iops: 5000 } };
  assert.ok(nextRate(fewer) < calm.rate);
  let rate = calm.rate;
  for (let i = 0; i < 50; i++) rate = nextRate({ ...fewer, rate });
  assert.equal(rate, 16 * MIB);
});

Deno.test("nextRate() never exceeds the ceiling, not even by the floor", () => {
  assert.equal(nextRate({ ...calm, ceiling: MIB }), MIB);
  assert.equal(nextRate({ ...calm, ceiling: MIB, now: { ...undisturbed, p99Micros: 9e9 } }), MIB);
});

/** An application, a copier, and a server that does one thing at a time, in virtual time. */
class Loop {
  nowMs = 1000;
  copied = 0;
  readonly counters = new Counters();
  readonly #rng = seededRng(11);
  readonly clock = { monotonicMs: () => this.nowMs };
  readonly pacer: Pacer;
  #requestsDue = 0;
  iops = 0;
  isWriteThrough = false;
  isFollowing = false;
  needed_bytes_per_s = 0;
  /** From this rate on sleeps end a millisecond too late. */
  lateAbove = Infinity;

  constructor(
    limits: Partial<PaceLimits> = {},
    readonly capacity = 400 * MIB,
    undisturbed?: ApplicationLoad,
  ) {
    this.pacer = new Pacer({
      counters: this.counters,
      clock: this.clock,
      sleep: (ms) => this.pass(ms),
      limits: { floor_bytes_per_s: 0, ceiling_bytes_per_s: null, ...limits },
      isWriteThrough: () => this.isWriteThrough,
      isFollowing: () => this.isFollowing,
      neededBytesPerSecond: () => this.needed_bytes_per_s,
      undisturbed,
    });
  }

  /** Requests take 50 to 150 µs, to both sides 400 more; one that comes while a step is copied waits for its end before. */
  pass(asked_ms: number, isCopying = false): Promise<void> {
    const rate = this.pacer?.rateBytesPerSecond ?? 0;
    const ms = asked_ms + (!isCopying && this.copied > 0 && rate > this.lateAbove ? 1 : 0);
    this.nowMs += ms;
    this.#requestsDue += this.iops * ms / 1000;
    for (; this.#requestsDue >= 1; this.#requestsDue--) {
      const waited = isCopying ? this.#rng.float() * ms * 1000 : 0;
      const micros = waited + (this.isWriteThrough ? 450 : 50) + this.#rng.float() * 100;
      this.counters.record(OPERATION.write, 0, 4096, micros, 0);
    }
    return Promise.resolve();
  }

  /** Copies for so long as it may. @returns bytes per second. */
  async copyFor(ms: number): Promise<number> {
    const until = this.nowMs + ms, before = this.copied;
    while (this.nowMs < until) {
      const bytes = this.pacer.stepBytes;
      await this.pacer.admit(bytes, () => this.nowMs >= until);
      this.copied += bytes;
      await this.pass(bytes / this.capacity * 1000, true);
    }
    return (this.copied - before) / ms * 1000;
  }

  p99(since: Float64Array): number {
    return this.counters.quantileSince(since, 0.99);
  }
}

Deno.test("Pacer leaves all of the capacity to the copier while the application is idle", async () => {
  const loop = new Loop();
  assert.equal(loop.pacer.stepBytes, IDLE_STEP_BYTES);
  const rate = await loop.copyFor(1000);
  assert.ok(rate > 0.98 * loop.capacity, `${rate}`);
});

Deno.test("Pacer gives way to a burst at once, and takes all again when it is over", async () => {
  const loop = new Loop();
  await loop.copyFor(200);
  loop.iops = 10_000;
  await loop.pass(1);
  assert.equal(loop.pacer.stepBytes, BUSY_STEP_BYTES);
  const during = await loop.copyFor(100);
  assert.ok(during <= 40 * MIB, `${during / MIB} MiB/s in the first 100 ms`);
  loop.iops = 0;
  await loop.copyFor(30);
  assert.ok(await loop.copyFor(200) > 0.98 * loop.capacity);
});

Deno.test("Pacer finds what the application can bear, without having seen it alone before", async () => {
  const loop = new Loop();
  loop.iops = 10_000;
  await loop.pass(10);
  await loop.copyFor(3000);
  const since = loop.counters.latencySnapshot();
  const rate = await loop.copyFor(20_000);
  const alone = latencyBucketLimit(57);
  assert.ok(loop.p99(since) <= 1.5 * alone, `p99 ${loop.p99(since)}, alone ${alone}`);
  assert.ok(rate > 0.03 * loop.capacity, `${rate / MIB} MiB/s`);
});

Deno.test("Pacer keeps the operator's ceiling, busy and idle, and the floor over the application", async () => {
  const limited = new Loop({ ceiling_bytes_per_s: 10 * MIB });
  assert.ok(await limited.copyFor(2000) <= 10.5 * MIB);
  limited.iops = 1000;
  assert.ok(await limited.copyFor(2000) <= 10.5 * MIB);
  limited.pacer.setLimits({ floor_bytes_per_s: 0, ceiling_bytes_per_s: MIB });
  assert.ok(await limited.copyFor(2000) <= 1.2 * MIB);

  const floored = new Loop({ floor_bytes_per_s: 100 * MIB }, 120 * MIB);
  floored.iops = 10_000;
  const kept = await floored.copyFor(3000);
  assert.ok(kept >= 95 * MIB, `${kept / MIB} MiB/s`);
});

Deno.test("Pacer goes as fast as a deadline needs, under the operator's ceiling, and no longer", async () => {
  const loop = new Loop();
  loop.iops = 10_000;
  await loop.copyFor(3000);
  loop.needed_bytes_per_s = 150 * MIB;
  const needed = await loop.copyFor(1000);
  assert.ok(needed >= 120 * MIB, `${needed / MIB} MiB/s`);
  loop.pacer.setLimits({ floor_bytes_per_s: 0, ceiling_bytes_per_s: 10 * MIB });
  assert.ok(await loop.copyFor(1000) <= 11 * MIB);
  loop.pacer.setLimits({ floor_bytes_per_s: 0, ceiling_bytes_per_s: null });
  loop.needed_bytes_per_s = 0;
  await loop.copyFor(3000);
  assert.ok(await loop.copyFor(1000) <= 100 * MIB);
});

Deno.test("Pacer goes no faster than a floor that it keeps without knowing what the application bears", async () => {
  const loop = new Loop({ floor_bytes_per_s: 20 * MIB });
  loop.iops = 10_000;
  await loop.copyFor(5000);
  const rate = await loop.copyFor(2000);
  assert.ok(rate <= 22 * MIB, `${rate / MIB} MiB/s`);
});

Deno.test("Pacer keeps a higher floor while the target follows, which costs the application by itself", async () => {
  const loop = new Loop({}, 120 * MIB);
  loop.iops = 10_000;
  const apart = await loop.copyFor(5000);
  loop.isFollowing = true;
  const following = await loop.copyFor(5000);
  assert.ok(apart < 20 * MIB, `${apart / MIB} MiB/s`);
  assert.ok(following >= 20 * MIB, `${following / MIB} MiB/s`);
});

Deno.test("Pacer takes writes to both sides, slower by themselves, for no reason to give way", async () => {
  const undisturbed = { requests: 10_000, iops: 10_000, meanMicros: 100, p99Micros: 150 };
  const loop = new Loop({}, 4096 * MIB, undisturbed);
  loop.iops = 10_000;
  await loop.copyFor(8000);
  loop.isWriteThrough = true;
  await loop.copyFor(8000);
  const both = await loop.copyFor(2000);
  loop.isWriteThrough = false;
  await loop.copyFor(8000);
  assert.ok(both >= 0.7 * await loop.copyFor(2000), `${both / MIB} MiB/s`);
});

Deno.test("Pacer lets a copier go soon that is over, however low the ceiling", async () => {
  const loop = new Loop({ ceiling_bytes_per_s: 1024 });
  await loop.pacer.admit(MIB);
  const begunMs = loop.nowMs;
  await Promise.all([1, 2, 3].map(() => loop.pacer.admit(MIB, () => loop.nowMs > begunMs + 5)));
  assert.ok(loop.nowMs - begunMs < 20, `${loop.nowMs - begunMs} ms`);
});

Deno.test("Pacer gives way to what keeps its thread from waking, though no request tells", async () => {
  const loop = new Loop({}, 4096 * MIB);
  loop.iops = 10_000;
  await loop.copyFor(6000);
  const before = await loop.copyFor(2000);
  assert.ok(before > 60 * MIB, `${before / MIB} MiB/s`);
  loop.lateAbove = 40 * MIB;
  await loop.copyFor(2000);
  const after = await loop.copyFor(4000);
  assert.ok(after < 50 * MIB, `${after / MIB} MiB/s`);
});
