/**
 * The directory of a volume's own files: its manifest, and the change map of each mirror by the mirror's id.
 *
 * Who changes anything in it holds its claim, so that two processes never serve one volume from it. A directory
 * that was copied has a claim of its own: there the bytes' own claims decide (file.ts), or their store.
 */
import { PsmaError } from "../core/mod.ts";
import {
  decodeBackupDigests,
  decodeVerifyRecord,
  encodeBackupDigests,
  encodeVerifyRecord,
} from "../codec/mod.ts";
import {
  type BackupDigests,
  ChangeMap,
  type Manifest,
  ManifestFile,
  UnverifiedMap,
  type VerifyRecord,
} from "../volume/mod.ts";
import type { DiskFiles } from "./disk_files.ts";

/** The threads of a process that was killed may end a moment after it. */
export const CLAIM_WITHIN_MS = 10_000;
export const CLAIM_EVERY_MS = 20;

export class VolumeDirectory {
  /** Makes the directory when it is absent. */
  constructor(readonly path: string, readonly files: DiskFiles) {
    files.makeDirectory(path);
  }

  /**
   * Claims the directory, until what is returned is disposed of; waits a moment for who has it.
   * @param name of the volume, for the message. @throws {PsmaError} state/in-use
   */
  async claim(name: string): Promise<Disposable> {
    const { reactor } = this.files;
    for (let waitedMs = 0;; waitedMs += CLAIM_EVERY_MS) {
      const claim = this.files.claim(`${this.path}/lock`);
      if (typeof claim !== "number") return claim;
      if (waitedMs >= CLAIM_WITHIN_MS) throw this.#inUse(name, claim);
      await reactor.sleep(CLAIM_EVERY_MS);
    }
  }

  #inUse(name: string, holder: number): PsmaError {
    const who = holder === 0 ? "another process" : `process ${holder}`;
    return new PsmaError("state/in-use", `Cannot open volume ${name}: ${who} serves it`, {
      hint: `Stop that one first; ${this.path}/lock is claimed by who serves the volume.`,
    });
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

  /** In place of a map that is lost: everything is doubtful. */
  replaceMap(mirrorId: string, sizeBytes: number): Promise<ChangeMap> {
    return ChangeMap.create(this.files, this.#mapPath(mirrorId), sizeBytes, { doubtful: true });
  }

  /** @throws {PsmaError} state/change-map, sys/... */
  openMap(mirrorId: string): ChangeMap {
    return ChangeMap.open(this.files, this.#mapPath(mirrorId));
  }

  /** What belongs to a mirror that has ended. */
  async removeMap(mirrorId: string): Promise<void> {
    await this.files.remove(this.#mapPath(mirrorId));
    await this.files.remove(this.#unverifiedPath(mirrorId));
  }

  /** What a kill can have left of mirrors that did not come to be, or have ended. */
  async removeOtherMaps(mirrorId: string | undefined): Promise<void> {
    for (const name of this.files.list(this.path)) {
      const [, id, half] = /^(.+)\.(?:map|unverified)(\.tmp)?$/.exec(name) ?? [];
      const isOwn = id === undefined || (id === mirrorId && half === undefined);
      if (!isOwn) await this.files.remove(`${this.path}/${name}`);
    }
  }

  /** For a mirror that begins: nothing was written through yet. */
  createUnverified(mirrorId: string, chunks: number): Promise<UnverifiedMap> {
    const path = this.#unverifiedPath(mirrorId);
    return UnverifiedMap.create(this.files, path, chunks, { all: false });
  }

  /** For a mirror that goes on. What cannot be known from the file is unverified. */
  async openUnverified(mirrorId: string, chunks: number): Promise<UnverifiedMap> {
    const path = this.#unverifiedPath(mirrorId);
    try {
      const map = UnverifiedMap.open(this.files, path, chunks);
      if (map) return map;
    } catch {
      // Missing or damaged: it costs one comparison of the whole volume.
    }
    return await UnverifiedMap.create(this.files, path, chunks, { all: true });
  }

  /** How the last verify of a side stands; undefined when there is no record that can be read. */
  loadVerify(side: VerifyRecord["side"]): VerifyRecord | undefined {
    const bytes = this.files.read(this.#verifyPath(side));
    return bytes && decodeVerifyRecord(bytes);
  }

  saveVerify(record: VerifyRecord): Promise<void> {
    return this.files.replace(this.#verifyPath(record.side), encodeVerifyRecord(record));
  }

  /** What a frozen backup is to hold; undefined when nothing can be read of it. */
  loadBackupDigests(): BackupDigests | undefined {
    const bytes = this.files.read(this.#backupDigestsPath);
    return bytes && decodeBackupDigests(bytes);
  }

  saveBackupDigests(list: BackupDigests): Promise<void> {
    return this.files.replace(this.#backupDigestsPath, encodeBackupDigests(list));
  }

  get #manifestPath(): string {
    return `${this.path}/manifest`;
  }

  get #backupDigestsPath(): string {
    return `${this.path}/backup.digests`;
  }

  #verifyPath(side: VerifyRecord["side"]): string {
    return side === "mirror" ? `${this.path}/verify` : `${this.path}/scrub`;
  }

  #unverifiedPath(mirrorId: string): string {
    return `${this.path}/${mirrorId}.unverified`;
  }

  #mapPath(mirrorId: string): string {
    return `${this.path}/${mirrorId}.map`;
  }
}
