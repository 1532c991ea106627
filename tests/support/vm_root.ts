/**
 * The root file system of a test machine, an initramfs: busybox, this machine's own programs with the
 * libraries that `ldd` names, deno, the kernel modules, PSMA's bundle in /opt/psma and the guest program.
 */
import { bundleApp, bundleProgram, root } from "../../.ci/bundle.ts";
import { CpioWriter } from "./cpio.ts";
import { findCommand, GUEST_COMMANDS } from "./requires.ts";
import { busybox, type KernelFiles } from "./vm_files.ts";

/** The modules that every machine has at hand, with what they depend on. A kernel may have some built in. */
const MODULES = [
  "btrfs",
  "crc32c-intel",
  "crc32c_generic",
  "ext4",
  "fuse",
  "loop",
  "nbd",
  "null_blk",
  "ublk_drv",
  "xfs",
] as const;

const BUSYBOX_NAMES = (
  "awk cat chmod cmp cp cut date dd df dmesg du echo env false find free grep head ip kill ln ls mkdir " +
  "mknod mountpoint mv nc poweroff ps readlink rm sed seq sh sleep sort stat stty sync tail tee test " +
  "timeout touch tr true truncate uname wc xargs"
).split(" ");

export interface RootOptions {
  readonly kernel: KernelFiles;
  /** The guest program: a file in tests/vm/guest. */
  readonly program: string;
  /** A folder for what is made on the way. */
  readonly work: string;
}

/** Writes the archive. @returns its path. */
export function buildRoot({ kernel, program, work }: RootOptions): string {
  const path = `${work}/root.cpio`;
  const archive = new CpioWriter(Deno.openSync(path, { write: true, createNew: true }));
  for (const name of ["dev", "proc", "sys", "tmp", "mnt", "run", "root", "var/lib"]) {
    archive.folder(name);
  }
  archive.file("/init", `${root}/tests/vm/guest/init.sh`);
  archive.file("/bin/busybox", busybox);
  for (const name of BUSYBOX_NAMES) archive.link(`/bin/${name}`, "busybox");
  for (const name of GUEST_COMMANDS) addProgram(archive, name);
  archive.file("/bin/deno", Deno.execPath());
  for (const library of librariesOf(Deno.execPath())) archive.file(library, library);
  archive.bytes("/bin/psma", new TextEncoder().encode(PSMA_SCRIPT), 0o755);
  archive.bytes("/etc/passwd", new TextEncoder().encode("root:x:0:0::/root:/bin/sh\n"));
  archive.bytes("/etc/group", new TextEncoder().encode("root:x:0:\n"));
  archive.link("/etc/mtab", "/proc/self/mounts");
  archive.tree(`/lib/modules/${kernel.release}`, unpackModules(kernel, `${work}/modules`));
  bundleApp(`${work}/app`);
  archive.tree("/opt/psma/app", `${work}/app`);
  bundleProgram(`tests/vm/guest/${program}.ts`, `${work}/program.js`);
  archive.file("/guest/program.js", `${work}/program.js`);
  archive.close();
  return path;
}

/** What the self-extracting file does once it has unpacked itself. */
const PSMA_SCRIPT = `#!/bin/sh
exec /bin/deno run --quiet --no-config --no-lock --no-remote --no-npm --no-prompt -A \\
  /opt/psma/app/main.js "$@"
`;

/** In /usr/bin, which comes first on the guest's PATH: busybox has weaker programs of the same names. */
function addProgram(archive: CpioWriter, name: string): void {
  const path = findCommand(name);
  if (path === undefined) throw new Error(`Cannot build a test machine: ${name} is missing`);
  archive.file(`/usr/bin/${name}`, path);
  for (const library of librariesOf(path)) archive.file(library, library);
}

function librariesOf(path: string): string[] {
  const { stdout } = new Deno.Command("ldd", { args: [path], stderr: "null" }).outputSync();
  const text = new TextDecoder().decode(stdout);
  return [...text.matchAll(/(?:=> |^\s*)(\/\S+) \(0x/gm)].flatMap(([, library]) => library ?? []);
}

/** Decompresses the wanted modules and has depmod write the lists that modprobe reads. */
function unpackModules(kernel: KernelFiles, work: string): string {
  const folder = `${work}/lib/modules/${kernel.release}`;
  Deno.mkdirSync(folder, { recursive: true });
  for (const list of ["modules.builtin", "modules.builtin.modinfo", "modules.order"]) {
    Deno.copyFileSync(`${kernel.modules}/${list}`, `${folder}/${list}`);
  }
  const packed = new Map(modulesBelow(`${kernel.modules}/kernel`));
  const wanted: string[] = [...MODULES];
  const done = new Set<string>();
  for (let name = wanted.pop(); name !== undefined; name = wanted.pop()) {
    const key = name.replaceAll("-", "_");
    const path = packed.get(key);
    if (path === undefined || done.has(key)) continue;
    done.add(key);
    const module = decompress(path);
    Deno.writeFileSync(`${folder}/${key}.ko`, module);
    wanted.push(...dependenciesOf(module));
  }
  const { success } = new Deno.Command(findCommand("depmod") ?? "depmod", {
    args: ["-b", work, kernel.release],
    stderr: "inherit",
  }).outputSync();
  if (!success) throw new Error("Cannot build a test machine: depmod failed");
  return folder;
}

function modulesBelow(folder: string): [string, string][] {
  return [...Deno.readDirSync(folder)].flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) return modulesBelow(path);
    const name = /^(.*)\.ko(\.xz)?$/.exec(entry.name)?.[1]?.replaceAll("-", "_");
    return name === undefined ? [] : [[name, path]];
  });
}

function decompress(path: string): Uint8Array {
  if (!path.endsWith(".xz")) return Deno.readFileSync(path);
  const { success, stdout } = new Deno.Command(busybox, { args: ["xz", "-dc", path] }).outputSync();
  if (!success) throw new Error(`Cannot decompress ${path}`);
  return stdout;
}

/** The `depends=` of a module's .modinfo section. */
function dependenciesOf(module: Uint8Array): string[] {
  const text = new TextDecoder("latin1").decode(module);
  const list = /\0depends=([^\0]*)\0/.exec(text)?.[1] ?? "";
  return list.split(",").filter((name) => name !== "");
}
