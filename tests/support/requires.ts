/**
 * What a test needs from the machine. A test that cannot run here says why and is counted as
 * skipped; what set-up could have provided must be there when `CI=true`, so the runner then turns
 * the reason into a failure. A kernel driver that the machine cannot have stays an honest skip.
 */
import { fileURLToPath } from "node:url";
import { canHaveVmFiles, hasVmFiles } from "./vm_files.ts";

export interface Requirements {
  /** Programs on PATH. */
  readonly commands?: readonly string[];
  /** User id 0. */
  readonly root?: boolean;
  /** io_uring that this process may use: neither switched off nor blocked by a seccomp filter. */
  readonly io_uring?: boolean;
  readonly fuse?: boolean;
  readonly loop?: boolean;
  readonly ublk?: boolean;
  readonly kvm?: boolean;
  /** QEMU and kernels for a test machine (vm.ts), and the programs that it takes along. */
  readonly vm?: boolean;
  /** Device nodes of drivers that set-up cannot provide: `/dev/nbd0`. */
  readonly devices?: readonly string[];
  /** File systems that the kernel can mount: `xfs`. */
  readonly filesystems?: readonly string[];
  /** Capabilities in force: `CAP_SYS_RESOURCE`. */
  readonly capabilities?: readonly Capability[];
  /** The shared data sets beside the checkout; a string names a folder or file among them. */
  readonly data?: boolean | string;
  /** Free bytes in the temporary directory. */
  readonly temp_bytes?: number;
}

/** Bit numbers of linux/capability.h, those that tests ask for. */
const CAPABILITY_BITS = {
  CAP_SYS_ADMIN: 21,
  CAP_SYS_RESOURCE: 24,
} as const;
export type Capability = keyof typeof CAPABILITY_BITS;

/** The programs of this machine that a test machine gets, with the libraries that they need. */
export const GUEST_COMMANDS: readonly string[] = [
  "blkid",
  "blockdev",
  "depmod",
  "e2fsck",
  "fio",
  "losetup",
  "mkfs.ext4",
  "mkfs.xfs",
  "modprobe",
  "mount",
  "nbdinfo",
  "setsid",
  "umount",
  "xfs_repair",
];

/** One thing that is missing; `setup` says that set-up should have provided it. */
export interface Missing {
  readonly reason: string;
  readonly setup: boolean;
}

/** The file that the runner reads reasons from, one JSON record a line. */
export const SKIP_FILE_VARIABLE = "PSMA_TEST_SKIPS";

/** The shared data sets, beside the checkout. */
export const dataDir: string = fileURLToPath(new URL("../../../shared/data", import.meta.url));

// A plain user's PATH, and a service's, leaves out the folders where losetup and mkfs are.
for (const folder of ["/usr/sbin", "/sbin"]) {
  const path = Deno.env.get("PATH") ?? "/usr/bin:/bin";
  if (!path.split(":").includes(folder)) Deno.env.set("PATH", `${path}:${folder}`);
}

const reported = new Set<string>();

/** Where Debian puts PostgreSQL's programs, a folder a version, the newest first: none is on anybody's PATH. */
function postgresFolders(): string[] {
  const versions = "/usr/lib/postgresql";
  if (!exists(versions)) return [];
  return [...Deno.readDirSync(versions)].map(({ name }) => Number(name))
    .sort((a, b) => b - a).map((version) => `${versions}/${version}/bin`);
}

/** Says whether a test can run here: `Deno.test({ name, ...requires({ root: true }), fn })`. */
export function requires(requirements: Requirements): { ignore: boolean } {
  const missing = whatIsMissing(requirements);
  for (const one of missing) report(one);
  return { ignore: missing.length > 0 };
}

