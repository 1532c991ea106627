/**
 * The work of mirrors, scaling events and switches, step by step.
 *
 * Order of a scaling event: a larger volume at the mirror's store, first sync, converge, cutover, growth.
 * The data plane refuses to cut over to a mirror that was not verified; nothing here can get around that.
 */
import { formatSize, PsmaError } from "../core/mod.ts";
import type { CutoverReport, MirrorStatus, Placement, VolumeStatus } from "../dataplane/mod.ts";
import { refreshAllocated } from "./allocation.ts";
import { backupOrder, settleGrowth, termsOf } from "./backup.ts";
import type { MirrorOrder } from "./catalogue.ts";
import { type AgentContext, pause, storeNamed } from "./context.ts";
import { needGrowth } from "./growth.ts";
import { guideMirror } from "./guidance.ts";
import { addLeftover, growUnit, sweepLeftovers } from "./serving.ts";
import type { VolumeUnit } from "./volume_unit.ts";

/** What a scaling event or a switch answers with. */
export interface ScaleResult extends CutoverReport {
  /** The backup that was there before and is deleted; null where there was none. */
  readonly replaced_backup: { readonly store: string; readonly size_bytes: number } | null;
}

const POLL_MS = 250;
/** How long a mirror may take to get ready for a switch, there or back. */
export const CONVERGE_WITHIN_MS = 120_000;
const ID_BYTES = 6;
/** A rate from less than this says more about latency than about throughput. */
const RATE_SAMPLE_BYTES = 16 * 1024 * 1024;
/** How much a new measurement of the rate counts against the earlier ones. */
const RATE_WEIGHT = 0.5;
const SYNCED: readonly string[] = ["tracking", "resyncing", "converging", "ready"];

/** Does what is left to do of an intent. Each step finds out for itself whether it was done. */
export async function carryOut(
  context: AgentContext,
  unit: VolumeUnit,
  { verb, size_bytes }: {
    readonly verb: "mirror" | "scale" | "switch";
    readonly size_bytes: number;
  },
): Promise<ScaleResult | CutoverReport | MirrorStatus | null> {
  const status = await statusOf(context, unit, verb);
  const moved_to_bytes = Math.max(status.size_bytes, status.active.size_bytes);
  if (verb !== "mirror" && !status.mirror && moved_to_bytes >= size_bytes) {
    return await finishScale(context, unit, status.last_cutover);
  }
  if (verb === "switch") {
    if (!status.mirror) throw noMirror(unit, verb);
  } else {
    await unit.exclusively(verb, () => ensureMirror(context, unit, size_bytes));
  }
  await guideMirror(context, unit);
  const mirror = await waitSynced(context, unit);
  return verb === "mirror" ? mirror : await cutOver(context, unit, verb);
}

/** Makes and starts the mirror, unless it is there. */
async function ensureMirror(
  context: AgentContext,
  unit: VolumeUnit,
  size_bytes: number,
): Promise<void> {
  const { catalogue, plane, rng, clock, events } = context;
  const { name, config } = unit;
  const status = await statusOf(context, unit, "mirror");
  if (status.mirror && status.mirror.state !== "failed") return;
  if (status.mirror) await giveUpMirror(context, unit, status.mirror);
  const known = catalogue.get(name).mirror;
  const order: MirrorOrder = known?.size_bytes === size_bytes ? known : {
    id: `m-${rng.hex(ID_BYTES)}`,
    store: config.mirror.store,
    size_bytes,
    epoch: status.epoch,
    placement: null,
  };
  catalogue.update(name, { mirror: order });
  events.add({
    type: "mirror.requested",
    volume: name,
    message: `A volume of ${formatSize(size_bytes)} is asked for at ${order.store} for ${name}`,
    data: { size_bytes, store: order.store },
  });
  const began_ms = clock.monotonicMs();
  const target = await requestTarget(context, unit, status, order);
  const { measured } = catalogue.update(name, { mirror: { ...order, placement: target } });
  try {
    await plane.command("startMirror", {
      volume: name,
      id: order.id,
      target,
      terms: termsOf(config.mirror),
      // A target that was on record before may have been written to already.
      compare: order.placement !== null,
    });
  } catch (error) {
    addLeftover(context, name, target);
    catalogue.update(name, { mirror: null });
    await sweepLeftovers(context, unit);
    throw error;
  }
  catalogue.update(name, {
    measured: { ...measured, provision_ms: clock.monotonicMs() - began_ms },
  });
}

