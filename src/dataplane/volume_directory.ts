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
  IntentLog,
  type Manifest,
  ManifestFile,
  type MirrorRecord,
  type Range,
  UnverifiedMap,
  type VerifyRecord,
} from "../volume/mod.ts";
import type { DiskFiles } from "./disk_files.ts";
import { CLAIM_EVERY_MS, CLAIM_WITHIN_MS, whenFree } from "./when_free.ts";

/** What tells whether a mirror keeps a write-intent log, and where. */
type LoggedMirror = Pick<MirrorRecord, "id" | "terms">;

/** What is known of a mirror's sides. */
export interface MirrorMaps {
  readonly map: ChangeMap;
  readonly unverified: UnverifiedMap;
  readonly log: IntentLog | undefined;
}

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
  loadManifest(): Promise<ManifestFile | undefined> {
    return ManifestFile.load(this.files, this.#manifestPath);
  }

  createManifest(manifest: Manifest): Promise<ManifestFile> {
    return ManifestFile.create(this.files, this.#manifestPath, manifest);
  }

  /** For a mirror that begins: nothing is marked, everything is hot. @throws {PsmaError} sys/... */
  async createMaps(record: LoggedMirror, sizeBytes: number): Promise<MirrorMaps> {
    const map = await ChangeMap.create(this.files, this.#mapPath(record.id), sizeBytes);
    const path = this.#unverifiedPath(record.id);
    return await together(
      map,
      () => UnverifiedMap.create(this.files, path, map.chunks, { all: false }),
      () => this.#createLog(record, map.sizeBytes),
    );
  }

  /** What else is known of a mirror that goes on, its map being open. @throws {PsmaError} sys/... */
  async openMaps(record: LoggedMirror, map: ChangeMap): Promise<MirrorMaps> {
    return await together(
      map,
      () => this.#openUnverified(record, map),
      () => this.#openLog(record, map.sizeBytes),
    );
  }

  /** In place of a map that is lost: everything is doubtful. Its log, if it had one, must begin anew with all hot. */
  replaceMap(mirrorId: string, sizeBytes: number): Promise<ChangeMap> {
    return ChangeMap.create(this.files, this.#mapPath(mirrorId), sizeBytes, { doubtful: true });
  }

  /** @throws {PsmaError} state/change-map, sys/... */
  openMap(record: LoggedMirror): ChangeMap {
    const hotIn = (sizeBytes: number) => this.#hotIn(record, sizeBytes);
    return ChangeMap.open(this.files, this.#mapPath(record.id), hotIn);
  }

  /** For a mirror that begins, or whose log cannot be read: everything is hot. @returns undefined without one. */
  async #createLog(
    { id, terms }: LoggedMirror,
    sizeBytes: number,
  ): Promise<IntentLog | undefined> {
    const { files } = this, path = this.#logPath(id);
    if (terms.durability !== "power") {
      // Should one be wanted again, what is there must not be taken for a true one, not even by a power loss.
      if (!files.read(path)) return undefined;
      await files.replace(path, new Uint8Array(0));
      await files.remove(path);
      return undefined;
    }
    return await IntentLog.create(files, files.reactor, path, sizeBytes, { all: true });
  }

  /** For a mirror that goes on, after its map was opened. Hot is what was, or everything. @throws {PsmaError} sys/... */
  async #openLog(record: LoggedMirror, sizeBytes: number): Promise<IntentLog | undefined> {
    const path = this.#logPath(record.id), { files } = this;
    if (this.#hotIn(record, sizeBytes) === undefined) {
      return await this.#createLog(record, sizeBytes);
    }
    const { reactor } = files;
    return await whenFree(reactor, () => IntentLog.open(files, reactor, path, sizeBytes));
  }

  #hotIn({ id, terms }: LoggedMirror, sizeBytes: number): readonly Range[] | undefined {
    if (terms.durability !== "power") return undefined;
    return IntentLog.hotIn(this.files, this.#logPath(id), sizeBytes);
  }

  /** What belongs to a mirror that has ended. */
  async removeMap(mirrorId: string): Promise<void> {
    await this.files.remove(this.#mapPath(mirrorId));
    await this.files.remove(this.#logPath(mirrorId));
    await this.files.remove(this.#unverifiedPath(mirrorId));
  }

  /** What a kill can have left of mirrors that did not come to be, or have ended. */
  async removeOtherMaps(mirrorId: string | undefined): Promise<void> {
    for (const name of this.files.list(this.path)) {
      const [, id, half] = /^(.+)\.(?:map|intent|unverified)(\.tmp)?$/.exec(name) ?? [];
      const isOwn = id === undefined || (id === mirrorId && half === undefined);
      if (!isOwn) await this.files.remove(`${this.path}/${name}`);
    }
  }

  /** For a mirror that goes on. What cannot be known from the file is unverified. */
  async #openUnverified(
    record: LoggedMirror,
    { chunks, sizeBytes, chunkBytes }: ChangeMap,
  ): Promise<UnverifiedMap> {
    const path = this.#unverifiedPath(record.id), hot = this.#hotIn(record, sizeBytes);
    try {
      const inHot = hot && chunksOf(hot, chunkBytes);
      const map = UnverifiedMap.open(this.files, path, chunks, inHot);
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

  #logPath(mirrorId: string): string {
    return `${this.path}/${mirrorId}.intent`;
  }
}

/** All of them, or none: what is open is closed when one fails. */
async function together(
  map: ChangeMap,
  openUnverified: () => Promise<UnverifiedMap>,
  openLog: () => Promise<IntentLog | undefined>,
): Promise<MirrorMaps> {
  let unverified: UnverifiedMap | undefined;
  try {
    unverified = await openUnverified();
    return { map, unverified, log: await openLog() };
  } catch (error) {
    unverified?.close();
    map.close();
    throw error;
  }
}

function* chunksOf(ranges: readonly Range[], chunkBytes: number): Iterable<number> {
  for (const { at, length } of ranges) {
    const end = Math.ceil((at + length) / chunkBytes);
    for (let chunk = Math.floor(at / chunkBytes); chunk < end; chunk++) yield chunk;
  }
}
