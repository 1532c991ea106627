/** The manifest's file: read at start, replaced atomically at every change. */
import { decodeManifest, encodeManifest, type Manifest } from "../codec/mod.ts";
import type { Reactor } from "../sys/mod.ts";

export class ManifestFile {
  #current: Manifest;
  #last: Promise<void> = Promise.resolve();

  private constructor(readonly path: string, readonly reactor: Reactor, manifest: Manifest) {
    this.#current = manifest;
  }

  /** @returns undefined when there is none yet. @throws {PsmaError} state/manifest when it is damaged. */
  static load(path: string, reactor: Reactor): ManifestFile | undefined {
    let bytes: Uint8Array;
    try {
      bytes = Deno.readFileSync(path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
    return new ManifestFile(path, reactor, decodeManifest(bytes, path));
  }

  static async create(path: string, manifest: Manifest, reactor: Reactor): Promise<ManifestFile> {
    const file = new ManifestFile(path, reactor, manifest);
    await reactor.replaceFile(path, encodeManifest(manifest));
    return file;
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
      const next = change(this.#current);
      await this.reactor.replaceFile(this.path, encodeManifest(next));
      this.#current = next;
    });
    this.#last = commit.catch(() => {});
    return commit;
  }
}
