/**
 * What is done to kernel NBD devices of a served volume, in a process of its own (see `tasks.ts`): their
 * sockets are negotiated with the very agent that waits for the task, and who opens a device waits for it too.
 */
import {
  connectNbdDevice,
  disconnectNbdDevice,
  listNbdDevices,
  type NbdExportPlace,
  reconnectNbdDevice,
  resizeNbdDevice,
} from "../../sys/mod.ts";
import { lastingUsers, syncDevice } from "./device_users.ts";
import { aloneWith } from "./claim.ts";
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

export interface NbdHostTasks {
  /** A device on the export, and the file system on it. Undone when a step fails. */
  nbdAttach: {
    argument: {
      volume: string;
      place: NbdExportPlace;
      sector_bytes: number;
      filesystem: MountedFilesystem | null;
    };
    answer: { device: string };
  };
  /** Gives the device of that backend a new connection. @returns false where there is no such device. */
  nbdResume: {
    argument: {
      volume: string;
      device: string;
      place: NbdExportPlace;
      filesystem: MountedFilesystem | null;
    };
    answer: { resumed: boolean };
  };
  /** The device takes the volume's size, then the file system where there is one. */
  nbdGrow: {
    argument: { device: string; backend: string; size_bytes: number; mount: string | null };
    answer: { device_bytes: number; filesystem_bytes: number | null };
  };
  /** Unmounts and disconnects. @throws {PsmaError} state/busy while somebody uses it, unless forced. */
  nbdDetach: {
    argument: {
      volume: string;
      device: string;
      backend: string;
      mount: string | null;
      force: boolean;
    };
    answer: { forced: string[] };
  };
  /** Removes what `leftNbdDevices` finds, with what is mounted from it. */
  nbdClean: { argument: { backend: string }; answer: { removed: string[] } };
}

const BACKEND_PREFIX = "psma:";

/** The name that a volume's server gives itself: its directory is no other's on this machine. */
export function nbdBackendOf(directory: string): string {
  return BACKEND_PREFIX + Deno.realPathSync(directory);
}

export const NBD_HANDLERS: HostTaskHandlers<NbdHostTasks> = {
  async nbdAttach({ volume, place, sector_bytes, filesystem }) {
    using _alone = await claim(place.backend);
    await using undo = new AsyncDisposableStack();
    const device = await connectNbdDevice(place, { sectorBytes: sector_bytes });
    undo.defer(async () => void await disconnectNbdDevice(device));
    if (filesystem !== null) await putFilesystem({ volume, device, filesystem });
    undo.move();
    return { device };
  },

  async nbdResume({ volume, device, place, filesystem }) {
    const isOurs = () =>
      listNbdDevices().some((one) => one.device === device && one.backend === place.backend);
    if (!isOurs()) return { resumed: false };
    // First without waiting: a task that a killed agent had begun may wait for the very device.
    await reconnectNbdDevice(device, place);
    using _alone = await claim(place.backend);
    if (!isOurs()) return { resumed: false };
    if (filesystem !== null && !isMountedFrom(device, filesystem.mount)) {
      await putFilesystem({ volume, device, filesystem });
    }
    return { resumed: true };
  },

  async nbdGrow({ device, backend, size_bytes, mount }) {
    using _alone = await claim(backend);
    const device_bytes = await resizeNbdDevice(device, { sizeBytes: size_bytes, backend });
    return await growMounted(mount, device_bytes);
  },

  async nbdDetach({ volume, device, backend, mount, force }) {
    using _alone = await claim(backend);
    const forced: string[] = [];
    if (mount !== null && unmount(volume, mount, force)) forced.push(mount);
    const users = await lastingUsers(device);
    if (users.length > 0 && !force) throw busyError(volume, device, users);
    syncDevice(device);
    if (!await disconnectNbdDevice(device)) forced.push(device);
    return { forced };
  },

  async nbdClean({ backend }) {
    // First without waiting, as above.
    const before = await removeLeft(backend);
    using _alone = await claim(backend);
    return { removed: [...before, ...await removeLeft(backend)] };
  },
};

/** @param backend its volume's directory follows the prefix. */
function claim(backend: string): Promise<Disposable> {
  return aloneWith(`${backend.slice(BACKEND_PREFIX.length)}/device`);
}

async function removeLeft(backend: string): Promise<string[]> {
  const removed: string[] = [];
  for (const device of leftNbdDevices(backend)) {
    // First of all: without a connection even an unmount waits, for what it still has to write.
    await disconnectNbdDevice(device);
    removed.push(...unmountAllFrom(device), device);
  }
  return removed;
}

/** The devices of a backend, and those of volumes of ours that are gone. Looks, and touches none of them. */
export function leftNbdDevices(backend: string): string[] {
  return listNbdDevices()
    .filter((one) => one.backend === backend || isOrphan(one.backend))
    .map(({ device }) => device);
}

/** A server of ours whose volume is not on this machine any more. */
function isOrphan(backend: string): boolean {
  if (!backend.startsWith(BACKEND_PREFIX)) return false;
  try {
    Deno.statSync(backend.slice(BACKEND_PREFIX.length));
    return false;
  } catch (error) {
    return error instanceof Deno.errors.NotFound;
  }
}
