/** The data plane's half of a store server: each volume open, exported and fenced. */
import { PsmaError } from "../../core/mod.ts";
import type { DataPlane, NbdServerStatistics } from "../../dataplane/mod.ts";
import type { Extent } from "../store.ts";
import type { VolumeFolders } from "../volume_folders.ts";
import type { VolumeRecord } from "../volume_record.ts";
import type { DigestsBody } from "../wire.ts";

/** The name of the store inside the server's own manifests: there is but one. */
const STORE = "local";

export class ServedVolumes {
  constructor(readonly plane: DataPlane) {}

  /** What the NBD server has seen. */
  async nbdStatistics(): Promise<NbdServerStatistics | null> {
    return await this.plane.command("nbdStatistics", null);
  }

  /**
   * Opens and exports, fenced from the first moment: an old writer that reconnects finds no gap.
   * @returns the NBD URI without an epoch, and the size that the data plane has.
   */
  async open(
    record: VolumeRecord,
    folders: VolumeFolders,
  ): Promise<{ uri: string; size_bytes: number }> {
    const { id, size_bytes, epoch } = record;
    const backend = { type: "file", path: folders.dataPath(id) } as const;
    const status = await this.plane.command("openVolume", {
      name: id,
      directory: folders.planePath(id),
      max_size_bytes: size_bytes,
      initial: { store: STORE, store_volume: id, size_bytes, backend },
    });
    const { uri } = await this.plane.command("exportNbd", { name: id, description: id, epoch });
    return { uri: this.plane.tlsUri(id) ?? uri, size_bytes: status.size_bytes };
  }

  /** Takes the volume off the list, cuts its sessions and closes it; no error when that was done before. */
  async close(id: string): Promise<void> {
    await this.plane.command("unexportNbd", { name: id });
    try {
      await this.plane.command("closeVolume", { name: id });
    } catch (error) {
      if (!(error instanceof PsmaError) || error.code !== "not-found/volume") throw error;
    }
  }

  async grow(id: string, size_bytes: number): Promise<void> {
    await this.plane.command("setMaxSize", { name: id, max_size_bytes: size_bytes });
    await this.plane.command("growVolume", { name: id, size_bytes });
  }

  async promote(id: string, epoch: number): Promise<void> {
    await this.plane.command("promote", { name: id, epoch });
  }

  digests(id: string, extents: readonly Extent[]): Promise<DigestsBody> {
    return this.plane.command("digestExtents", { name: id, extents });
  }
}
