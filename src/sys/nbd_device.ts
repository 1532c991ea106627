/**
 * The kernel's NBD client: /dev/nbdN on a socket that somebody else negotiated.
 * Source: drivers/block/nbd.c of Linux 6.1 and 6.12, Documentation/ABI/stable/sysfs-block.
 *
 * Three limits decide what happens when the server is slow or gone:
 * - The driver's own request timeout stays 0. With any other it cuts a connection whose server is alive and
 *   slow, and sends the request again: on the same server, beside its first copy, which may land after newer data.
 * - With 0, a request that was sent on a connection that has been replaced since is sent again when its timer
 *   fires next. That timer is the queue's: RETRY_EVERY_MS instead of the driver's 30 s. On a connection that
 *   still stands it is only wound up again, however slow the server is.
 * - While there is no connection requests wait for RECONNECT_WITHIN_S. Then they fail, for good.
 *
 * One connection: with several, the driver cuts a slow one whatever the timeout.
 */
import { PsmaError, systemClock } from "../core/mod.ts";
import {
  decodeNbdConfig,
  decodeNbdStatus,
  encodeNbdConfig,
  NBD_FAMILY,
  NBD_FLAG,
  NBD_NETLINK,
} from "../codec/mod.ts";
import { NbdLine } from "./nbd_dial.ts";
import { GenericNetlink } from "./netlink.ts";

const RETRY_EVERY_MS = 3000;
const RECONNECT_WITHIN_S = 24 * 3600;
const ADOPT_WITHIN_MS = 20_000, ADOPT_EVERY_MS = 20;
const SIZE_WITHIN_MS = 10_000, SIZE_EVERY_MS = 5;
const RELEASE_WITHIN_MS = 2000, RELEASE_EVERY_MS = 10;
const SECTOR_BYTES = 512;
/** The flags that the driver knows. */
const DRIVER_FLAGS = NBD_FLAG.hasFlags | NBD_FLAG.readOnly | NBD_FLAG.sendFlush | NBD_FLAG.sendFua |
  NBD_FLAG.rotational | NBD_FLAG.sendTrim | NBD_FLAG.sendWriteZeroes;

/** An export that a device stands on, or shall. */
export interface NbdExportPlace {
  /** The Unix socket on which it is served. */
  readonly socket: string;
  readonly exportName: string;
  /** Who serves it, as it stands in /sys/block/nbdN/backend: the same each time. */
  readonly backend: string;
}

/**
 * Makes a device of an export.
 * @param sectorBytes its logical block size: no larger than what its contents were made for.
 * @returns `/dev/nbd3`. @throws {PsmaError} state/no-driver, sys/permission, sys/errno-N.
 */
export async function connectNbdDevice(
  place: NbdExportPlace,
  { sectorBytes }: { readonly sectorBytes: number },
): Promise<string> {
  using netlink = openNetlink();
  using line = new NbdLine(place.socket, place.exportName);
  const attributes = encodeNbdConfig({
    sizeBytes: line.sizeBytes,
    blockBytes: sectorBytes,
    timeout_s: 0,
    deadConnectionTimeout_s: RECONNECT_WITHIN_S,
    serverFlags: line.flags & DRIVER_FLAGS,
    sockets: [line.fd],
    backend: place.backend,
  });
  const doing = `connect a kernel NBD device to ${place.exportName}`;
  const [answer] = netlink.command(doing, NBD_NETLINK.connect, attributes);
  const { index } = decodeNbdConfig(answer?.attributes ?? []);
  if (index === undefined) throw new PsmaError("internal/netlink", `Cannot ${doing}: no answer`);
  const device = `/dev/nbd${index}`;
  await using undo = new AsyncDisposableStack();
  undo.defer(async () => void await disconnectNbdDevice(device));
  // Before anybody uses it: on newer kernels a change waits until nothing is under way.
  const block_kib = Math.floor(line.blockBytesMax / 1024);
  const most_kib = Number(readQueue(device, "max_hw_sectors_kb"));
  writeQueue(device, "io_timeout", RETRY_EVERY_MS);
  writeQueue(device, "max_sectors_kb", Math.min(block_kib, most_kib));
  await showSize(device, line.sizeBytes);
  undo.move();
  return device;
}

/**
 * Gives a device whose connection is gone a new one: what waits goes on, what was on its way is sent again
 * within seconds. Then the device takes the export's present size; not before, because newer kernels wait for
 * all that is under way before they change it. A device whose connection stands is left as it is until that
 * ends, which it does with the process that served it.
 * @throws {PsmaError} timeout/nbd-device when it takes no new connection, sys/permission, sys/errno-N.
 */
