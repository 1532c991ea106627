/**
 * Opening, attaching, detaching and deleting volumes. Each step may be repeated: a restart goes through the
 * same ones and finds done what was done.
 */
import { PsmaError, toPsmaError } from "../core/mod.ts";
import {
  type AttachVolume,
  attachVolume,
  detachAttachment,
  growAttachment,
  isLeftAttached,
  type Placement,
  releaseVolume,
  type VolumeStatus,
} from "../dataplane/mod.ts";
import { type AgentContext, samePlace, storeNamed } from "./context.ts";
import type { VolumeUnit } from "./volume_unit.ts";

/** Opens a volume in the data plane, making its first bytes at its store where there are none. */
export async function openUnit(context: AgentContext, unit: VolumeUnit): Promise<void> {
  const { catalogue, plane, stores } = context;
  const { name, config, directory } = unit;
  if (unit.open) return;
  let entry = catalogue.get(name);
  if (!entry.begun && entry.initial === null) {
    const initial = await storeNamed(stores, config.store).createVolume({
      name,
      size_bytes: config.size_bytes,
      idempotency_key: `${catalogue.agent}/${name}`,
    }).catch((error) => {
      throw isTaken(error) ? unknownBytes(context, name, config.store, error) : error;
    });
    entry = catalogue.update(name, { initial });
  }
  const { allocated_bytes } = await plane.command("openVolume", {
    name,
    directory,
    max_size_bytes: config.max_size_bytes,
    ...(entry.begun || entry.initial === null ? {} : { initial: entry.initial }),
  });
  if (!entry.begun) catalogue.update(name, { begun: true });
  unit.allocated_at_store = allocated_bytes === null ? null : undefined;
  unit.open = true;
  unit.state = "detached";
  unit.reason = undefined;
}

function isTaken(error: unknown): boolean {
  return error instanceof PsmaError && error.code === "state/exists";
}

/** A store has this name and this agent never asked for it: most likely its state directory was lost. */
function unknownBytes(
  { config }: AgentContext,
  name: string,
  store: string,
  cause: unknown,
): PsmaError {
  return new PsmaError(
    "state/unknown-bytes",
    `Cannot make ${name}: store ${store} holds bytes of that name which ${config.state_dir} does not know`,
    {
      hint: "They may be the only copy: do not delete them. Restore the state directory from its " +
        "backup; if they belong to something else, choose another name.",
      cause,
    },
  );
}

/** Serves a volume as it is configured. An attached one stays as it is. */
export async function attachUnit(context: AgentContext, unit: VolumeUnit): Promise<void> {
  await unit.exclusively("attach", async () => {
    const { catalogue, events } = context;
    const { name } = unit;
    catalogue.update(name, { desired: "attached" });
    if (unit.attachment) return;
    try {
      await openUnit(context, unit);
      unit.attachment = await attachVolume(attaching(context, unit));
    } catch (error) {
      unit.fail(toPsmaError(error).message);
      throw error;
    }
    unit.state = "attached";
    unit.reason = undefined;
    const [exported] = unit.attachment.exports;
    const at = exported?.mount ?? exported?.device ??
      (exported?.frontend === "nbd" ? exported.uri : undefined);
    events.add({ type: "volume.attached", volume: name, message: `${name} is served at ${at}` });
    if (catalogue.get(name).grow_pending) await growUnit(context, unit);
  });
}

function attaching({ plane, log }: AgentContext, unit: VolumeUnit): AttachVolume {
  const { name: volume, config, directory } = unit;
  const { frontend, device, filesystem, queue_depth: queueDepth } = config;
  return { plane, volume, frontend, device, directory, filesystem, queueDepth, log };
}

/**
 * Stops serving; the volume stays open and its mirror goes on.
 * @param options.force cuts off who uses it, also who still waits for what a killed agent served and this one
 * could not take over. @throws {PsmaError} state/busy when somebody does.
 */
export async function detachUnit(
  context: AgentContext,
  unit: VolumeUnit,
  { force = false }: { force?: boolean } = {},
): Promise<void> {
  await unit.exclusively("detach", async () => {
    const { catalogue, plane, log, events } = context;
    const { name, attachment } = unit;
    if (attachment) await detachAttachment({ plane, attachment, log, force });
    else if (isLeftAttached(unit.directory)) await releaseLeft(context, unit, force);
    unit.attachment = undefined;
    if (unit.open) unit.state = "detached";
    catalogue.update(name, { desired: "detached" });
    if (attachment) {
      events.add({
        type: "volume.detached",
        volume: name,
        message: `${name} is not served any more`,
      });
    }
  });
}

async function releaseLeft(context: AgentContext, unit: VolumeUnit, force: boolean): Promise<void> {
  const { name, reason } = unit;
  if (force) return await releaseVolume(attaching(context, unit));
  throw new PsmaError(
    "state/busy",
    `Cannot detach ${name}: its users wait for it since an agent was killed`,
    {
      hint: `It goes on when this is over: ${reason ?? "the take-over"}. ` +
        `To fail their I/O instead: psma volume detach ${name} --force`,
    },
  );
}

/**
 * Stops serving because the agent ends; what is asked for is not changed. Never throws. When the data plane has
 * died all stays as a kill would leave it, for the next agent to take over: an unmount would wait for ever.
 */
