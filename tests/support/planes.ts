/** Two data planes as an agent and its store would have them, without the layers above. */
import { DataPlane, type Placement, type QuestionHandlers } from "../../src/dataplane/mod.ts";
import { PsmaError, silentLog } from "../../src/core/mod.ts";
import type { TempDir } from "./temp.ts";

/** An empty thin file as a place for a volume. */
export function thinPlacement(path: string, sizeBytes: number): Placement {
  Deno.writeFileSync(path, new Uint8Array(0), { createNew: true });
  Deno.truncateSync(path, sizeBytes);
  return {
    store: "local",
    store_volume: path,
    size_bytes: sizeBytes,
    backend: { type: "file", path },
  };
}

/** Serves a new volume `data` of a data plane over NBD. @returns its URI. */
export async function serveVolume(
  plane: DataPlane,
  temp: TempDir,
  { initial, max_size_bytes }: { initial: Placement; max_size_bytes: number },
): Promise<string> {
  await plane.command("serveNbd", { listen: { path: temp.file("a.sock") }, fenced: false });
  const directory = temp.file("data");
  await plane.command("openVolume", { name: "data", directory, max_size_bytes, initial });
  const { uri } = await plane.command("exportNbd", { name: "data", description: "test" });
  return uri;
}

/** A fenced NBD server of its own, in this process but on its own thread: a data store's bytes. */
export class FarStore implements AsyncDisposable {
  readonly promoted: Map<string, number> = new Map();
  readonly #claims = new Map<string, { epoch: number; claimant: string }>();

  private constructor(readonly plane: DataPlane, readonly temp: TempDir) {}

  static async start(temp: TempDir): Promise<FarStore> {
    const plane = await DataPlane.start({ log: silentLog });
    await plane.command("serveNbd", { listen: { path: temp.file("far.sock") }, fenced: true });
    return new FarStore(plane, temp);
  }

  /** Makes a volume and gives the placement that a writer of `epoch` uses. */
  async create(name: string, sizeBytes: number, epoch: number): Promise<Placement> {
    const initial = thinPlacement(this.temp.file(`far-${name}`), sizeBytes);
    await this.plane.command("openVolume", {
      name,
      directory: this.temp.file(`far-${name}.d`),
      max_size_bytes: sizeBytes,
      initial,
    });
    const { uri } = await this.plane.command("exportNbd", { name, description: "far" });
    return {
      store: "far",
      store_volume: name,
      size_bytes: sizeBytes,
      backend: { type: "nbd", uri: uri.replace(`/${name}?`, `/${name}@${epoch}?`) },
    };
  }

  /** Deletes a volume that nobody uses any more, and its bytes. */
  async remove(name: string): Promise<void> {
    await this.plane.command("unexportNbd", { name });
    await this.plane.command("closeVolume", { name });
    Deno.removeSync(this.temp.file(`far-${name}`));
    Deno.removeSync(this.temp.file(`far-${name}.d`), { recursive: true });
  }

  /** What an agent's main thread answers to its data plane's questions. */
  get questions(): QuestionHandlers {
    return {
      digests: async ({ target, extents }) => {
        const name = target.store_volume;
        return (await this.plane.command("digestExtents", { name, extents })).digests;
      },
      promote: async ({ target, epoch, claimant }) => {
        this.#claim(target.store_volume, epoch, claimant);
        await this.plane.command("promote", { name: target.store_volume, epoch });
        this.promoted.set(target.store_volume, epoch);
        return null;
      },
      storeEpoch: ({ target }) =>
        Promise.resolve(this.#claims.get(target.store_volume)?.epoch ?? 0),
    };
  }

  /** An epoch belongs to who claimed it first, as at a store. */
  #claim(name: string, epoch: number, claimant: string) {
    const held = this.#claims.get(name);
    const isAnothers = held?.epoch === epoch && held.claimant !== claimant;
    if (held && (epoch < held.epoch || isAnothers)) {
      throw new PsmaError(
        "fenced/stale-epoch",
        `Cannot promote ${name}: its epoch is ${held.epoch}`,
      );
    }
    this.#claims.set(name, { epoch, claimant });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.plane.stop();
  }
}
