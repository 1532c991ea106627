/** The demo as a person sees it: lines that stay for what happened, and a few that are drawn anew. */
import type { AgentEvent, VolumeView } from "../../api/client.ts";
import { type Clock, formatDuration, formatSize } from "../../core/mod.ts";
import { formatMirrorProgress } from "../mirror_text.ts";
import { bar, sparkline } from "../plot.ts";
import { LiveText, type Paint, widthOf, type Writer } from "../terminal.ts";
import { formatTimeToFull } from "../verbs/status.ts";

const BAR_WIDTH = 40;
const PACE_POINTS = 40;
const PLAIN_EVERY_MS = 5000;

/** What the screen shows of a moment. */
export interface Moment {
  readonly volume: VolumeView;
  readonly files: number;
  readonly written_bytes: number;
  /** Of the newest synchronous writes, microseconds. */
  readonly latency_us: number;
}

export class Screen {
  readonly #live: LiveText;
  readonly #began_ms: number;
  #paces: number[] = [];
  #last: { at_ms: number; bytes: number } | undefined;
  #plain_ms = 0;

  constructor(
    readonly writer: Writer,
    readonly paint: Paint,
    readonly clock: Clock,
    readonly on: boolean,
  ) {
    this.#live = new LiveText(writer);
    this.#began_ms = clock.monotonicMs();
  }

  get elapsed_ms(): number {
    return this.clock.monotonicMs() - this.#began_ms;
  }

  /** A line that stays. */
  say(text: string): void {
    if (this.on) this.#live.say(`${this.#time()}  ${text}`);
  }

  /** A line that stays, for something that the agent did; what says nothing new here is left out. */
  event(event: AgentEvent): void {
    if (isRoutine(event)) return;
    const { message, severity, type } = event;
    const colour = severity === "error" ? "red" : severity === "warning" ? "yellow" : "cyan";
    const text = HIGHLIGHTS.has(type) ? this.paint("bold", message) : message;
    this.say(`${this.paint(colour, "•")} ${text}`);
  }

  show(moment: Moment): void {
    if (!this.on) return;
    this.#measurePace(moment.written_bytes);
    if (this.writer.is_terminal) return this.#live.draw(this.#picture(moment));
    if (this.elapsed_ms - this.#plain_ms < PLAIN_EVERY_MS) return;
    this.#plain_ms = this.elapsed_ms;
    const { volume, files } = moment;
    this.say(
      `  ${formatUsed(volume)}, ${files} files, ${
        volume.mirror === null ? "no mirror" : formatMirrorProgress(volume.mirror, 10)
      }`,
    );
  }

  clear(): void {
    if (this.on && this.writer.is_terminal) this.#live.clear();
  }

  #picture({ volume, files, written_bytes, latency_us }: Moment): string {
    const { paint } = this;
    const share = volume.used_bytes / capacityOf(volume);
    const colour = share > 0.8 ? "red" : share > 0.6 ? "yellow" : "green";
    const pace = this.#paces.at(-1) ?? 0;
    const lines = [
      "",
      `  used     ${paint(colour, bar(share, BAR_WIDTH))} ${formatUsed(volume)}`,
      `  writing  ${paint("blue", sparkline(this.#paces).padStart(BAR_WIDTH))} ${
        formatSize(pace)
      }/s, ` +
      `${files} files, ${formatSize(written_bytes)}, fsync ${(latency_us / 1000).toFixed(1)}ms`,
      `  full in  ${formatTimeToFull(volume, this.clock.nowMs())}`,
    ];
    if (volume.mirror !== null) {
      lines.push(`  mirror   ${formatMirrorProgress(volume.mirror, BAR_WIDTH / 2)}`);
    }
    const width = this.writer.columns();
    return lines.map((line) => cut(line, width)).join("\n");
  }

  #measurePace(bytes: number) {
    const at_ms = this.clock.monotonicMs();
    if (this.#last !== undefined && at_ms > this.#last.at_ms) {
      const pace = (bytes - this.#last.bytes) / (at_ms - this.#last.at_ms) * 1000;
      this.#paces = [...this.#paces, Math.max(0, pace)].slice(-PACE_POINTS);
    }
    this.#last = { at_ms, bytes };
  }

  #time(): string {
    return this.paint("dim", formatDuration(Math.floor(this.elapsed_ms / 1000) * 1000).padStart(6));
  }
}

const HIGHLIGHTS: ReadonlySet<string> = new Set([
  "forecast.tripped",
  "cutover.committed",
  "volume.grown",
]);
const ROUTINE: ReadonlySet<string> = new Set(["agent.started", "cutover.measured"]);

/** The demo tells some of it in words of its own, and a plan to do nothing is no news. */
function isRoutine({ type, severity, data }: AgentEvent): boolean {
  if (severity !== "info") return false;
  return ROUTINE.has(type) || (type === "plan.changed" && data["action"] === "none");
}

function formatUsed(volume: VolumeView): string {
  const capacity = capacityOf(volume);
  const share = Math.round(100 * volume.used_bytes / capacity);
  return `${formatSize(volume.used_bytes)} of ${formatSize(capacity)} (${share}%)`;
}

function capacityOf({ filesystem, size_bytes }: VolumeView): number {
  return filesystem?.size_bytes ?? size_bytes;
}

/** A line that wraps would spoil the picture. Escape sequences stay whole: none stands near the end. */
function cut(line: string, width: number): string {
  const escapes = [...line].length - widthOf(line);
  return [...line].slice(0, width + escapes).join("");
}