/** Everything that `requirements` names and this machine lacks. */
export function whatIsMissing(requirements: Requirements): Missing[] {
  const setup = (reason: string): Missing => ({ reason, setup: true });
  const driver = (reason: string): Missing => ({ reason, setup: false });
  const missing: Missing[] = [];
  const commands = [...requirements.commands ?? [], ...requirements.vm ? GUEST_COMMANDS : []];
  for (const command of commands) {
    if (findCommand(command) === undefined) missing.push(setup(`needs the command ${command}`));
  }
  if (requirements.root && Deno.uid() !== 0) missing.push(setup("needs root"));
  if (requirements.io_uring && !ioUringWorks()) missing.push(setup("needs io_uring"));
  if (requirements.fuse && !canOpen("/dev/fuse")) missing.push(setup("needs /dev/fuse"));
  if (requirements.loop && !canOpen("/dev/loop-control")) {
    missing.push(setup("needs /dev/loop-control"));
  }
  if (requirements.ublk && !canOpen("/dev/ublk-control")) {
    missing.push(driver("needs /dev/ublk-control (the kernel's ublk_drv)"));
  }
  if (requirements.kvm && !canOpen("/dev/kvm")) missing.push(driver("needs /dev/kvm"));
  if (requirements.vm && !hasVmFiles()) {
    const reason = "needs the test machines' files (deno run -A tests/support/setup.ts)";
    missing.push(
      canHaveVmFiles() ? setup(reason) : driver("needs Debian 12 on x86-64 for test machines"),
    );
  }
  for (const device of requirements.devices ?? []) {
    if (!canOpen(device)) missing.push(driver(`needs ${device}`));
  }
  for (const filesystem of requirements.filesystems ?? []) {
    if (!kernelHasFilesystem(filesystem)) {
      missing.push(driver(`needs a kernel with ${filesystem}`));
    }
  }
  for (const capability of requirements.capabilities ?? []) {
    if (!hasCapability(capability)) missing.push(driver(`needs ${capability}`));
  }
  if (requirements.data) {
    const path = typeof requirements.data === "string"
      ? `${dataDir}/${requirements.data}`
      : dataDir;
    if (!exists(path)) missing.push(setup(`needs the shared data sets (${path})`));
  }
  const free = requirements.temp_bytes === undefined ? undefined : freeTempBytes();
  if (free !== undefined && free < (requirements.temp_bytes ?? 0)) {
    missing.push(setup(`needs ${requirements.temp_bytes} free bytes for temporary files`));
  }
  return missing;
}

/** The path of a program on PATH, to which this module has added the sbin folders, or of one of PostgreSQL's. */
export function findCommand(name: string): string | undefined {
  for (const folder of [...(Deno.env.get("PATH") ?? "").split(":"), ...postgresFolders()]) {
    if (folder === "") continue;
    try {
      const info = Deno.statSync(`${folder}/${name}`);
      if (info.isFile && ((info.mode ?? 0) & 0o111) !== 0) return `${folder}/${name}`;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}

function report(missing: Missing): void {
  if (reported.has(missing.reason)) return;
  reported.add(missing.reason);
  const file = Deno.env.get(SKIP_FILE_VARIABLE);
  if (file === undefined) {
    Deno.stderr.writeSync(new TextEncoder().encode(`skipped: ${missing.reason}\n`));
  } else {
    Deno.writeTextFileSync(file, JSON.stringify(missing) + "\n", { append: true });
  }
}

function canOpen(path: string): boolean {
  try {
    Deno.openSync(path, { read: true, write: true }).close();
    return true;
  } catch {
    return false;
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

let ioUringAnswer: boolean | undefined;

/** Asks the kernel for a ring of one entry: the only answer that a seccomp filter cannot hide. */
function ioUringWorks(): boolean {
  ioUringAnswer ??= probeIoUring();
  return ioUringAnswer;
}

const SYS_IO_URING_SETUP = 425n;
const IO_URING_PARAMS_BYTES = 120;

function probeIoUring(): boolean {
  const libc = Deno.dlopen("libc.so.6", {
    syscall: { parameters: ["i64", "u32", "buffer"], result: "i64" },
    close: { parameters: ["i32"], result: "i32" },
  });
  try {
    const fd = libc.symbols.syscall(SYS_IO_URING_SETUP, 1, new Uint8Array(IO_URING_PARAMS_BYTES));
    if (fd < 0n) return false;
    libc.symbols.close(Number(fd));
    return true;
  } finally {
    libc.close();
  }
}

function kernelHasFilesystem(name: string): boolean {
  const lists = [
    "/proc/filesystems",
    `/lib/modules/${Deno.osRelease()}/modules.dep`,
    `/lib/modules/${Deno.osRelease()}/modules.builtin`,
  ];
  const pattern = new RegExp(`(^|[\\s/])${name}(\\.ko\\S*)?(:|$)`, "m");
  return lists.some((list) => exists(list) && pattern.test(Deno.readTextFileSync(list)));
}

function hasCapability(name: Capability): boolean {
  const match = /^CapEff:\s*([0-9a-f]+)$/m.exec(Deno.readTextFileSync("/proc/self/status"));
  const effective = BigInt(`0x${match?.[1] ?? "0"}`);
  return (effective >> BigInt(CAPABILITY_BITS[name]) & 1n) === 1n;
}

function freeTempBytes(): number | undefined {
  const folder = Deno.env.get("TMPDIR") ?? "/tmp";
  const { success, stdout } = new Deno.Command("df", { args: ["-PB1", folder] }).outputSync();
  const available = new TextDecoder().decode(stdout).split("\n")[1]?.split(/\s+/)[3];
  return success && available !== undefined ? Number(available) : undefined;
}
