/**
 * Writes a cpio archive (format newc, Linux Documentation/driver-api/early-userspace/buffer-format.rst):
 * what a kernel unpacks as its first root file system. Plain files, folders and symbolic links; all root's.
 */

const encoder = new TextEncoder();
const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;
const S_IFLNK = 0o120000;
const COPY_BYTES = 1 << 20;

export class CpioWriter {
  #inode = 1;
  readonly #folders = new Set<string>();
  readonly #files = new Set<string>();

  /** @param out an open file; closed by {@linkcode CpioWriter.close}. */
  constructor(readonly out: Deno.FsFile) {}

  /** Adds a folder and those above it. */
  folder(path: string): void {
    const parts = path.split("/").filter((part) => part !== "");
    for (let depth = 1; depth <= parts.length; depth++) {
      const name = parts.slice(0, depth).join("/");
      if (this.#folders.has(name)) continue;
      this.#folders.add(name);
      this.#header(name, S_IFDIR | 0o755, 0);
    }
  }

  /** Adds a file of the host, what a symbolic link leads to rather than the link. A second one of the same path is left out. */
  file(path: string, from: string): void {
    if (!this.#isNew(path)) return;
    const { mode, size } = Deno.statSync(from);
    this.#header(path, S_IFREG | ((mode ?? 0o644) & 0o755), size);
    using source = Deno.openSync(from);
    const buffer = new Uint8Array(COPY_BYTES);
    let copied = 0;
    for (let got = source.readSync(buffer); got !== null; got = source.readSync(buffer)) {
      this.#write(buffer.subarray(0, got));
      copied += got;
    }
    if (copied !== size) throw new Error(`Cannot pack ${from}: it changed while it was read`);
    this.#pad(size);
  }

  /** Adds a file with the given bytes. */
  bytes(path: string, bytes: Uint8Array, mode = 0o644): void {
    if (!this.#isNew(path)) return;
    this.#header(path, S_IFREG | mode, bytes.length);
    this.#write(bytes);
    this.#pad(bytes.length);
  }

  /** Adds a symbolic link. */
  link(path: string, target: string): void {
    if (!this.#isNew(path)) return;
    const bytes = encoder.encode(target);
    this.#header(path, S_IFLNK | 0o777, bytes.length);
    this.#write(bytes);
    this.#pad(bytes.length);
  }

  /** Adds a folder of the host with all below it. */
  tree(path: string, from: string): void {
    this.folder(path);
    for (const entry of Deno.readDirSync(from)) {
      const [below, source] = [`${path}/${entry.name}`, `${from}/${entry.name}`];
      if (entry.isDirectory) this.tree(below, source);
      else this.file(below, source);
    }
  }

  close(): void {
    this.#header("TRAILER!!!", 0, 0);
    this.out.close();
  }

  #isNew(path: string): boolean {
    if (this.#files.has(path)) return false;
    this.#files.add(path);
    this.folder(path.slice(0, path.lastIndexOf("/") + 1));
    return true;
  }

  #header(path: string, mode: number, size: number): void {
    const name = encoder.encode(`${path.replace(/^\//, "")}\0`);
    const hex = (value: number) => value.toString(16).padStart(8, "0");
    // inode, mode, user, group, links, mtime, size, device (2), node's device (2), length of the name, check
    const fields = [this.#inode++, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.length, 0];
    const head = encoder.encode(`070701${fields.map(hex).join("")}`);
    this.#write(head);
    this.#write(name);
    this.#pad(head.length + name.length);
  }

  #pad(length: number): void {
    this.#write(new Uint8Array(-length & 3));
  }

  #write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) at += this.out.writeSync(bytes.subarray(at));
  }
}
