/** What is mounted where, as /proc/self/mountinfo tells; nothing mounted is touched to learn it. */

/** The type under which /proc/self/mountinfo lists volumes that PSMA serves as files. */
export const FUSE_TYPE = "fuse.psma";

export interface MountEntry {
  /** Where it is mounted. */
  readonly at: string;
  /** The file system's type: `xfs`, `fuse.psma`. */
  readonly type: string;
  /** The device, or whatever name the file system gave. */
  readonly source: string;
}

/** Decodes /proc/self/mountinfo (proc(5)), in the order of mounting. */
function decodeMountinfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split("\n")) {
    const [before = "", after = ""] = line.split(" - ");
    const at = before.split(" ")[4], [type, source] = after.split(" ");
    if (at === undefined || type === undefined || source === undefined) continue;
    entries.push({ at: unescapeOctal(at), type, source: unescapeOctal(source) });
  }
  return entries;
}

/** What this process's name space has mounted. */
export function listMounts(): MountEntry[] {
  return decodeMountinfo(Deno.readTextFileSync("/proc/self/mountinfo"));
}

/** What is mounted right on `path`, the topmost last. */
export function mountsAt(path: string): MountEntry[] {
  const real = realMountPoint(path);
  return listMounts().filter((entry) => entry.at === real);
}

/** Mount points below `prefix` whose server has gone, so that whoever looks at them is told `not connected`. */
export async function deadMounts(prefix = "/"): Promise<string[]> {
  const dead: string[] = [];
  for (const { at } of listMounts()) {
    if (!at.startsWith(prefix)) continue;
    try {
      await Deno.stat(at);
    } catch (error) {
      if (error instanceof Deno.errors.NotConnected) dead.push(at);
    }
  }
  return dead;
}

/**
 * A mount point's path as the kernel lists it: absolute and without symbolic links. What is mounted there is
 * not touched, because whoever serves it may be this very thread, or gone.
 */
export function realMountPoint(path: string): string {
  const at = path.replace(/(.)\/+$/, "$1"), slash = at.lastIndexOf("/");
  try {
    const folder = Deno.realPathSync(slash < 0 ? "." : at.slice(0, slash) || "/");
    const real = `${folder === "/" ? "" : folder}/${at.slice(slash + 1)}`;
    if (listMounts().some((entry) => entry.at === real)) return real;
    return Deno.lstatSync(real).isSymlink ? Deno.realPathSync(real) : real;
  } catch {
    // Nothing there, so nothing mounted either.
    return at;
  }
}

/** /proc writes blanks and backslashes as octal escapes. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits) => String.fromCharCode(parseInt(digits, 8)));
}