export async function reconnectNbdDevice(device: string, place: NbdExportPlace): Promise<void> {
  const deadline_ms = systemClock.monotonicMs() + ADOPT_WITHIN_MS;
  let taken = offerConnection(device, place);
  while (taken === undefined) {
    if (systemClock.monotonicMs() > deadline_ms) {
      throw new PsmaError(
        "timeout/nbd-device",
        `Cannot reconnect ${device}: it holds on to its former connection`,
        { hint: "Another process serves it: is a second agent running?" },
      );
    }
    await systemClock.sleep(ADOPT_EVERY_MS);
    taken = offerConnection(device, place);
  }
  await resizeNbdDevice(device, { ...taken, backend: place.backend });
}

/** @returns undefined when the driver did not take it: it says nothing when it needs none. */
function offerConnection(
  device: string,
  { socket, exportName, backend }: NbdExportPlace,
): { sizeBytes: number } | undefined {
  using netlink = openNetlink();
  let inode: string, sizeBytes: number;
  {
    using line = new NbdLine(socket, exportName);
    ({ inode, sizeBytes } = line);
    const config = { index: indexOf(device), sockets: [line.fd], backend };
    netlink.command(`reconnect ${device}`, NBD_NETLINK.reconfigure, encodeNbdConfig(config));
  }
  // Our descriptor is closed: the socket is still there only if the driver holds it.
  const taken = Deno.readTextFileSync("/proc/net/unix").split("\n")
    .some((line) => line.split(/\s+/)[6] === inode);
  return taken ? { sizeBytes } : undefined;
}

/** Shows a device's new size. @returns its bytes. @throws {PsmaError} timeout/nbd-device, sys/errno-N. */
export async function resizeNbdDevice(
  device: string,
  { sizeBytes, backend }: { readonly sizeBytes: number; readonly backend: string },
): Promise<number> {
  using netlink = openNetlink();
  netlink.command(
    `resize ${device}`,
    NBD_NETLINK.reconfigure,
    encodeNbdConfig({ index: indexOf(device), sizeBytes, backend }),
  );
  await showSize(device, sizeBytes);
  return sizeBytes;
}

/**
 * Takes a device off its export: what is under way fails. Not connected is success.
 * @returns whether it is free; one that a program holds open is freed by its last user. @throws {PsmaError} sys/errno-N.
 */
export async function disconnectNbdDevice(device: string): Promise<boolean> {
  const index = indexOf(device);
  using netlink = openNetlink();
  netlink.command(`disconnect ${device}`, NBD_NETLINK.disconnect, encodeNbdConfig({ index }));
  const deadline_ms = systemClock.monotonicMs() + RELEASE_WITHIN_MS;
  while (isConnected(netlink, index)) {
    if (systemClock.monotonicMs() > deadline_ms) return false;
    await systemClock.sleep(RELEASE_EVERY_MS);
  }
  return true;
}

function isConnected(netlink: GenericNetlink, index: number): boolean {
  const answers = netlink.command(
    "ask for a kernel NBD device",
    NBD_NETLINK.status,
    encodeNbdConfig({ index }),
  );
  return answers.flatMap(({ attributes }) => decodeNbdStatus(attributes))
    .some((one) => one.index === index && one.connected);
}

/** The connected devices of servers that named themselves, with their names. */
export function listNbdDevices(): { device: string; backend: string }[] {
  return [...Deno.readDirSync("/sys/block")].flatMap(({ name }) => {
    if (!/^nbd\d+$/.test(name)) return [];
    try {
      const backend = Deno.readTextFileSync(`/sys/block/${name}/backend`).trimEnd();
      return backend === "" ? [] : [{ device: `/dev/${name}`, backend }];
    } catch {
      // No such attribute while nothing is connected.
      return [];
    }
  });
}

async function showSize(device: string, sizeBytes: number): Promise<void> {
  const sectors = Math.floor(sizeBytes / SECTOR_BYTES);
  const deadline_ms = systemClock.monotonicMs() + SIZE_WITHIN_MS;
  while (Number(readBlock(device, "size")) !== sectors) {
    if (systemClock.monotonicMs() > deadline_ms) {
      throw new PsmaError("timeout/nbd-device", `Cannot resize ${device}: the size does not show`);
    }
    await systemClock.sleep(SIZE_EVERY_MS);
  }
}

function openNetlink(): GenericNetlink {
  return new GenericNetlink(NBD_FAMILY.name, NBD_FAMILY.version);
}

function indexOf(device: string): number {
  return Number(device.replace(/^\/dev\/nbd/, ""));
}

function readQueue(device: string, name: string): string {
  return readBlock(device, `queue/${name}`);
}

function readBlock(device: string, name: string): string {
  return Deno.readTextFileSync(`/sys/block/${device.slice("/dev/".length)}/${name}`).trimEnd();
}

function writeQueue(device: string, name: string, value: number): void {
  Deno.writeTextFileSync(`/sys/block/${device.slice("/dev/".length)}/queue/${name}`, `${value}\n`, {
    create: false,
  });
}