/** Asks the store; the same order again gives the same answer. */
async function requestTarget(
  { catalogue, stores, clock }: AgentContext,
  unit: VolumeUnit,
  status: VolumeStatus,
  order: MirrorOrder,
) {
  const { name, config, plan, observation } = unit;
  const needed_in_ms = plan?.numbers["full_in_ms"] ?? plan?.numbers["lead_ms"] ?? 0;
  const at = new Date(clock.nowMs() + needed_in_ms).toISOString();
  const bytes = Math.ceil(plan?.numbers["need_at_horizon_bytes"] ?? order.size_bytes);
  const grant = await storeNamed(stores, order.store).requestMirror({
    source: {
      agent: catalogue.agent,
      volume: name,
      size_bytes: status.size_bytes,
      used_bytes: Math.min(observation?.used_bytes ?? status.size_bytes, status.size_bytes),
    },
    predicted_need: { bytes, level: config.scale.level, at },
    size_bytes: order.size_bytes,
    deadline: at,
    // An earlier version did not keep it, and the volume's did not rise in between.
    epoch: order.epoch ?? status.epoch,
    idempotency_key: `${catalogue.agent}/${order.id}`,
  });
  return grant.placement;
}

/** Waits for the first sync, and measures its rate. @throws {PsmaError} state/mirror-failed, state/mirror-cancelled */
async function waitSynced(context: AgentContext, unit: VolumeUnit): Promise<MirrorStatus> {
  const { plane, clock } = context;
  const { name } = unit;
  const began_ms = clock.monotonicMs();
  let first: MirrorStatus | undefined;
  for (;;) {
    const now = await plane.command("mirrorStatus", { volume: name });
    if (!now) {
      throw new PsmaError(
        "state/mirror-cancelled",
        `Cannot go on with ${name}: its mirror is gone`,
      );
    }
    if (now.state === "failed") {
      throw new PsmaError(
        "state/mirror-failed",
        `Cannot mirror ${name}: ${now.reason ?? "the mirror failed"}`,
      );
    }
    first ??= now;
    if (SYNCED.includes(now.state)) {
      const elapsed_ms = clock.monotonicMs() - began_ms;
      const copied_bytes = now.copied_bytes - first.copied_bytes;
      if (copied_bytes >= RATE_SAMPLE_BYTES) {
        learnRate(context, name, copied_bytes / elapsed_ms * 1000);
      }
      return now;
    }
    await pause(context, POLL_MS);
  }
}

function learnRate({ catalogue }: AgentContext, name: string, rate: number) {
  const { measured } = catalogue.get(name);
  const before = measured.sync_rate_bytes_per_s ?? rate;
  const sync_rate_bytes_per_s = Math.round(before + RATE_WEIGHT * (rate - before));
  catalogue.update(name, { measured: { ...measured, sync_rate_bytes_per_s } });
}

async function cutOver(
  context: AgentContext,
  unit: VolumeUnit,
  verb: "scale" | "switch",
): Promise<ScaleResult> {
  const { plane, clock, catalogue } = context;
  const volume = unit.name;
  needGrowth(unit, verb);
  return await unit.exclusively(verb, async () => {
    const began_ms = clock.monotonicMs();
    // The commit puts the present source in the backup's place; until then the old one stays.
    const { backup } = await plane.command("volumeStatus", { name: volume });
    if (backup) addLeftover(context, volume, backup);
    await plane.command("convergeMirror", { volume, timeout_ms: CONVERGE_WITHIN_MS });
    catalogue.update(volume, { grow_pending: true });
    // Until the answer is here, nobody knows of which store the data plane tells what is allocated.
    unit.allocated_at_store = null;
    const report = await plane.command("switchVolume", {
      volume,
      timeout_ms: CONVERGE_WITHIN_MS,
      backup: backupOrder(unit.config.mirror),
    }).catch((error) => {
      catalogue.update(volume, { grow_pending: false });
      throw error;
    });
    await refreshAllocated(context, unit, await plane.command("volumeStatus", { name: volume }));
    const { measured } = catalogue.get(volume);
    const switch_ms = Math.round(clock.monotonicMs() - began_ms);
    catalogue.update(volume, { measured: { ...measured, switch_ms } });
    const finished = await finishScale(context, unit, report) ?? report;
    if (backup) tellReplaced(context, unit, backup);
    return { ...finished, replaced_backup: backup && placeOf(backup) };
  });
}

