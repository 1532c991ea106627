/**
 * What is done to ublk devices of a served volume, in a process of its own (see `tasks.ts`): the driver's
 * commands that wait for the device's I/O, and the file system on it.
 */
import { PsmaError } from "../../core/mod.ts";
import { SECTOR_BYTES, UBLK_FEATURE, UBLK_STATE } from "../../codec/mod.ts";
import { deviceBytes, findUblk, ublkBlockPath, UblkControlRing } from "../../sys/mod.ts";
import { aloneWith } from "./claim.ts";
import { lastingUsers, soon, syncDevice } from "./device_users.ts";
import {
  busyError,
  growMounted,
  isMountedFrom,
  type MountedFilesystem,
  putFilesystem,
  unmount,
  unmountAllFrom,
} from "./filesystem.ts";
import type { HostTaskHandlers } from "./task_handlers.ts";

/** A device's cookie crosses as hexadecimal text: JSON has no 64-bit numbers. */
type Cookie = string;

export interface UblkHostTasks {
  /** Makes a device that is not started yet. @returns its number and tags, and how large it will be. */
  ublkAdd: {
    argument: {
      cookie: Cookie;
      depth: number;
      max_io_bytes: number;
      size_bytes: number;
      max_size_bytes: number;
      sector_bytes: number;
      read_only: boolean;
    };
    answer: { device: number; depth: number };
  };
  /**
   * Starts a device, or ends its recovery, once `pid` serves it, and mounts what belongs on it. A device that
   * is live already is only mounted.
   */
  ublkStart: {
    argument: {
      volume: string;
      /** The volume's own: tasks take turns by a lock in it. */
      directory: string;
      device: number;
      pid: number;
      size_bytes: number;
      filesystem: MountedFilesystem | null;
    };
    answer: { path: string };
  };
  /** Begins to take over a device that lost its server. @returns null where there is none to go on with. */
  ublkRecover: {
    argument: { cookie: Cookie; pid: number };
    answer: { device: number; depth: number } | null;
  };
  /** The device takes the volume's size, where the driver can, then the file system where there is one. */
  ublkGrow: {
    argument: { volume: string; path: string; size_bytes: number; mount: string | null };
    answer: { device_bytes: number; filesystem_bytes: number | null };
  };
  /** Unmounts and stops. @throws {PsmaError} state/busy while somebody uses it, unless forced. */
  ublkStop: {
    argument: { volume: string; path: string; mount: string | null; force: boolean };
    answer: { forced: string[] };
  };
  /** Deletes a device whose server has closed its end. One that is still in use goes with its last user. */
  ublkDelete: { argument: { path: string }; answer: null };
  /** Removes a device of ours that nobody serves, and what is mounted from it. */
  ublkClean: { argument: { cookie: Cookie }; answer: { removed: string[] } };
}

const BLOCK_BYTES = 4096;
/** Of one discard or write-zeroes: short enough to be answered soon where zeros have to be written. */
const MAX_DISCARD_BYTES = 256 << 20;

export const UBLK_HANDLERS: HostTaskHandlers<UblkHostTasks> = {
  ublkAdd({ cookie, depth, max_io_bytes, size_bytes, max_size_bytes, sector_bytes, read_only }) {
    using control = new UblkControlRing();
    const bytes = canResize(control) ? size_bytes : Math.max(size_bytes, max_size_bytes);
    const added = control.add({ depth, maxIoBytes: max_io_bytes, cookie: fromText(cookie) });
    const { device } = added;
    try {
      control.setParameters(device, {
        readOnly: read_only,
        logicalBlockBytes: sector_bytes,
        physicalBlockBytes: Math.max(sector_bytes, BLOCK_BYTES),
        maxIoBytes: Math.min(added.maxIoBytes, max_io_bytes),
        sizeBytes: wholeBlocks(bytes, sector_bytes),
        discardGranularityBytes: Math.max(sector_bytes, BLOCK_BYTES),
        maxDiscardBytes: MAX_DISCARD_BYTES,
      });
    } catch (error) {
      control.delete(device);
      throw error;
    }
    return Promise.resolve({ device, depth: added.depth });
  },

  async ublkStart({ volume, directory, device, pid, size_bytes, filesystem }) {
    using control = new UblkControlRing();
    const path = ublkBlockPath(device);
    const state = control.info(device)?.state;
    if (state === UBLK_STATE.dead) control.start(device, pid);
    else if (state !== UBLK_STATE.live) control.endRecovery(device, pid);
    if (filesystem === null) return { path };
    // Only now: a killed agent's task that is making the file system can go on from here, and is waited for.
    using _alone = await aloneWith(`${directory}/device`);
    if (!isMountedFrom(path, filesystem.mount)) {
      const sizeBytes = Math.min(size_bytes, deviceBytes(path));
      await putFilesystem({ volume, device: path, filesystem, sizeBytes });
    }
    return { path };
  },

  async ublkRecover({ cookie, pid }) {
    using control = new UblkControlRing();
    const found = findUblk(control, fromText(cookie));
    if (found === undefined || found.state === UBLK_STATE.dead) return null;
    const { device, depth } = found;
    const servedByUs = found.state === UBLK_STATE.live && found.pid === pid;
    if (!servedByUs) await control.startRecovery(device);
    return { device, depth };
  },

  async ublkGrow({ volume, path, size_bytes, mount }) {
    using control = new UblkControlRing();
    const before = deviceBytes(path);
    if (size_bytes > before + BLOCK_BYTES && !canResize(control)) {
      throw new PsmaError(
        "state/device-size",
        `Cannot grow ${volume} at ${path}: this kernel's ublk keeps a device's size, ${before} bytes`,
        { hint: "Detach and attach the volume: its device is then made for its new max_size." },
      );
    }
    if (canResize(control)) {
      control.updateSize(numberOf(path), size_bytes - size_bytes % BLOCK_BYTES);
    }
    const device_bytes = Math.min(size_bytes, deviceBytes(path));
    return await growMounted(mount, device_bytes, { sizeBytes: device_bytes });
  },

  async ublkStop({ volume, path, mount, force }) {
    const forced: string[] = [];
    if (mount !== null && unmount(volume, mount, force)) forced.push(mount);
    const users = await lastingUsers(path);
    if (users.length > 0 && !force) throw busyError(volume, path, users);
    if (users.length > 0) forced.push(path);
    using control = new UblkControlRing();
    if (control.info(numberOf(path))?.state === UBLK_STATE.live) syncDevice(path);
    control.stop(numberOf(path));
    return { forced };
  },

  async ublkDelete({ path }) {
    using control = new UblkControlRing();
    const device = numberOf(path);
    control.delete(device);
    await soon(() => control.info(device) === undefined);
    return null;
  },

  ublkClean({ cookie }) {
    using control = new UblkControlRing();
    const found = findUblk(control, fromText(cookie));
    if (found === undefined) return Promise.resolve({ removed: [] });
    const path = ublkBlockPath(found.device);
    // Stopped first: an unmount would wait for a server that is not there.
    control.stop(found.device);
    const mounts = unmountAllFrom(path);
    control.delete(found.device);
    return Promise.resolve({ removed: [...mounts, path] });
  },
};

function canResize(control: UblkControlRing): boolean {
  return (control.features() & UBLK_FEATURE.updateSize) !== 0n;
}

function wholeBlocks(bytes: number, block: number): number {
  return bytes - bytes % Math.max(block, SECTOR_BYTES);
}

function numberOf(path: string): number {
  return Number(/(\d+)$/.exec(path)?.[1] ?? NaN);
}

function fromText(cookie: Cookie): bigint {
  return BigInt(`0x${cookie}`);
}
