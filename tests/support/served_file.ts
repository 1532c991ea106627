/** A volume over a sparse file, served as a mounted file by a data plane of its own. */
import { createLog } from "../../src/core/mod.ts";
import { DataPlane, type DataPlaneEvent } from "../../src/dataplane/mod.ts";
import { removeStale } from "../../src/sys/mod.ts";

export interface ServeFile {
  /** An empty folder for the backing file, the volume's own files and the mounted file. */
  readonly dir: string;
  readonly sizeBytes: number;
  /** Requests in flight. */
  readonly slots?: number;
  /** O_DIRECT on the backing file. */
  readonly direct?: boolean;
  /** The folder holds a volume of an earlier server already. */
  readonly again?: boolean;
}

export interface ServedFile extends AsyncDisposable {
  readonly plane: DataPlane;
  /** The volume's name. */
  readonly volume: string;
  /** Where it is served as a file. */
  readonly path: string;
  /** The file that holds its bytes. */
  readonly backing: string;
  readonly events: readonly DataPlaneEvent[];
  grow(sizeBytes: number): Promise<void>;
}

/** Serves a new volume. Disposal detaches whatever stands on the file, then stops the data plane. */
export async function serveFile(options: ServeFile): Promise<ServedFile> {
  const { dir, sizeBytes, slots, direct = false, again = false } = options;
  const backing = `${dir}/backing`, path = `${dir}/data`, volume = "data";
  if (!again) {
    Deno.writeFileSync(backing, new Uint8Array());
    Deno.truncateSync(backing, sizeBytes);
  }
  const events: DataPlaneEvent[] = [];
  const plane = await DataPlane.start({
    log: createLog({ level: "warn" }),
    onEvent: (event) => events.push(event),
    ...(slots === undefined ? {} : { slots }),
  });
  try {
    await plane.command("openVolume", {
      name: volume,
      directory: `${dir}/state`,
      max_size_bytes: 2 ** 40,
      initial: {
        store: "test",
        store_volume: volume,
        size_bytes: sizeBytes,
        backend: { type: "file", path: backing, direct },
      },
    });
    await plane.command("exportFuse", { name: volume, path });
  } catch (error) {
    await plane.stop();
    throw error;
  }
  return {
    plane,
    volume,
    path,
    backing,
    events,
    async grow(size_bytes) {
      await plane.command("growVolume", { name: volume, size_bytes });
    },
    async [Symbol.asyncDispose]() {
      // A failed test may have left a mount or a loop device: they go first, as nothing is served afterwards.
      await removeStale(path);
      await plane.stop();
    },
  };
}
