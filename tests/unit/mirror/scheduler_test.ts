import { equal, match, ok } from "node:assert/strict";
import { Progress } from "../../../src/mirror/progress.ts";
import type { LoadStep } from "../../../src/mirror/predicted_load.ts";
import { type Guidance, Scheduler } from "../../../src/mirror/scheduler.ts";
import { mirrorTerms } from "../../support/mirror_terms.ts";

const MIB = 2 ** 20, MINUTE_MS = 60_000, HOUR_MS = 60 * MINUTE_MS, DAY_MS = 24 * HOUR_MS;
const BEGAN_MS = Date.UTC(2026, 10, 23);
const RPO_MS = 90 * MINUTE_MS, LOOK_MS = 5000;
/** The application rewrites a set of chunks of this size. */
const HOT_BYTES = 8192 * MIB;

interface Event {
  readonly atMs: number;
  readonly type: string;
  readonly message: string;
  readonly data: Record<string, unknown>;
}

/** Of each hour the last third is quiet. */
const isQuiet = (atMs: number) => atMs % HOUR_MS >= 40 * MINUTE_MS;
const loadAt = (atMs: number) => isQuiet(atMs) ? 50 : 1000;

/** The two RPOs that follow, as a forecaster would have them. */
function predicted(nowMs: number): LoadStep[] {
  const stepMs = 10 * MINUTE_MS, first = Math.floor(nowMs / stepMs) * stepMs;
  return Array.from({ length: 2 * RPO_MS / stepMs }, (_, index) => {
    const from_ms = first + index * stepMs, write_bytes_per_s = 4096 * loadAt(from_ms);
    return {
      from_ms,
      until_ms: from_ms + stepMs,
      write_bytes_per_s,
      write_high_bytes_per_s: 1.3 * write_bytes_per_s,
      load_iops: loadAt(from_ms),
    };
  });
}

/** A volume, its mirror's copier and time, as far as the scheduler sees them. */
class Day {
  nowMs = 0;
  readonly volume = { sizeBytes: 2 * HOT_BYTES, counters: { writtenBytes: 0 } };
  readonly map = { dirtyBytes: 1024 * MIB };
  readonly link = { changedBytes: 0, unverifiedBytes: 0, map: this.map };
  copiedBytes = 0;
  copiedInQuietBytes = 0;
  lagMsMax = 0;
  limits = { floor_bytes_per_s: 0, ceiling_bytes_per_s: null as number | null };
  readonly events: Event[] = [];
  readonly scheduler: Scheduler;
  /** Left of the round under way. */
  #leftBytes: number | undefined;

  constructor(terms = mirrorTerms({ resync_interval_ms: RPO_MS })) {
    const clock = {
      nowMs: () => BEGAN_MS + this.nowMs,
      monotonicMs: () => this.nowMs,
      sleep: () => Promise.resolve(),
    };
    const work = () => ({
      copiedBytes: this.copiedBytes,
      changedBytes: this.link.changedBytes,
      dirtyBytes: this.map.dirtyBytes,
    });
    const { volume, link } = this;
    this.scheduler = new Scheduler({
      volume,
      link,
      clock,
      terms,
      progress: new Progress({ clock, work, first: { total_bytes: 0, percent: 0 } }),
      setLimits: (limits) => this.limits = limits,
      emit: (type, _severity, message, data = {}) =>
        this.events.push({ atMs: this.nowMs, type, message, data }),
    });
  }

  guide(changes: Partial<Guidance> = {}) {
    this.scheduler.guide({
      valid_until_ms: BEGAN_MS + this.nowMs + HOUR_MS,
      deadline_ms: null,
      steps: predicted(BEGAN_MS + this.nowMs),
      ...changes,
    });
  }

