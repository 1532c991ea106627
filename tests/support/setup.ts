/**
 * Installs the system packages that the tests (or the demo) use: only what is missing, only where
 * root and apt-get are at hand; elsewhere it says what is missing and leaves the tests to skip.
 * Without names it also fetches what test machines are made of (vm_files.ts).
 * It always ends with exit code 0: what really needs a package says so itself.
 *
 *     deno run -A tests/support/setup.ts [--quiet] [PACKAGE…]
 *
 * With `--quiet` it says only what is missing in the end.
 */
import { findCommand } from "./requires.ts";
import { fetchVmFiles } from "./vm_files.ts";

/** Debian package → a program that it brings; looking for programs is faster than asking dpkg. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  "btrfs-progs": ["mkfs.btrfs"],
  e2fsprogs: ["mkfs.ext4", "e2fsck"],
  fio: ["fio"],
  kmod: ["modprobe", "depmod"],
  "libnbd-bin": ["nbdinfo", "nbdcopy"],
  mount: ["mount", "umount", "losetup"],
  nbdkit: ["nbdkit"],
  openssl: ["openssl"],
  postgresql: ["initdb", "pg_amcheck"],
  procps: ["ps"],
  "qemu-system-common": ["qemu-storage-daemon"],
  "qemu-utils": ["qemu-img", "qemu-nbd"],
  sqlite3: ["sqlite3"],
  "util-linux": ["blkid", "blockdev", "findmnt", "setsid"],
  xfsprogs: ["mkfs.xfs", "xfs_repair"],
};

/** What the whole test run uses. */
export const TEST_PACKAGES: readonly string[] = Object.keys(PACKAGES);

/** Kernel modules of the device nodes that frontends open. A kernel without them is not an error. */
const MODULES: Readonly<Record<string, string>> = {
  fuse: "/dev/fuse",
  loop: "/dev/loop-control",
  ublk_drv: "/dev/ublk-control",
};

const LOCK_WAIT_SECONDS = 120;
const FETCH_WAIT_SECONDS = 20;

/** Sees to it that `names` are installed. @returns the packages still missing. */
export function setUp(names: readonly string[], say: (line: string) => void): string[] {
  const missing = missingOf(names);
  if (missing.length > 0) installMissing(missing, say);
  if (Deno.uid() === 0) loadModules();
  return missing.length === 0 ? [] : missingOf(names);
}

function missingOf(names: readonly string[]): string[] {
  return names.filter((name) =>
    (PACKAGES[name] ?? [name]).some((command) => findCommand(command) === undefined)
  );
}

function installMissing(missing: readonly string[], say: (line: string) => void): void {
  const list = missing.join(" ");
  if (findCommand("apt-get") === undefined) {
    return say(`set-up: missing ${list}; there is no apt-get here to install them with`);
  }
  if (Deno.uid() !== 0) {
    return say(`set-up: missing ${list}; as root: apt-get install ${list}`);
  }
  say(`set-up: installing ${list}`);
  aptGet(["update", "-qq"]);
  const all = aptGet(["install", "-y", "-qq", "--no-install-recommends", ...missing]);
  if (all.success) return;
  // One name that this release does not carry must not cost the others.
  for (const name of missingOf(missing)) {
    const one = aptGet(["install", "-y", "-qq", "--no-install-recommends", name]);
    if (!one.success) say(`set-up: cannot install ${name}: ${lastLine(one.stderr)}`);
  }
}

function aptGet(args: readonly string[]): { success: boolean; stderr: string } {
  const { success, stderr } = new Deno.Command("apt-get", {
    args: [
      "-o",
      `DPkg::Lock::Timeout=${LOCK_WAIT_SECONDS}`,
      "-o",
      `Acquire::http::Timeout=${FETCH_WAIT_SECONDS}`,
      ...args,
    ],
    env: { DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C" },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).outputSync();
  return { success, stderr: new TextDecoder().decode(stderr) };
}

function loadModules(): void {
  if (findCommand("modprobe") === undefined) return;
  for (const [module, node] of Object.entries(MODULES)) {
    try {
      Deno.statSync(node);
    } catch {
      new Deno.Command("modprobe", { args: ["-q", module], stdout: "null", stderr: "null" })
        .outputSync();
    }
  }
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}

if (import.meta.main) {
  const quiet = Deno.args.includes("--quiet");
  const named = Deno.args.filter((argument) => !argument.startsWith("-"));
  const warn = (line: string) => {
    Deno.stderr.writeSync(new TextEncoder().encode(line + "\n"));
  };
  const say = quiet ? () => {} : warn;
  const left = setUp(named.length > 0 ? named : TEST_PACKAGES, say);
  if (named.length === 0) fetchVmFiles(say);
  if (quiet && left.length > 0) warn(`set-up: still missing: ${left.join(" ")}`);
}
