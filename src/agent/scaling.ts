/**
 * Mirrors, scaling events and switches, as work that survives a restart: the intent is durable before the
 * first step, one at a time a volume, and what cannot be is refused before anything begins.
 */
import { formatSize, PsmaError, toPsmaError } from "../core/mod.ts";
import type { VolumeStatus } from "../dataplane/mod.ts";
import type { Intent } from "./catalogue.ts";
import type { AgentContext } from "./context.ts";
import { needGrowth } from "./growth.ts";
import { STOPPING } from "./operations.ts";
import { carryOutRollback, needWayBack } from "./rollback.ts";
import { carryOut, dropBackup, giveUpMirror, noMirror, statusOf } from "./scaling_steps.ts";
import type { Operation, Wish } from "./views.ts";
import type { VolumeUnit } from "./volume_unit.ts";

/** Begins a mirror of this size. @throws {PsmaError} state/busy, state/mirror, usage/size */
export async function beginMirror(
  context: AgentContext,
  unit: VolumeUnit,
  size_bytes: number,
  wish: Wish = {},
): Promise<Operation> {
  const status = await statusFor(context, unit, "mirror");
  if (status.mirror && status.mirror.state !== "failed") {
    throw new PsmaError("state/mirror", `Cannot mirror ${unit.name}: it is mirrored already`, {
      hint:
        `psma mirror status ${unit.name} shows it; psma mirror cancel ${unit.name} gives it up.`,
    });
  }
  checkSize(unit, status, size_bytes, "mirror");
  return begin(context, unit, { verb: "mirror", size_bytes, ...deadlineFrom(context, wish) });
}

/** Begins a scaling event. @throws {PsmaError} state/busy, state/paused, state/mirror, usage/size, state/size, sys/permission */
export async function beginScale(
  context: AgentContext,
  unit: VolumeUnit,
  size_bytes: number,
  wish: Wish = {},
): Promise<Operation> {
  const status = await statusFor(context, unit, "scale");
  needGrowth(unit, "scale");
  checkSize(unit, status, size_bytes, "scale");
  if (size_bytes === status.size_bytes) {
    throw new PsmaError(
      "state/size",
      `Cannot scale ${unit.name}: its size is ${formatSize(size_bytes)} already`,
    );
  }
  const mirror = status.mirror;
  refusePaused(unit, mirror, "scale");
  if (mirror && mirror.state !== "failed" && mirror.target.size_bytes < size_bytes) {
    throw new PsmaError(
      "state/mirror",
      `Cannot scale ${unit.name}: its mirror has ${formatSize(mirror.target.size_bytes)}, ` +
        `${formatSize(size_bytes)} are asked for`,
      { hint: `psma mirror cancel ${unit.name}, then try again.` },
    );
  }
  return begin(context, unit, { verb: "scale", size_bytes, ...deadlineFrom(context, wish) });
}

/** Begins a switch to the mirror that is there. @throws {PsmaError} state/busy, state/paused, state/no-mirror, sys/permission */
export async function beginSwitch(
  context: AgentContext,
  unit: VolumeUnit,
  wish: Wish = {},
): Promise<Operation> {
  const { mirror } = await statusFor(context, unit, "switch");
  if (!mirror) throw noMirror(unit, "switch");
  refusePaused(unit, mirror, "switch");
  needGrowth(unit, "switch");
  const { size_bytes } = mirror.target;
  return begin(context, unit, { verb: "switch", size_bytes, ...deadlineFrom(context, wish) });
}

/**
 * Begins the way back to the backup. @throws {PsmaError} state/busy, state/no-backup, state/mirror,
 * state/paused, state/backup, state/would-lose, state/attached
 */
export async function beginRollback(
  context: AgentContext,
  unit: VolumeUnit,
  discard_changes: boolean,
): Promise<Operation> {
  const status = await statusFor(context, unit, "roll back");
  needWayBack(context, unit, status, discard_changes);
  const { active: { store, store_volume }, size_bytes } = status, from = { store, store_volume };
  return begin(context, unit, { verb: "rollback", size_bytes, from, discard_changes });
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

/**
 * Gives the mirror up, and its target; a mirror that follows the backup ends, and the backup stays.
 * @throws {PsmaError} state/no-mirror, state/busy
 */
export async function cancelMirror(context: AgentContext, unit: VolumeUnit): Promise<void> {
  const status = await statusOf(context, unit, "cancel");
  if (!status.mirror && status.backup_status?.mirror) {
    await context.plane.command("cancelMirror", { volume: unit.name });
    return;
  }
  if (!status.mirror) throw noMirror(unit, "cancel");
  await giveUpMirror(context, unit, status.mirror);
}

function deadlineFrom({ clock }: AgentContext, { deadline_ms }: Wish): Pick<Intent, "deadline_at"> {
  if (deadline_ms === undefined) return {};
  return { deadline_at: new Date(clock.nowMs() + deadline_ms).toISOString() };
}

function begin(
  context: AgentContext,
  unit: VolumeUnit,
  order: Omit<Intent, "operation_id">,
): Operation {
  const { catalogue, operations } = context;
  refuseSecond(context, unit, order.verb);
  const intent: Intent = { ...order, operation_id: operations.newId() };
  catalogue.update(unit.name, { intent });
  return run(context, unit, intent);
}

function run(context: AgentContext, unit: VolumeUnit, intent: Intent): Operation {
  const { operations, catalogue, events, stopping } = context;
  const { verb, size_bytes, operation_id: id } = intent;
  const { name } = unit;
  return operations.start({ id, verb, volume: name }, async () => {
    try {
      const result = verb === "rollback"
        ? await carryOutRollback(context, unit, intent)
        : await carryOut(context, unit, { verb, size_bytes });
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

/** The volume's status, when nothing else is under way. */
async function statusFor(
  context: AgentContext,
  unit: VolumeUnit,
  verb: string,
): Promise<VolumeStatus> {
  refuseSecond(context, unit, verb);
  return await statusOf(context, unit, verb);
}

/** What nobody resumes would be waited for without end. */
function refusePaused({ name }: VolumeUnit, mirror: VolumeStatus["mirror"], verb: string) {
  if (mirror?.state !== "paused") return;
  throw new PsmaError("state/paused", `Cannot ${verb} ${name}: its mirror is paused`, {
    hint: `Let it go on first: psma mirror resume ${name}`,
  });
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