  /** One look: the application works, then the copier. */
  step({ writes = true, copies = true } = {}) {
    this.nowMs += LOOK_MS;
    const load = loadAt(BEGAN_MS + this.nowMs), written = writes ? 4096 * load * LOOK_MS / 1000 : 0;
    const fresh = written * Math.max(0, 1 - this.map.dirtyBytes / HOT_BYTES);
    this.volume.counters.writtenBytes += written;
    this.link.changedBytes += fresh;
    this.map.dirtyBytes += fresh;
    if (this.#leftBytes !== undefined) {
      // As the pacer does: what the application lets it, and the floor in any case.
      const rate = Math.max((load > 500 ? 20 : 80) * MIB, this.limits.floor_bytes_per_s);
      const copied = Math.min(this.#leftBytes, rate * LOOK_MS / 1000, this.map.dirtyBytes);
      this.#leftBytes -= copied;
      this.map.dirtyBytes -= copied;
      this.copiedBytes += copied;
      if (isQuiet(BEGAN_MS + this.nowMs)) this.copiedInQuietBytes += copied;
    }
    this.scheduler.look();
    if (this.#leftBytes !== undefined && this.#leftBytes <= 0) {
      this.#leftBytes = undefined;
      this.scheduler.roundEnds(this.scheduler.scopeBytes === null);
    } else if (
      copies && this.#leftBytes === undefined && (this.scheduler.untilNextMs ?? 1) <= 0
    ) {
      this.#leftBytes = Math.min(this.scheduler.scopeBytes ?? Infinity, this.map.dirtyBytes);
      this.scheduler.roundBegins();
    }
    this.lagMsMax = Math.max(this.lagMsMax, this.scheduler.lagMs ?? 0);
  }
}

function played({ guided }: { guided: boolean }): Day {
  const day = new Day();
  while (day.nowMs < DAY_MS) {
    if (guided && day.nowMs % (5 * MINUTE_MS) === 0) day.guide();
    day.step();
  }
  return day;
}

Deno.test("Scheduler with a forecast copies while the application is quiet, and keeps the RPO", () => {
  const blind = played({ guided: false }), seeing = played({ guided: true });
  const share = (day: Day) => day.copiedInQuietBytes / day.copiedBytes;
  ok(share(blind) < 0.6, `without a forecast: ${share(blind)}`);
  ok(share(seeing) > 0.9, `with one: ${share(seeing)}`);
  for (const day of [blind, seeing]) {
    ok(day.lagMsMax <= RPO_MS, `a write waited for ${day.lagMsMax} ms`);
    ok(day.lagMsMax > RPO_MS / 8, "and rounds came no oftener than that needs");
  }
  ok(seeing.copiedBytes < 3 * blind.copiedBytes, `${seeing.copiedBytes} ${blind.copiedBytes}`);
});

Deno.test("Scheduler tells decisions that differ with what they rest on, some per RPO at most", () => {
  const { events } = played({ guided: true });
  const told = events.filter(({ type }) => type === "mirror.scheduled");
  ok(told.some(({ data }) => String(data["because"]).startsWith("quiet")));
  ok(told.length <= 3 * DAY_MS / RPO_MS, `${told.length} decisions told in a day`);
  const guided = told.find(({ data }) => String(data["because"]).startsWith("quiet"));
  match(guided?.message ?? "", /predicted to be quieter/);
  equal(guided?.data["rpo_ms"], RPO_MS);
  for (const name of ["dirty_bytes", "copy_bytes_per_s", "predicted_steps", "oldest_write_ms"]) {
    ok(Number(guided?.data[name]) > 0, `${name}: ${guided?.data[name]}`);
  }
  equal(events.length, told.length, "and no RPO was missed");
});

Deno.test("Scheduler raises the floor as a deadline comes near, and takes it back with it", () => {
  const day = new Day(), floors: number[] = [];
  const deadline_ms = BEGAN_MS + 30 * MINUTE_MS;
  day.guide({ deadline_ms, steps: [] });
  while (day.nowMs < 30 * MINUTE_MS - LOOK_MS) {
    day.step({ writes: false, copies: false });
    floors.push(day.limits.floor_bytes_per_s);
  }
  ok((floors[0] ?? 0) < 2 * MIB, `${floors[0]} with half an hour left for 1 GiB`);
  ok(floors.every((floor, index) => floor >= (floors[index - 1] ?? 0)), "it only rises");
  ok((floors.at(-1) ?? 0) > 128 * MIB, `${floors.at(-1)} in the last seconds`);
  const told = day.events.filter(({ data }) => data["deadline_at"] !== null);
  ok(told.length >= 3 && told.length < 12, `${told.length} times told`);
  const gaps = told.slice(1).map(({ atMs }, index) => atMs - (told[index]?.atMs ?? 0));
  ok(Math.min(...gaps) >= 10_000, `${gaps}`);
  day.guide({ deadline_ms: BEGAN_MS, steps: [] });
  equal(day.limits.floor_bytes_per_s, 256 * MIB, "over: as fast as may be");
  day.guide({ steps: [] });
  equal(day.limits.floor_bytes_per_s, 0, "no deadline: the application first");
});

Deno.test("Scheduler forgets guidance that nobody renews", () => {
  const day = new Day();
  day.guide({ deadline_ms: BEGAN_MS, valid_until_ms: BEGAN_MS + MINUTE_MS });
  equal(day.limits.floor_bytes_per_s, 256 * MIB);
  while (day.nowMs <= MINUTE_MS) day.step({ writes: false, copies: false });
  equal(day.limits.floor_bytes_per_s, 0);
});
