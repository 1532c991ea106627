/** Which frontends this process may use on this machine, and which file systems it may grow. */

import { toPsmaError } from "../../core/mod.ts";
import { UBLK_CONTROL_PATH, UBLK_DEVICE_FLAGS, UblkControlRing } from "../../sys/mod.ts";

const NBD_DEVICE = "/sys/block/nbd0";
const CAPABILITIES = { CAP_SYS_ADMIN: 21n, CAP_SYS_RESOURCE: 24n } as const;
export type Capability = keyof typeof CAPABILITIES;

/** @param processStatus text of /proc/PID/status; this process's by default. */
export function hasCapability(
  name: Capability,
  processStatus: string = Deno.readTextFileSync("/proc/self/status"),
): boolean {
  const match = /^CapEff:\s*([0-9a-f]+)$/m.exec(processStatus);
  return (BigInt(`0x${match?.[1] ?? "0"}`) >> CAPABILITIES[name] & 1n) === 1n;
}

/** @returns why a volume cannot be a ublk device here; undefined when it can. */
export function canServeUblk(controlPath = UBLK_CONTROL_PATH): string | undefined {
  if (!isThere(controlPath)) {
    return `${controlPath} is missing: the kernel's ublk driver is not loaded, or not there`;
  }
  if (!hasCapability("CAP_SYS_ADMIN")) return "CAP_SYS_ADMIN is not in force";
  try {
    using control = new UblkControlRing();
    const lacking = UBLK_DEVICE_FLAGS & ~control.features();
    return lacking === 0n ? undefined : "the kernel's ublk driver is older than Linux 6.5";
  } catch (error) {
    return toPsmaError(error).message;
  }
}

function isThere(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

/** @returns why this process cannot make a device of the kernel's NBD client; undefined when it can. */
export function canServeNbdDevice(): string | undefined {
  // The driver's devices are there as long as it is loaded; one of them may be held up, so none is opened.
  if (!isThere(NBD_DEVICE)) return "the kernel's nbd driver is not loaded, or not there";
  return hasCapability("CAP_SYS_ADMIN") ? undefined : "CAP_SYS_ADMIN is not in force";
}

/** @returns why a volume cannot be a mounted file here; undefined when it can. */
export function canServeFuse(): string | undefined {
  for (const path of ["/dev/fuse", "/dev/loop-control"]) {
    try {
      Deno.openSync(path, { read: true, write: true }).close();
    } catch {
      return `${path} does not open`;
    }
  }
  return hasCapability("CAP_SYS_ADMIN") ? undefined : "CAP_SYS_ADMIN is not in force";
}

/** @param least major and minor. @param release of the kernel; this one's by default. */
export function kernelIsAtLeast(
  [major, minor]: readonly [number, number],
  release: string = Deno.osRelease(),
): boolean {
  const [has = 0, hasMinor = 0] = release.split(".").map(Number.parseFloat);
  return has > major || (has === major && hasMinor >= minor);
}

/** Whether FUSE has FUSE_NOTIFY_RESEND: Linux 6.9. @param release of the kernel; this one's by default. */
export function kernelSendsAgain(release?: string): boolean {
  return kernelIsAtLeast([6, 9], release);
}

/**
 * Whether a mounted file system of this type can be grown by this process, found out without trying.
 * @returns why not; undefined when it can. Fits what the kernel asks for: fs/ext4/resize.c, ext4_resize_begin.
 */
export function growthFault(type: string, processStatus?: string): string | undefined {
  if (type !== "ext4" || hasCapability("CAP_SYS_RESOURCE", processStatus)) return undefined;
  return "ext4 grows online only with CAP_SYS_RESOURCE, which is not in force here";
}
