/** The manifest's file: read at start, replaced atomically at every change. */
import { PsmaError } from "../core/mod.ts";
import { decodeManifest, encodeManifest, type Manifest, type Placement } from "../codec/mod.ts";
import type { VolumeFiles } from "./files.ts";

/** The manifest of a volume whose bytes begin at `active`. */
export function newManifest(name: string, active: Placement): Manifest {
  return {
    name,
    size_bytes: active.size_bytes,
    epoch: 1,
    active,
    mirror: null,
    prepare: null,
    backup: null,
    backup_mode: "frozen",
    backup_rest: null,
    last_cutover: null,
  };
}

export class ManifestFile {
  #current: Manifest;
  #last: Promise<void> = Promise.resolve();
  #closed = false;

  private constructor(readonly files: VolumeFiles, readonly path: string, manifest: Manifest) {
    this.#current = manifest;
  }

  /** @returns undefined when there is none yet. @throws {PsmaError} state/manifest when it is damaged, sys/... */
  static async load(files: VolumeFiles, path: string): Promise<ManifestFile | undefined> {
    const bytes = files.read(path);
    if (bytes === undefined) return undefined;
    await files.settle(path);
    return new ManifestFile(files, path, decodeManifest(bytes, path));
  }

  static async create(
    files: VolumeFiles,
    path: string,
    manifest: Manifest,
  ): Promise<ManifestFile> {
    await files.replace(path, encodeManifest(manifest));
    return new ManifestFile(files, path, manifest);
  }

  get current(): Manifest {
    return this.#current;
  }

  /**
   * Makes a changed manifest durable; changes are applied one after another.
   * @throws {PsmaError} sys/... when a step fails: `current` is then unchanged, but the disk may have either.
   */
  commit(change: (manifest: Manifest) => Manifest): Promise<void> {
    const commit = this.#last.then(async () => {
      if (this.#closed) {
        throw new PsmaError("state/closed", `Cannot change ${this.path}: its volume is closed`);
      }
      const next = change(this.#current);
      await this.files.replace(this.path, encodeManifest(next));
      this.#current = next;
    });
    this.#last = commit.catch(() => {});
    return commit;
  }

  /** Waits for a change that is under way, and takes no other: the next to open the volume owns the file. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#last;
  }
}
