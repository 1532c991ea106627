import { equal, match, ok } from "node:assert/strict";
import { type Rng, seededRng } from "../../../src/core/mod.ts";
import { Progress, type ProgressReport } from "../../../src/mirror/progress.ts";
import type { FirstSync } from "../../../src/volume/mod.ts";

const MIB = 2 ** 20;

/** A mirror of numbers: copies and dirties as it is told, in virtual time. */
class Numbers {
  nowMs = 0;
  copiedBytes = 0;
  changedBytes = 0;
  readonly progress: Progress;

  constructor(public dirtyBytes: number, first: FirstSync | null = { total_bytes: 0, percent: 0 }) {
    this.progress = new Progress({
      clock: { monotonicMs: () => this.nowMs },
      work: () => ({ ...this }),
      first,
    });
  }

  step(ms: number, copied: number, changed: number): void {
    const copies = Math.min(copied, this.dirtyBytes + changed);
    this.nowMs += ms;
    this.copiedBytes += copies;
    this.changedBytes += changed;
    this.dirtyBytes += changed - copies;
    this.progress.look();
  }
}

function isSane(report: ProgressReport): void {
  const { percent, dirtyBytes, etaSeconds, etaLowSeconds, etaHighSeconds, etaReason } = report;
  ok(percent >= 0 && percent <= 100, `${percent} %`);
  ok(dirtyBytes >= 0);
  equal(etaSeconds === null, etaReason !== null);
  if (etaSeconds === null) return;
  ok(etaLowSeconds !== null && etaLowSeconds <= etaSeconds);
  ok(etaHighSeconds === null || etaHighSeconds >= etaSeconds);
}

Deno.test("Progress tells what is left, how fast, and when it is over", () => {
  const one = new Numbers(100 * MIB);
  isSane(one.progress.report());
  equal(one.progress.report().percent, 0);
  match(one.progress.report().etaReason ?? "", /nothing was copied yet/);
  one.progress.copyingBegins();
  for (let i = 0; i < 10; i++) one.step(250, 5 * MIB, MIB);
  const report = one.progress.report();
  equal(report.dirtyBytes, 60 * MIB);
  equal(report.rateBytesPerSecond, 20 * MIB);
  equal(report.dirtyBytesPerSecond, 4 * MIB);
  equal(report.percent, 45.4, "50 of 110 MiB");
  equal(report.etaSeconds, 3.8);
  equal(report.etaLowSeconds, 3.8, "the rate did not vary");
  one.step(10_000, 100 * MIB, 0);
  one.progress.copyingEnds(true);
  const done = one.progress.report();
  equal(done.percent, 100);
  equal(done.etaSeconds, 0);
  equal(done.rateBytesPerSecond, 0);
  equal(one.progress.first, null);
});

Deno.test("Progress gives no time but the reason when more becomes dirty than is copied", () => {
  const one = new Numbers(100 * MIB);
  one.progress.copyingBegins();
  for (let i = 0; i < 10; i++) one.step(1000, 5 * MIB, 6 * MIB);
  const { etaSeconds, etaReason } = one.progress.report();
  equal(etaSeconds, null);
  equal(etaReason, "it does not converge at present rates: dirties 6MiB/s, copies 5MiB/s");
  equal(one.progress.report({ stands: "the mirror is paused" }).etaReason, "the mirror is paused");
});

Deno.test("Progress between rounds counts the wait, too", () => {
  const one = new Numbers(10 * MIB);
  one.progress.copyingBegins();
  for (let i = 0; i < 10; i++) one.step(100, MIB, 0);
  one.progress.copyingEnds(true);
  one.step(60_000, 0, 20 * MIB);
  const report = one.progress.report({ waitMs: 30_000 });
  equal(report.percent, 100);
  equal(report.dirtyBytes, 20 * MIB);
  equal(report.etaSeconds, 32);
});

Deno.test("the first sync is one round over a restart, and over an interruption", () => {
  const one = new Numbers(100 * MIB);
  one.progress.copyingBegins();
  for (let i = 0; i < 8; i++) one.step(250, 10 * MIB, 5 * MIB);
  const before = one.progress.report().percent, { first } = one.progress;
  ok(before > 40 && first !== null);
  equal(first.total_bytes, 140 * MIB);
  one.progress.copyingEnds(false);
  one.progress.copyingBegins();
  equal(one.progress.report().percent, before);
  // What was not flushed is dirty again after a kill.
  const again = new Numbers(90 * MIB, first);
  equal(again.progress.report().percent, before);
  again.progress.copyingBegins();
  equal(again.progress.report().percent, before);
  again.step(250, 60 * MIB, 0);
  equal(again.progress.report().percent, 78.5, "110 of 140 MiB");
});

Deno.test("whatever happens, the share is in [0, 100], nothing left is negative, and the interval holds its middle", () => {
  for (let seed = 1; seed <= 300; seed++) {
    const rng = seededRng(seed), one = new Numbers(Math.floor(rng.float() * 100) * MIB);
    let inRound = false, shown = 0;
    for (let i = 0; i < 100; i++) {
      if (rng.float() < 0.1) {
        if (inRound) one.progress.copyingEnds(one.dirtyBytes === 0 || rng.float() < 0.3);
        else one.progress.copyingBegins();
        inRound = !inRound;
        shown = 0;
      }
      const changed = rng.float() < 0.5 ? 0 : Math.floor(rng.float() * 8 * MIB);
      one.step(rng.float() * 2000, inRound ? Math.floor(rng.float() * 10 * MIB) : 0, changed);
      // A target that lost something.
      if (rng.float() < 0.02) one.dirtyBytes += 10 * MIB;
      const report = one.progress.report({ waitMs: rng.float() * 1000 });
      isSane(report);
      ok(report.percent >= shown || !inRound, `seed ${seed}: ${report.percent} after ${shown}`);
      shown = inRound ? report.percent : 0;
      if (inRound && one.dirtyBytes > 0) ok(report.percent < 100);
    }
  }
});

/** A sync whose rate wanders. @returns whether its true end was in the interval told after a third of it. */
function endsWithin(rng: Rng, persistence: number): boolean {
  const one = new Numbers(400 * MIB);
  one.progress.copyingBegins();
  let wander = 0, told: ProgressReport | undefined, toldMs = 0;
  while (one.dirtyBytes > 0) {
    wander = persistence * wander + (1 - persistence) * (rng.float() - 0.5) * 6;
    const rate = 20 * MIB * Math.max(0.05, 1 + wander);
    one.step(250, rate / 4, MIB / 4);
    if (told === undefined && one.dirtyBytes < 267 * MIB) {
      told = one.progress.report();
      toldMs = one.nowMs;
    }
  }
  const tookSeconds = (one.nowMs - toldMs) / 1000;
  return told !== undefined && tookSeconds >= (told.etaLowSeconds ?? Infinity) - 0.3 &&
    tookSeconds <= (told.etaHighSeconds ?? Infinity) + 0.3;
}

Deno.test("the true end of a sync lies in the 80 % interval about so often", () => {
  for (const persistence of [0, 0.5, 0.8]) {
    const rng = seededRng(7);
    let within = 0;
    for (let i = 0; i < 400; i++) if (endsWithin(rng, persistence)) within++;
    ok(within > 0.68 * 400 && within < 0.97 * 400, `${within} of 400 at ${persistence}`);
  }
});
