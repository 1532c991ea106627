/** `psma status`: what is there, how full it is, and how it goes. */
import type { Command } from "@commander-js/extra-typings";
import type { AgentStatus, VolumeView } from "../../api/client.ts";
import { formatDuration, formatSize } from "../../core/mod.ts";
import { formatMirrorLine } from "../mirror_text.ts";
import { formatTable } from "../table.ts";
import { cutTo, widthOf } from "../terminal.ts";
import { type Session, type Start, untilSignal, verb } from "../verb.ts";

const WATCH_MS = 1000;
/** A state keeps its word, whatever is cut. */
const STATE_COLUMNS = "detached".length;

export function statusVerb(start: Start): Command {
  return verb("status", "Show volumes, sizes, forecasts and mirrors", [
    "psma status",
    "psma status data --json",
    "psma status --watch",
  ])
    .argument("[volume]", "only this one")
    .option("--watch", "show it again every second, until interrupted")
    .action((volume, options) =>
      start(options, (session) => options.watch ? watch(session, volume) : show(session, volume))
    ) as never;
}

async function show(session: Session, volume: string | undefined): Promise<void> {
  const status = await read(session, volume);
  session.answer(status, () => formatStatus(session, status));
}

async function watch(session: Session, volume: string | undefined): Promise<void> {
  using interrupted = untilSignal();
  while (!interrupted.signal.aborted) {
    const status = await read(session, volume);
    if (session.json) session.answer(status, () => "");
    else if (session.stderr.is_terminal) session.live.draw(formatStatus(session, status));
    else session.answer(status, () => formatStatus(session, status));
    await session.clock.sleep(WATCH_MS, interrupted.signal).catch(() => {});
  }
}

async function read(session: Session, volume: string | undefined): Promise<AgentStatus> {
  const agent = await session.agent();
  const status = await agent.status();
  return volume === undefined ? status : { ...status, volumes: [await agent.volume(volume)] };
}

function formatStatus(session: Session, status: AgentStatus): string {
  const { paint, clock } = session;
  const up = formatDuration(clock.nowMs() - Date.parse(status.started_at));
  const head = `psma ${status.version}, up ${up}: ` +
    (status.ready
      ? paint("green", "ready")
      : paint("yellow", `not ready: ${status.not_ready.join("; ")}`));
  const away = status.unreachable_stores.map(({ name, reason }) =>
    `\n${paint("yellow", `store ${name}`)}: ${reason}`
  ).join("");
  if (status.volumes.length === 0) {
    return `${head}${away}\nNo volumes. Make one: psma volume create NAME --size 10GiB`;
  }
  return `${head}${away}\n\n${formatVolumes(session, status.volumes)}`;
}

/** The table of `psma status` and `psma volume list`. */
export function formatVolumes(session: Session, volumes: readonly VolumeView[]): string {
  const { stdout, stderr } = session;
  const columns = stdout.is_terminal || stderr.is_terminal ? stdout.columns() : Infinity;
  const states = volumes.map((volume) => formatState(session, volume));
  const whole = formatTableOf(session, volumes, states);
  const excess = Math.max(...whole.split("\n").map(widthOf)) - columns;
  if (!(excess > 0)) return whole;
  // The reason is what can be read elsewhere: `psma volume show` and the line above the table have all of it.
  const room = Math.max(STATE_COLUMNS, Math.max(...states.map(widthOf)) - excess);
  const cut = formatTableOf(session, volumes, states.map((state) => cutTo(state, room)));
  return cut.split("\n").map((line) => cutTo(line, columns)).join("\n");
}

function formatTableOf(
  { paint, clock }: Session,
  volumes: readonly VolumeView[],
  states: readonly string[],
): string {
  const rows = volumes.map((volume, at) => [
    paint("bold", volume.name),
    states[at] ?? "",
    formatSize(volume.size_bytes),
    formatUsed(volume),
    formatTimeToFull(volume, clock.nowMs()),
    formatMirrors(volume),
    formatCutover(volume),
  ]);
  return formatTable([
    { title: "VOLUME" },
    { title: "STATE" },
    { title: "SIZE", align: "right" },
    { title: "USED", align: "right" },
    { title: "FULL IN" },
    { title: "MIRROR" },
    { title: "LAST CUTOVER" },
  ], rows);
}

function formatState({ paint }: Session, { state, reason }: VolumeView): string {
  const colour = state === "attached" ? "green" : state === "failed" ? "red" : "dim";
  return paint(colour, state) + (reason === undefined ? "" : ` (${reason})`);
}

/** The mirror to a larger place, else how the backup is followed. */
function formatMirrors({ mirror, backup }: VolumeView): string {
  if (mirror !== null) return formatMirrorLine(mirror);
  if (backup === null || backup.state === "frozen") return "none";
  if (backup.state === "taken-over") return "split brain: see volume show";
  return backup.state === "in-step"
    ? "backup in step"
    : `backup lacks ${formatSize(backup.dirty_bytes ?? 0)}`;
}

function formatUsed({ used_bytes, size_bytes, filesystem }: VolumeView): string {
  const whole = filesystem?.size_bytes ?? size_bytes;
  return `${formatSize(used_bytes)} ${Math.round(100 * used_bytes / whole)}%`;
}

/** The median and, in brackets, the time that the plan acts on. */
export function formatTimeToFull({ time_to_full }: VolumeView, now_ms: number): string {
  if (time_to_full === null) return "no forecast yet";
  const { median_at, upper_at, upper_level } = time_to_full;
  if (upper_at === null) return "beyond the horizon";
  const from = (at: string) => formatDuration(Math.max(0, Date.parse(at) - now_ms));
  const median = median_at === null ? "beyond the horizon" : from(median_at);
  return `${median} (${Math.round(upper_level * 100)}%: ${from(upper_at)})`;
}

function formatCutover({ last_cutover }: VolumeView): string {
  if (last_cutover === null) return "never";
  const { epoch, io_errors, latency_us } = last_cutover;
  return `epoch ${epoch}, ${io_errors} errors, max ${formatMicroseconds(latency_us.window_max)}`;
}

function formatMicroseconds(us: number): string {
  return us < 1000 ? `${Math.round(us)}µs` : `${(us / 1000).toFixed(us < 10_000 ? 1 : 0)}ms`;
}
