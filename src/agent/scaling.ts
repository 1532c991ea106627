/**
 * Mirrors, scaling events and switches, as work that survives a restart: the intent is durable before the
 * first step, and each step finds out for itself what was done already.
 *
 * Order of a scaling event: a larger volume at the mirror's store, first sync, converge, cutover, growth.
 * The data plane refuses to cut over to a mirror that was not verified; nothing here can get around that.
 */
import { formatSize, PsmaError, toPsmaError } from "../core/mod.ts";
import type { CutoverReport, MirrorStatus, VolumeStatus } from "../dataplane/mod.ts";
import type { Intent, MirrorOrder } from "./catalogue.ts";
import { type AgentContext, pause, storeNamed } from "./context.ts";
import { STOPPING } from "./operations.ts";
import { addLeftover, growUnit, sweepLeftovers } from "./serving.ts";
import type { Operation } from "./views.ts";
import type { VolumeUnit } from "./volume_unit.ts";

const POLL_MS = 250;
const CONVERGE_WITHIN_MS = 120_000;
const ID_BYTES = 6;
/** A rate from less than this says more about latency than about throughput. */
const RATE_SAMPLE_BYTES = 16 * 1024 * 1024;
/** How much a new measurement of the rate counts against the earlier ones. */
const RATE_WEIGHT = 0.5;
const SYNCED: readonly string[] = ["tracking", "resyncing", "converging", "ready"];

/** Begins a mirror of this size. @throws {PsmaError} state/busy, state/mirror, usage/size */
export async function beginMirror(
  context: AgentContext,
  unit: VolumeUnit,
  size_bytes: number,
): Promise<Operation> {
  const status = await statusFor(context, unit, "mirror");
  if (status.mirror && status.mirror.state !== "failed") {
    throw new PsmaError("state/mirror", `Cannot mirror ${unit.name}: it is mirrored already`, {
      hint:
        `psma mirror status ${unit.name} shows it; psma mirror cancel ${unit.name} gives it up.`,
    });
  }
  checkSize(unit, status, size_bytes, "mirror");
  return begin(context, unit, "mirror", size_bytes);
}

/** Begins a scaling event. @throws {PsmaError} state/busy, state/mirror, usage/size, state/size */
export async function beginScale(
  context: AgentContext,
  unit: VolumeUnit,
  size_bytes: number,
): Promise<Operation> {
  const status = await statusFor(context, unit, "scale");
  checkSize(unit, status, size_bytes, "scale");
  if (size_bytes === status.size_bytes) {
    throw new PsmaError(
      "state/size",
      `Cannot scale ${unit.name}: its size is ${formatSize(size_bytes)} already`,
    );
  }
  const mirror = status.mirror;
  if (mirror && mirror.state !== "failed" && mirror.target.size_bytes < size_bytes) {
    throw new PsmaError(
      "state/mirror",
      `Cannot scale ${unit.name}: its mirror has ${formatSize(mirror.target.size_bytes)}, ` +
        `${formatSize(size_bytes)} are asked for`,
      { hint: `psma mirror cancel ${unit.name}, then try again.` },
    );
  }
  return begin(context, unit, "scale", size_bytes);
}

/** Begins a switch to the mirror that is there. @throws {PsmaError} state/busy, state/no-mirror */
export async function beginSwitch(context: AgentContext, unit: VolumeUnit): Promise<Operation> {
  const { mirror } = await statusFor(context, unit, "switch");
  if (!mirror) throw noMirror(unit, "switch");
  return begin(context, unit, "switch", mirror.target.size_bytes);
}

/** Begins the deletion of the backup. @throws {PsmaError} state/no-backup */
export async function beginRetire(context: AgentContext, unit: VolumeUnit): Promise<Operation> {
  const { backup } = await statusFor(context, unit, "retire");
  if (!backup) {
    throw new PsmaError(
      "state/no-backup",
      `Cannot retire the backup of ${unit.name}: there is none`,
    );
  }
  return context.operations.start({ verb: "retire", volume: unit.name }, async () => {
    await unit.exclusively("retire", () => dropBackup(context, unit));
    return { store: backup.store, size_bytes: backup.size_bytes };
  });
}

/** Goes on with what was under way when the agent ended. */
export function resumeIntent(context: AgentContext, unit: VolumeUnit): void {
  const { intent } = context.catalogue.get(unit.name);
  if (!intent) return;
  const message = `Going on with the ${intent.verb} of ${unit.name}`;
  context.events.add({ type: `${intent.verb}.resumed`, volume: unit.name, message });
  run(context, unit, intent);
}

/** Gives the mirror up, and its target. @throws {PsmaError} state/no-mirror, state/busy */
export async function cancelMirror(context: AgentContext, unit: VolumeUnit): Promise<void> {
  const status = await statusOf(context, unit, "cancel");
  if (!status.mirror) throw noMirror(unit, "cancel");
  await giveUpMirror(context, unit, status.mirror);
}

function begin(
  context: AgentContext,
  unit: VolumeUnit,
  verb: Intent["verb"],
  size_bytes: number,
): Operation {
  const { catalogue, operations } = context;
  refuseSecond(context, unit, verb);
  const intent: Intent = { verb, size_bytes, operation_id: operations.newId() };
  catalogue.update(unit.name, { intent });
  return run(context, unit, intent);
}

