/** Which frontends this process may use on this machine, and which file systems it may grow. */

import { toPsmaError } from "../../core/mod.ts";
import { UBLK_CONTROL_PATH, UBLK_DEVICE_FLAGS, UblkControlRing } from "../../sys/mod.ts";

const FUSE_DEVICES = ["/dev/fuse", "/dev/loop-control"] as const;
const NBD_DEVICE = "/sys/block/nbd0";
const CAPABILITIES = { CAP_SYS_ADMIN: 21n, CAP_SYS_RESOURCE: 24n } as const;
export type Capability = keyof typeof CAPABILITIES;

/** Why volumes cannot be served in one way by this process on this machine. */
export interface HostFault {
  /** `state/frontend`: the machine lacks what it takes; `sys/permission`: this process lacks the rights. */
  readonly code: "state/frontend" | "sys/permission";
  /** The end of a sentence. */
  readonly why: string;
  /** The next step of whoever wants it all the same; no full stop. */
  readonly advice: string;
}

const UBLK_DRIVER = "modprobe ublk_drv on Linux 6.5 or newer, and run as root; " +
  "frontend: fuse has a block device too";
const NBD_DRIVER = "modprobe nbd, and run as root";
const FUSE_DRIVERS = "modprobe -a fuse loop, and run as root";
const AS_ROOT = "run as root, in a container with the capability CAP_SYS_ADMIN";

/** @param processStatus text of /proc/PID/status; this process's by default. */
export function hasCapability(
  name: Capability,
  processStatus: string = Deno.readTextFileSync("/proc/self/status"),
): boolean {
  const match = /^CapEff:\s*([0-9a-f]+)$/m.exec(processStatus);
  return (BigInt(`0x${match?.[1] ?? "0"}`) >> CAPABILITIES[name] & 1n) === 1n;
}

/** @returns why a volume cannot be a ublk device here; undefined when it can. */
export function canServeUblk(controlPath = UBLK_CONTROL_PATH): HostFault | undefined {
  if (!isThere(controlPath)) {
    return lacking(
      `${controlPath} is missing: the kernel's ublk driver is not loaded, or not there`,
      UBLK_DRIVER,
    );
  }
  const forbidden = rightsFault();
  if (forbidden !== undefined) return forbidden;
  try {
    using control = new UblkControlRing();
    const absent = UBLK_DEVICE_FLAGS & ~control.features();
    if (absent === 0n) return undefined;
    return lacking("the kernel's ublk driver is older than Linux 6.5", UBLK_DRIVER);
  } catch (error) {
    const { code, message } = toPsmaError(error);
    return code === "sys/permission" ? forbidding(message) : lacking(message, UBLK_DRIVER);
  }
}

function rightsFault(): HostFault | undefined {
  return hasCapability("CAP_SYS_ADMIN") ? undefined : forbidding("CAP_SYS_ADMIN is not in force");
}

function lacking(why: string, advice: string): HostFault {
  return { code: "state/frontend", why, advice };
}

function forbidding(why: string): HostFault {
  return { code: "sys/permission", why, advice: AS_ROOT };
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
export function canServeNbdDevice(device = NBD_DEVICE): HostFault | undefined {
  // The driver's devices are there as long as it is loaded; one of them may be held up, so none is opened.
  if (isThere(device)) return rightsFault();
  return lacking("the kernel's nbd driver is not loaded, or not there", NBD_DRIVER);
}

/** @returns why a volume cannot be a mounted file here; undefined when it can. */
export function canServeFuse(paths: readonly string[] = FUSE_DEVICES): HostFault | undefined {
  for (const path of paths) {
    try {
      Deno.openSync(path, { read: true, write: true }).close();
    } catch (error) {
      const why = `${path} does not open`;
      const forbidden = error instanceof Deno.errors.PermissionDenied;
      return forbidden ? forbidding(why) : lacking(why, FUSE_DRIVERS);
    }
  }
  return rightsFault();
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