/** There is one backup: the former source takes the place of the one before, whose bytes are given up. */
function tellReplaced({ events }: AgentContext, { name }: VolumeUnit, backup: Placement): void {
  events.add({
    type: "backup.replaced",
    volume: name,
    message: `The older backup of ${name} at ${backup.store} (${
      formatSize(backup.size_bytes)
    }) is deleted: the former source is the backup now`,
    data: placeOf(backup),
  });
}

function placeOf({ store, size_bytes }: Placement): { store: string; size_bytes: number } {
  return { store, size_bytes };
}

/** After the commit: what must be remembered, and the growth. */
async function finishScale(
  context: AgentContext,
  unit: VolumeUnit,
  report: CutoverReport | null,
): Promise<CutoverReport | null> {
  const { catalogue, clock } = context;
  const { name } = unit;
  const at_ms = report ? Date.parse(report.at) : clock.nowMs();
  catalogue.update(name, { mirror: null, last_scale_at_ms: at_ms, grow_pending: true });
  unit.mirror_trips = 0;
  unit.switch_trips = 0;
  const { size_bytes } = await settleGrowth(context, unit);
  await sweepLeftovers(context, unit);
  if (report && size_bytes < report.size_after_bytes) throw tookOver(name);
  if (unit.attachment && !await growUnit(context, unit)) {
    throw new PsmaError("sys/grow", unit.grow_fault ?? `Cannot grow ${name}`, {
      hint: "The volume is larger; its file system is not. It is tried again by itself.",
    });
  }
  return report;
}

function tookOver(name: string): PsmaError {
  return new PsmaError(
    "state/took-over",
    `Cannot grow ${name}: its new store was lost right after the switch, and it goes on on its backup`,
    { hint: "It is tried again when the plan asks for it." },
  );
}

/** Forgets the mirror and deletes its target. */
export async function giveUpMirror(
  context: AgentContext,
  unit: VolumeUnit,
  { target }: MirrorStatus,
): Promise<void> {
  const { catalogue, plane } = context;
  addLeftover(context, unit.name, target);
  await plane.command("cancelMirror", { volume: unit.name });
  catalogue.update(unit.name, { mirror: null });
  await sweepLeftovers(context, unit);
}

/** Deletes the backup. */
export async function dropBackup(context: AgentContext, unit: VolumeUnit): Promise<void> {
  const { plane, events } = context;
  const { backup } = await statusOf(context, unit, "retire");
  if (!backup) return;
  addLeftover(context, unit.name, backup);
  await plane.command("retireBackup", { volume: unit.name });
  await sweepLeftovers(context, unit);
  events.add({
    type: "backup.retired",
    volume: unit.name,
    message: `The backup of ${unit.name} at ${backup.store} is deleted`,
    data: { size_bytes: backup.size_bytes },
  });
}

/** @throws {PsmaError} state/closed while the volume is not open. */
export async function statusOf(
  { plane }: AgentContext,
  unit: VolumeUnit,
  verb: string,
): Promise<VolumeStatus> {
  unit.needOpen(verb);
  return await plane.command("volumeStatus", { name: unit.name });
}

/** What to say to somebody who wants to `verb` a volume that has no mirror. */
export function noMirror({ name }: VolumeUnit, verb: string): PsmaError {
  return new PsmaError("state/no-mirror", `Cannot ${verb} ${name}: it has no mirror`, {
    hint: `Start one: psma mirror start ${name}`,
  });
}
