/**
 * The application of the demo, a process of its own: writes at a changing pace, remembers the digest of all
 * that it wrote, times small synchronous writes, and in the end reads everything back and compares.
 *
 * Commands come in and reports go out as lines of JSON.
 */
import type { Clock, Rng } from "../../core/mod.ts";
import { lines } from "./child.ts";

export type Command =
  /** Write faster: there is room again. */
  | { readonly do: "hurry" }
  /** Stop writing, flush, and let go of the volume. */
  | { readonly do: "close" }
  /** Take the volume up again and read everything back. */
  | { readonly do: "verify" };

export type Report =
  | { readonly kind: "ready" }
  | {
    readonly kind: "progress";
    readonly files: number;
    readonly bytes: number;
    /** Pairs: wall time in milliseconds, microseconds that a synchronous write of 4 KiB took. */
    readonly latencies: readonly (readonly [number, number])[];
  }
  | { readonly kind: "closed" }
  | { readonly kind: "verified"; readonly verdict: Verdict };

export interface Verdict {
  readonly files: number;
  readonly bytes: number;
  readonly mismatches: number;
  readonly sqlite_ok: boolean;
  /** What the application can fill now: its file system, or its device. */
  readonly capacity_bytes: number;
}

/** What the application writes to: a mounted file system, or a block device. */
export interface Workload {
  /** Writes some `bytes` of new or changed data, durably. */
  write(bytes: number): Promise<void>;
  /** One synchronous write of 4 KiB: the operation that is timed. */
  touch(): Promise<void>;
  close(): Promise<void>;
  verify(): Promise<Verdict>;
  /** How much it keeps by now. */
  kept(): { readonly files: number; readonly bytes: number };
}

const MIB = 1024 ** 2;
const PACE_BYTES_PER_S = 7 * MIB;
const SWING = 0.5;
const SWING_S = 17;
const HURRY = 3;
const PART_BYTES = 3 * MIB;
const REPORT_MS = 250;
const IDLE_MS = 15;

/** Runs until told to close, then until its input ends. */
export async function runApplication(
  workload: Workload,
  { clock, rng }: { clock: Clock; rng: Rng },
): Promise<void> {
  const commands = lines(Deno.stdin.readable);
  say({ kind: "ready" });
  const state = { hurry: false, closing: false };
  const closed = readUntilClose(commands, state);
  await writeUntil(state, workload, { clock, rng });
  await closed;
  await workload.close();
  say({ kind: "closed" });
  for await (const line of commands) {
    if ((JSON.parse(line) as Command).do !== "verify") continue;
    say({ kind: "verified", verdict: await workload.verify() });
  }
}

interface WritingState {
  hurry: boolean;
  closing: boolean;
}

async function readUntilClose(
  commands: AsyncIterableIterator<string>,
  state: WritingState,
): Promise<void> {
  while (!state.closing) {
    const { value, done } = await commands.next();
    const command = done ? "close" : (JSON.parse(value) as Command).do;
    if (command === "hurry") state.hurry = true;
    if (command === "close") state.closing = true;
  }
}

/** Writes what the pace asks for, and between two parts the timed write. */
async function writeUntil(
  state: WritingState,
  workload: Workload,
  { clock, rng }: { clock: Clock; rng: Rng },
): Promise<void> {
  const began_ms = clock.monotonicMs();
  let latencies: [number, number][] = [];
  let last_ms = began_ms, reported_ms = began_ms, owed_bytes = 0;
  while (!state.closing) {
    latencies.push(await timedTouch(workload, clock));
    const now_ms = clock.monotonicMs();
    owed_bytes += paceAt((now_ms - began_ms) / 1000, state.hurry) * (now_ms - last_ms) / 1000;
    last_ms = now_ms;
    if (owed_bytes > 0) {
      const part = Math.round(PART_BYTES * (0.2 + 0.8 * rng.float()));
      await workload.write(part);
      // A machine that cannot keep up falls behind; it need not catch up.
      owed_bytes = Math.min(owed_bytes - part, PART_BYTES);
    }
    if (now_ms - reported_ms >= REPORT_MS) {
      say({ kind: "progress", ...workload.kept(), latencies });
      latencies = [];
      reported_ms = now_ms;
    }
    await clock.sleep(IDLE_MS);
  }
}

async function timedTouch(workload: Workload, clock: Clock): Promise<[number, number]> {
  const began_ms = clock.monotonicMs();
  await workload.touch();
  return [clock.nowMs(), Math.round((clock.monotonicMs() - began_ms) * 1000)];
}

/** A pace that swings, so that a straight line would be wrong. @returns bytes per second. */
function paceAt(elapsed_s: number, hurry: boolean): number {
  const swing = 1 + SWING * Math.sin(2 * Math.PI * elapsed_s / SWING_S);
  return PACE_BYTES_PER_S * swing * (hurry ? HURRY : 1);
}

function say(report: Report): void {
  let bytes = new TextEncoder().encode(JSON.stringify(report) + "\n");
  while (bytes.length > 0) bytes = bytes.subarray(Deno.stdout.writeSync(bytes));
}
