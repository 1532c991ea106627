/**
 * What is done to loop devices and mounts of a served volume, in a process of its own.
 *
 * A thread that waits for a device cannot be killed, and a process that dies keeps its descriptors until its
 * last thread ends. Were that thread ours, a killed agent would wait for a device that only it can serve, with
 * the server's descriptor held open by the wait: for ever. In a process of its own the wait ends with an I/O
 * error as soon as the agent is gone. So the agent's process itself never touches a served device or file.
 */
import { PsmaError, systemClock, toPsmaError } from "../../core/mod.ts";
import {
  attachLoop,
  detachLoop,
  type DeviceRange,
  findOwners,
  growLoop,
  type RangeOwners,
  removeStale,
} from "../../sys/mod.ts";
import { aloneWith } from "./claim.ts";
import { lastingUsers, soon, syncDevice } from "./device_users.ts";
import {
  busyError,
  growMounted,
  type MountedFilesystem,
  putFilesystem,
  unmount,
} from "./filesystem.ts";
import type { HostTaskHandlers } from "./task_handlers.ts";
import { NBD_HANDLERS, type NbdHostTasks } from "./tasks_nbd.ts";
import { UBLK_HANDLERS, type UblkHostTasks } from "./tasks_ublk.ts";
import type { Outcome } from "../messages.ts";

export interface HostTasks extends NbdHostTasks, UblkHostTasks {
  /** A loop device on the served file, and the file system on it. Undone when a step fails. */
  attach: {
    argument: { volume: string; path: string; filesystem: MountedFilesystem | null };
    answer: { device: string };
  };
  /** The device takes its file's new size, then the file system where there is one. */
  grow: {
    argument: { device: string; path: string; mount: string | null };
    answer: { device_bytes: number; filesystem_bytes: number | null };
  };
  /** @throws {PsmaError} state/busy while somebody uses it, unless forced. @returns what was forced. */
  detach: {
    argument: {
      volume: string;
      path: string;
      device: string;
      mount: string | null;
      force: boolean;
    };
    answer: { forced: string[] };
  };
  /** Which files of a mounted file system own ranges of its device. */
  findOwners: {
    argument: { mount: string; ranges: readonly DeviceRange[]; within_ms: number };
    answer: readonly RangeOwners[];
  };
  /** Removes what a killed process left on a served file's path. */
  clean: {
    argument: { path: string };
    answer: { mounts: readonly string[]; loops: readonly string[] };
  };
}

export type HostTaskName = keyof HostTasks;

/** Does one task in this process. @throws {PsmaError} usage/host-task, and what the task throws. */
export function doHostTask(name: string, argument: unknown): Promise<unknown> {
  if (!Object.hasOwn(HANDLERS, name)) {
    throw new PsmaError("usage/host-task", `Cannot do ${name}: there is no such host task`);
  }
  const handler = HANDLERS[name as HostTaskName] as (argument: unknown) => Promise<unknown>;
  return handler(argument);
}

/** The host process's life: one task, its argument on standard input, its outcome on standard output. */
export async function serveHostTask(name: string): Promise<void> {
  const argument: unknown = await new Response(Deno.stdin.readable).json();
  let outcome: Outcome<unknown>;
  try {
    outcome = { ok: true, value: await doHostTask(name, argument) };
  } catch (error) {
    outcome = { ok: false, error: toPsmaError(error).toRecord() };
  }
  const bytes = new TextEncoder().encode(JSON.stringify(outcome));
  const writer = Deno.stdout.writable.getWriter();
  await writer.write(bytes);
  await writer.close();
}

const HANDLERS: HostTaskHandlers<HostTasks> = {
  ...NBD_HANDLERS,
  ...UBLK_HANDLERS,

  async attach({ volume, path, filesystem }) {
    using _alone = await aloneWith(path);
    await using undo = new AsyncDisposableStack();
    const { device } = await attachLoop({ path });
    undo.defer(async () => void await detachLoop(device));
    if (filesystem !== null) {
      await putFilesystem({ volume, device, filesystem });
    }
    undo.move();
    return { device };
  },

  async grow({ device, path, mount }) {
    using _alone = await aloneWith(path);
    const device_bytes = await growLoop(device, path);
    return await growMounted(mount, device_bytes);
  },

  async detach({ volume, path, device, mount, force }) {
    using _alone = await aloneWith(path);
    const forced: string[] = [];
    if (mount !== null && unmount(volume, mount, force)) forced.push(mount);
    // Asked before: told to go while it is in use, a loop device goes with its last user.
    const users = await lastingUsers(device);
    if (users.length > 0 && !force) throw busyError(volume, device, users);
    if (users.length > 0) trySync(device);
    if (await letGo(device)) return { forced };
    if (!force) throw busyError(volume, device);
    return { forced: [...forced, device] };
  },

  findOwners(search) {
    return Promise.resolve(findOwners({ ...search, clock: systemClock }));
  },

  async clean({ path }) {
    // First without waiting: a task that a killed agent had begun may wait for the very file that nobody serves.
    const before = await removeStale(path);
    using _alone = await aloneWith(path);
    const after = await removeStale(path);
    return {
      mounts: [...before.mounts, ...after.mounts],
      loops: [...before.loops, ...after.loops],
    };
  },
};

function trySync(device: string): void {
  try {
    syncDevice(device);
  } catch {
    // Its server is gone: its users have errors already.
  }
}

/** Device managers open a device for a moment when it changes: that is not a user. @returns whether it is free. */
function letGo(device: string): Promise<boolean> {
  return soon(() => detachLoop(device));
}
