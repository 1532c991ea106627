/**
 * What a test machine is made of, besides this machine's own programs: QEMU, kernels and busybox, all
 * from Debian, in `.cache/vm`. They are unpacked there and never installed: nothing of the machine
 * changes, and neither its package sources nor its own QEMU (7.2, whose TCG crashes guests at random).
 *
 * Fetched on Debian 12 (x86-64) only, by set-up: the QEMU of bookworm-backports is linked against the
 * libraries of bookworm. Elsewhere the tests that need a machine are skipped.
 */
import { fileURLToPath } from "node:url";

/** The kernels a test can boot: `6.12` has ublk_drv and nbd as modules; `6.1`, Debian 12's own, has no ublk. */
export type Kernel = "6.12" | "6.1";

const CACHE = fileURLToPath(new URL("../../.cache/vm", import.meta.url));
const PACKAGES_OF: Readonly<Record<Kernel, RegExp>> = {
  "6.12": /^linux-image-6\.12\.\S*-cloud-amd64$/,
  "6.1": /^linux-image-6\.1\.\S*-cloud-amd64$/,
};
const SUITES = ["bookworm", "bookworm-backports"] as const;
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
const FETCH_WAIT_SECONDS = 20;
const decoder = new TextDecoder();

export interface KernelFiles {
  readonly image: string;
  /** `/lib/modules/RELEASE` of the package: compressed modules, no dependency lists. */
  readonly modules: string;
  readonly release: string;
}

/** The files of a kernel. @throws {Error} when set-up has not fetched it. */
export function kernelFiles(kernel: Kernel): KernelFiles {
  const folder = `${CACHE}/kernel-${kernel}`;
  const [release] = [...Deno.readDirSync(`${folder}/lib/modules`)].map(({ name }) => name);
  if (release === undefined) throw new Error(`Cannot boot ${kernel}: ${folder} has no modules`);
  const image = `${folder}/boot/vmlinuz-${release}`;
  return { image, modules: `${folder}/lib/modules/${release}`, release };
}

/** The statically linked busybox. */
export const busybox: string = `${CACHE}/qemu/bin/busybox`;

/** How QEMU is started, as a command with its first arguments and its environment. */
export function qemuCommand(): { path: string; args: string[]; env: Record<string, string> } {
  const usr = `${CACHE}/qemu/usr`;
  return {
    path: `${usr}/bin/qemu-system-x86_64`,
    args: ["-L", `${usr}/share/qemu`, "-L", `${usr}/share/seabios`],
    env: { LD_LIBRARY_PATH: `${usr}/lib/x86_64-linux-gnu` },
  };
}

/** Whether all files are there. */
export function hasVmFiles(): boolean {
  const wanted = [`${CACHE}/qemu`, `${CACHE}/kernel-6.12`, `${CACHE}/kernel-6.1`];
  return wanted.every(isThere);
}

/** Whether set-up can fetch the files on this machine. */
export function canHaveVmFiles(): boolean {
  if (Deno.build.arch !== "x86_64" || !isThere("/etc/os-release") || !isThere(KEYRING)) {
    return false;
  }
  return /^VERSION_CODENAME=bookworm$/m.test(Deno.readTextFileSync("/etc/os-release"));
}

/** Fetches what is missing (about 80 MB). Says why it cannot; never throws. */
export function fetchVmFiles(say: (line: string) => void): void {
  if (hasVmFiles() || !canHaveVmFiles()) return;
  say("set-up: fetching QEMU and kernels for the test machines");
  Deno.mkdirSync(CACHE, { recursive: true });
  const work = Deno.makeTempDirSync({ dir: CACHE, prefix: ".new" });
  try {
    const apt = new PrivateApt(work);
    for (const kernel of ["6.12", "6.1"] as const) {
      place(apt.download([newestKernel(apt, kernel)]), `${work}/kernel-${kernel}`);
    }
    place(apt.downloadWithDependencies(["qemu-system-x86", "busybox-static"]), `${work}/qemu`);
  } catch (error) {
    say(
      `set-up: cannot fetch the test machines: ${error instanceof Error ? error.message : error}`,
    );
  } finally {
    Deno.removeSync(work, { recursive: true });
  }
}

