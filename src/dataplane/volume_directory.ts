/** The directory of a volume's own files: its manifest, and the change map of each mirror by the mirror's id. */
import { ChangeMap, type Manifest, ManifestFile } from "../volume/mod.ts";
import type { DiskFiles } from "./disk_files.ts";

export class VolumeDirectory {
  /** Makes the directory when it is absent. */
  constructor(readonly path: string, readonly files: DiskFiles) {
    files.makeDirectory(path);
  }

  /** @returns undefined when the volume was never made. @throws {PsmaError} state/manifest */
  loadManifest(): ManifestFile | undefined {
    return ManifestFile.load(this.files, this.#manifestPath);
  }

  createManifest(manifest: Manifest): Promise<ManifestFile> {
    return ManifestFile.create(this.files, this.#manifestPath, manifest);
  }

  createMap(mirrorId: string, sizeBytes: number): Promise<ChangeMap> {
    return ChangeMap.create(this.files, this.#mapPath(mirrorId), sizeBytes);
  }

  /** In place of a map that is lost: everything is dirty. */
  replaceMap(mirrorId: string, sizeBytes: number): Promise<ChangeMap> {
    return ChangeMap.create(this.files, this.#mapPath(mirrorId), sizeBytes, { dirty: true });
  }

  /** @throws {PsmaError} state/change-map, sys/... */
  openMap(mirrorId: string): ChangeMap {
    return ChangeMap.open(this.files, this.#mapPath(mirrorId));
  }

  removeMap(mirrorId: string): void {
    this.files.remove(this.#mapPath(mirrorId));
  }

  get #manifestPath(): string {
    return `${this.path}/manifest`;
  }

  #mapPath(mirrorId: string): string {
    return `${this.path}/${mirrorId}.map`;
  }
}