function run(context: AgentContext, unit: VolumeUnit, intent: Intent): Operation {
  const { operations, catalogue, events, stopping } = context;
  const { verb, operation_id: id } = intent;
  const { name } = unit;
  return operations.start({ id, verb, volume: name }, async () => {
    try {
      const result = await carryOut(context, unit, intent);
      catalogue.update(name, { intent: null });
      return result;
    } catch (error) {
      if (stopping.aborted) {
        throw new PsmaError(STOPPING, `Cannot ${verb} ${name}: the agent is stopping`, {
          cause: error,
        });
      }
      catalogue.update(name, { intent: null });
      const { code, message } = toPsmaError(error);
      events.add({
        type: `${verb}.failed`,
        severity: "error",
        volume: name,
        message,
        data: { code },
      });
      throw error;
    }
  });
}

async function carryOut(
  context: AgentContext,
  unit: VolumeUnit,
  { verb, size_bytes }: Intent,
): Promise<CutoverReport | MirrorStatus | null> {
  const status = await statusOf(context, unit, verb);
  if (verb !== "mirror" && !status.mirror && status.size_bytes >= size_bytes) {
    return await finishScale(context, unit, status.last_cutover);
  }
  if (verb === "switch") {
    if (!status.mirror) throw noMirror(unit, verb);
  } else {
    await unit.exclusively(verb, () => ensureMirror(context, unit, size_bytes));
  }
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
  const order: MirrorOrder = known?.size_bytes === size_bytes
    ? known
    : { id: `m-${rng.hex(ID_BYTES)}`, store: config.mirror.store, size_bytes, placement: null };
  catalogue.update(name, { mirror: order });
  events.add({
    type: "mirror.requested",
    volume: name,
    message: `A volume of ${formatSize(size_bytes)} is asked for at ${order.store}`,
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
      max_rate_bytes_per_s: config.mirror.max_rate_bytes_per_s,
      write_through_timeout_ms: config.mirror.write_through_timeout_ms,
      resync_interval_ms: config.mirror.rpo_ms,
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
    epoch: status.epoch,
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
): Promise<CutoverReport> {
  const { plane, clock, catalogue } = context;
  const volume = unit.name;
  return await unit.exclusively(verb, async () => {
    const began_ms = clock.monotonicMs();
    // The commit puts the present source in the backup's place; until then the old one stays.
    const { backup } = await plane.command("volumeStatus", { name: volume });
    if (backup) addLeftover(context, volume, backup);
    await plane.command("convergeMirror", { volume, timeout_ms: CONVERGE_WITHIN_MS });
    catalogue.update(volume, { grow_pending: true });
    const report = await plane.command("switchVolume", { volume, timeout_ms: CONVERGE_WITHIN_MS })
      .catch((error) => {
        catalogue.update(volume, { grow_pending: false });
        throw error;
      });
    // Where the new backend cannot tell what is allocated, its store is asked at the next evaluation.
    const { allocated_bytes } = await plane.command("volumeStatus", { name: volume });
    unit.allocated_at_store = allocated_bytes === null ? null : undefined;
    const { measured } = catalogue.get(volume);
    const switch_ms = Math.round(clock.monotonicMs() - began_ms);
    catalogue.update(volume, { measured: { ...measured, switch_ms } });
    return await finishScale(context, unit, report) ?? report;
  });
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
  await sweepLeftovers(context, unit);
  if (unit.attachment && !await growUnit(context, unit)) {
    throw new PsmaError("sys/grow", unit.grow_fault ?? `Cannot grow ${name}`, {
      hint: "The volume is larger; its file system is not. It is tried again by itself.",
    });
  }
  return report;
}

async function giveUpMirror(
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

async function dropBackup(context: AgentContext, unit: VolumeUnit): Promise<void> {
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

/** The volume's status, when nothing else is under way. */
async function statusFor(
  context: AgentContext,
  unit: VolumeUnit,
  verb: string,
): Promise<VolumeStatus> {
  refuseSecond(context, unit, verb);
  return await statusOf(context, unit, verb);
}

async function statusOf(
  { plane }: AgentContext,
  unit: VolumeUnit,
  verb: string,
): Promise<VolumeStatus> {
  unit.needOpen(verb);
  return await plane.command("volumeStatus", { name: unit.name });
}

function refuseSecond({ catalogue }: AgentContext, { name }: VolumeUnit, verb: string) {
  const { intent } = catalogue.get(name);
  if (!intent) return;
  throw new PsmaError("state/busy", `Cannot ${verb} ${name}: a ${intent.verb} is under way`, {
    hint: `GET /v1/operations/${intent.operation_id} shows it.`,
  });
}

function checkSize(unit: VolumeUnit, status: VolumeStatus, size_bytes: number, verb: string) {
  const { name, config } = unit;
  if (!Number.isSafeInteger(size_bytes) || size_bytes < status.size_bytes) {
    throw new PsmaError(
      "usage/size",
      `Cannot ${verb} ${name}: ${formatSize(size_bytes)} is below its size of ${
        formatSize(status.size_bytes)
      }`,
      { hint: "Volumes never shrink." },
    );
  }
  if (size_bytes <= config.max_size_bytes) return;
  throw new PsmaError(
    "usage/size",
    `Cannot ${verb} ${name}: ${formatSize(size_bytes)} is above its cap of ${
      formatSize(config.max_size_bytes)
    }`,
    { hint: "Raise max_size in the configuration." },
  );
}

function noMirror({ name }: VolumeUnit, verb: string): PsmaError {
  return new PsmaError("state/no-mirror", `Cannot ${verb} ${name}: it has no mirror`, {
    hint: `Start one: psma mirror start ${name}`,
  });
}