/** Unpacks packages and moves the result to its place; where another run was faster, its result stays. */
function place(packages: readonly string[], folder: string): void {
  for (const file of packages) command("dpkg-deb", ["-x", file, folder]);
  const target = `${CACHE}/${folder.slice(folder.lastIndexOf("/") + 1)}`;
  if (!isThere(target)) Deno.renameSync(folder, target);
}

function newestKernel(apt: PrivateApt, kernel: Kernel): string {
  const { compare } = new Intl.Collator("en", { numeric: true });
  const newest = apt.names().filter((name) => PACKAGES_OF[kernel].test(name)).sort(compare).at(-1);
  if (newest === undefined) throw new Error(`Debian has no cloud kernel ${kernel}`);
  return newest;
}

/** apt with sources, lists and archives of its own; it only reads the machine's list of what is installed. */
class PrivateApt {
  readonly #options: readonly string[];

  constructor(readonly folder: string) {
    for (const name of ["lists/partial", "archives/partial"]) {
      Deno.mkdirSync(`${folder}/${name}`, { recursive: true });
    }
    const source = (suite: string) =>
      `deb [signed-by=${KEYRING}] http://deb.debian.org/debian ${suite} main\n`;
    Deno.writeTextFileSync(`${folder}/sources.list`, SUITES.map(source).join(""));
    Deno.writeTextFileSync(`${folder}/status`, installedButOurs());
    this.#options = [
      `Dir::State::lists=${folder}/lists`,
      `Dir::Cache=${folder}`,
      `Dir::Etc::sourcelist=${folder}/sources.list`,
      "Dir::Etc::sourceparts=-",
      `Dir::State::status=${folder}/status`,
      "APT::Sandbox::User=root",
      "Debug::NoLocking=true",
      `Acquire::http::Timeout=${FETCH_WAIT_SECONDS}`,
    ].flatMap((option) => ["-o", option]);
    command("apt-get", [...this.#options, "update", "-qq"]);
  }

  /** The names of all packages. */
  names(): string[] {
    return command("apt-cache", [...this.#options, "pkgnames", "linux-image"]).split("\n");
  }

  /** @returns the files of these packages. */
  download(names: readonly string[]): string[] {
    const folder = Deno.makeTempDirSync({ dir: this.folder, prefix: "deb" });
    command("apt-get", [...this.#options, "-qq", "download", ...names], folder);
    return packagesIn(folder);
  }

  /** @returns the files of these packages, from backports where it has them, and of what they need and this machine lacks. */
  downloadWithDependencies(names: readonly string[]): string[] {
    const how = ["-qq", "-y", "--no-install-recommends", "--download-only"];
    command("apt-get", [...this.#options, ...how, "-t", SUITES[1], "install", ...names]);
    return packagesIn(`${this.folder}/archives`);
  }
}

/** The machine's list of what is installed, without what must be fetched even so: all that is not a library. */
function installedButOurs(): string {
  const ours = /^Package: (qemu-|seabios$|ipxe-qemu$|busybox)/m;
  return Deno.readTextFileSync("/var/lib/dpkg/status").split("\n\n")
    .filter((paragraph) => !ours.test(paragraph)).join("\n\n");
}

function packagesIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => `${folder}/${name}`)
    .filter((path) => path.endsWith(".deb"));
}

function command(path: string, args: readonly string[], cwd = CACHE): string {
  const { success, stdout, stderr } = new Deno.Command(path, {
    args: [...args],
    cwd,
    env: { DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).outputSync();
  if (!success) throw new Error(`${path}: ${decoder.decode(stderr).trim().split("\n").at(-1)}`);
  return decoder.decode(stdout);
}

function isThere(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