export async function closeUnit(context: AgentContext, unit: VolumeUnit): Promise<void> {
  const { plane, log } = context;
  const { name, attachment } = unit;
  if (plane.ended) return;
  try {
    if (attachment) await detachAttachment({ plane, attachment, log, force: true });
    unit.attachment = undefined;
    if (unit.open) await plane.command("closeVolume", { name });
    unit.open = false;
  } catch (error) {
    log.error("a volume was not closed in order", {
      volume: name,
      reason: toPsmaError(error).message,
    });
  }
}

/**
 * Lets the loop device and the file system follow the volume's size. What fails is kept as the unit's
 * `grow_fault` and tried again later: the volume itself is larger already.
 */
export async function growUnit(context: AgentContext, unit: VolumeUnit): Promise<boolean> {
  const { catalogue, events, plane } = context;
  const { name, attachment, config } = unit;
  if (!attachment) return false;
  try {
    const growMounted = config.filesystem?.grow === "auto";
    const { device_bytes, filesystem_bytes } = await growAttachment(plane, attachment, {
      growMounted,
    });
    catalogue.update(name, { grow_pending: false });
    unit.grow_fault = undefined;
    events.add({
      type: "volume.grown",
      volume: name,
      message: filesystem_bytes === null
        ? `${name} shows its new size`
        : `${name} and its file system show their new size`,
      data: { device_bytes, filesystem_bytes },
    });
    return true;
  } catch (error) {
    const { code, message, hint } = toPsmaError(error);
    if (unit.grow_fault !== message) {
      events.add({
        type: "volume.grow-failed",
        severity: "error",
        volume: name,
        message: hint === undefined ? message : `${message}. ${hint}`,
        data: { code },
      });
    }
    unit.grow_fault = message;
    return false;
  }
}

/** Deletes a volume and its bytes at all stores. @throws {PsmaError} state/attached, state/configured */
export async function deleteUnit(context: AgentContext, unit: VolumeUnit): Promise<void> {
  const { catalogue, config } = context;
  const { name } = unit;
  if (unit.attachment || isLeftAttached(unit.directory)) {
    throw new PsmaError("state/attached", `Cannot delete ${name}: it is attached`, {
      hint: `Detach it first: psma volume detach ${name}`,
    });
  }
  if (config.volumes[name]) {
    throw new PsmaError("state/configured", `Cannot delete ${name}: the configuration names it`, {
      hint: "Remove it from the configuration, restart the agent, and delete it then.",
    });
  }
  await unit.exclusively("delete", async () => {
    const status = unit.open ? await context.plane.command("volumeStatus", { name }) : undefined;
    const entry = catalogue.get(name);
    const places = [
      ...entry.leftovers,
      ...placesOf(status),
      ...(status || entry.initial === null ? [] : [entry.initial]),
      ...(entry.mirror?.placement ? [entry.mirror.placement] : []),
    ];
    catalogue.update(name, { desired: "deleted", leftovers: distinct(places), intent: null });
    await finishDelete(context, unit);
  });
}

/** Goes on with a deletion that is on record. */
export async function finishDelete(context: AgentContext, unit: VolumeUnit): Promise<void> {
  const { catalogue, plane, stores, events } = context;
  const { name, directory } = unit;
  if (unit.open) await plane.command("closeVolume", { name });
  unit.open = false;
  for (const { store, store_volume } of catalogue.get(name).leftovers) {
    await storeNamed(stores, store).delete(store_volume);
  }
  await Deno.remove(directory, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
  catalogue.remove(name);
  events.add({
    type: "volume.deleted",
    volume: name,
    message: `${name} and its bytes are deleted`,
  });
}

/** Deletes what the volume has left behind at stores, but never what it uses. Failures are tried again later. */
export async function sweepLeftovers(context: AgentContext, unit: VolumeUnit): Promise<void> {
  const { catalogue, plane, stores, log } = context;
  const { name } = unit;
  const { leftovers } = catalogue.get(name);
  if (leftovers.length === 0 || !unit.open) return;
  const used = placesOf(await plane.command("volumeStatus", { name }));
  for (const place of leftovers) {
    if (used.some((one) => samePlace(one, place))) continue;
    try {
      await storeNamed(stores, place.store).delete(place.store_volume);
      const rest = catalogue.get(name).leftovers.filter((one) => !samePlace(one, place));
      catalogue.update(name, { leftovers: rest });
    } catch (error) {
      const { store, store_volume } = place;
      log.warn("a leftover stays", { store, store_volume, reason: toPsmaError(error).message });
    }
  }
}

/** Puts a piece on the list of leftovers, durably, before anything lets go of it. */
export function addLeftover({ catalogue }: AgentContext, name: string, place: Placement): void {
  catalogue.update(name, { leftovers: distinct([...catalogue.get(name).leftovers, place]) });
}

function placesOf(status: VolumeStatus | undefined): Placement[] {
  if (!status) return [];
  const { active, backup, mirror } = status;
  return [active, backup, mirror?.target ?? null].filter((place) => place !== null);
}

function distinct(places: readonly Placement[]): Placement[] {
  return places.filter((place, index) =>
    places.findIndex((other) => samePlace(other, place)) === index
  );
}
