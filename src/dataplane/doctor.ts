/**
 * What this machine can do for volumes: each line says what was found and, where it falls short, what to do.
 * Looks and tries, changes nothing.
 */
import { formatSize, toPsmaError } from "../core/mod.ts";
import { statFilesystem, UringRing } from "../sys/mod.ts";
import {
  canServeFuse,
  canServeNbdDevice,
  canServeUblk,
  type Capability,
  hasCapability,
  kernelIsAtLeast,
} from "./host/host.ts";

export interface HostFinding {
  readonly name: string;
  readonly level: "ok" | "warn" | "fail";
  readonly found: string;
  readonly advice?: string;
}

export interface ProbePlaces {
  readonly state_dir: string;
  readonly token_file: string;
}

const OLDEST_KERNEL = [5, 19] as const;
const MAKERS = ["mkfs.xfs", "mkfs.ext4", "mkfs.btrfs"] as const;
const FREE_BYTES_LEAST = 1024 ** 3;

/** @returns findings in the order in which they matter. */
export async function probeHost(places: ProbePlaces): Promise<readonly HostFinding[]> {
  return [
    probeKernel(),
    probeRing(),
    probeDevice("fuse", "/dev/fuse", "modprobe fuse, and run as root"),
    probeDevice("loop", "/dev/loop-control", "modprobe loop, and run as root"),
    probeUblk(),
    probeNbdDevice(),
    probeCapability("CAP_SYS_ADMIN", "without it volumes are served over NBD only: run as root"),
    probeCapability("CAP_SYS_RESOURCE", "ext4 cannot grow online without it; xfs and btrfs can"),
    probeFrontend(),
    ...MAKERS.map(probeMaker),
    await probeSpace(places.state_dir),
    probeToken(places.token_file),
    { name: "runtime", level: "ok", found: `deno ${Deno.version.deno}, V8 ${Deno.version.v8}` },
  ];
}

function probeKernel(): HostFinding {
  const release = Deno.osRelease();
  const finding = { name: "kernel", found: `Linux ${release}, ${Deno.build.arch}` };
  return kernelIsAtLeast(OLDEST_KERNEL) ? { ...finding, level: "ok" } : {
    ...finding,
    level: "fail",
    advice: `Linux ${OLDEST_KERNEL.join(".")} or newer is needed`,
  };
}

function probeRing(): HostFinding {
  try {
    const ring = new UringRing({ entries: 8 });
    const { setupFlags, features } = ring.features;
    ring.close();
    const found = `features 0x${features.toString(16)}, set-up flags 0x${setupFlags.toString(16)}`;
    return { name: "io_uring", level: "ok", found };
  } catch (error) {
    return {
      name: "io_uring",
      level: "fail",
      found: toPsmaError(error).message,
      advice: "see kernel.io_uring_disabled, and the container's seccomp filter",
    };
  }
}

function probeDevice(name: string, path: string, advice: string): HostFinding {
  const fault = openFault(path);
  return fault === undefined
    ? { name, level: "ok", found: `${path} opens` }
    : { name, level: "warn", found: `${path}: ${fault}`, advice };
}

function probeUblk(): HostFinding {
  const fault = canServeUblk();
  return fault === undefined
    ? { name: "ublk", level: "ok", found: "/dev/ublk-control opens, and its driver recovers" }
    : { name: "ublk", level: "warn", found: fault.why, advice: fault.advice };
}

function probeNbdDevice(): HostFinding {
  const fault = canServeNbdDevice();
  return fault === undefined
    ? { name: "nbd (kernel)", level: "ok", found: "its driver is loaded" }
    : {
      name: "nbd (kernel)",
      level: "warn",
      found: fault.why,
      advice: `only for frontend: nbd with device: true: ${fault.advice}`,
    };
}

function openFault(path: string): string | undefined {
  try {
    Deno.openSync(path, { read: true, write: true }).close();
    return undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "missing";
    return error instanceof Error
      ? error.message.split(" (")[0] ?? "does not open"
      : "does not open";
  }
}

function probeCapability(name: Capability, advice: string): HostFinding {
  return hasCapability(name)
    ? { name, level: "ok", found: "in force" }
    : { name, level: "warn", found: "not in force", advice };
}

/** What `frontend: auto` comes to here, and why. */
function probeFrontend(): HostFinding {
  const name = "frontend: auto";
  const noUblk = canServeUblk();
  if (noUblk === undefined) return { name, level: "ok", found: "ublk: a block device" };
  const noFuse = canServeFuse();
  return noFuse === undefined
    ? { name, level: "ok", found: `fuse with a loop device, not ublk: ${noUblk.why}` }
    : { name, level: "warn", found: `nbd, not fuse: ${noFuse.why}; not ublk: ${noUblk.why}` };
}

function probeMaker(command: string): HostFinding {
  const folders = `${Deno.env.get("PATH") ?? ""}:/usr/sbin:/sbin`.split(":");
  const at = folders.find((folder) => folder !== "" && isFile(`${folder}/${command}`));
  return at === undefined
    ? {
      name: command,
      level: "warn",
      found: "missing",
      advice: "needed to make that file system anew",
    }
    : { name: command, level: "ok", found: `${at}/${command}` };
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** Free space of the file system that the state directory is, or will be, on. */
async function probeSpace(state_dir: string): Promise<HostFinding> {
  const name = "state_dir";
  const existing = nearestFolder(state_dir);
  const free_bytes = await freeBytes(existing);
  if (free_bytes === undefined) {
    return { name, level: "fail", found: `${existing} cannot be asked for its space` };
  }
  const found = `${state_dir}: ${formatSize(free_bytes)} free`;
  return free_bytes >= FREE_BYTES_LEAST
    ? { name, level: "ok", found }
    : { name, level: "warn", found, advice: "volumes of the embedded store need room to fill up" };
}

function nearestFolder(path: string): string {
  for (let at = path; at !== ""; at = at.slice(0, at.lastIndexOf("/"))) {
    try {
      if (Deno.statSync(at).isDirectory) return at;
    } catch {
      // Not there, or not ours to see: its parent decides.
    }
  }
  return "/";
}

async function freeBytes(path: string): Promise<number | undefined> {
  try {
    return (await statFilesystem(path)).available_bytes;
  } catch {
    return undefined;
  }
}

function probeToken(path: string): HostFinding {
  const name = "token";
  try {
    const { mode } = Deno.statSync(path);
    return ((mode ?? 0) & 0o077) === 0
      ? { name, level: "ok", found: `${path}, only its owner reads it` }
      : { name, level: "fail", found: `${path}: others may read it`, advice: `chmod 600 ${path}` };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      return { name, level: "ok", found: `${path} is made by the first psma run` };
    }
    return {
      name,
      level: "warn",
      found: `${path} cannot be read`,
      advice: "run as the agent's user",
    };
  }
}
