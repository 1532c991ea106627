/**
 * The scrub of a frozen backup. It differs from the live volume by right, so it is compared with digests of
 * its own: taken when it is first read after the switch, kept in the volume's directory, keyed by the place
 * and the epoch. What rotted before that first reading is not seen; what rots later is, by extent.
 *
 * A scrub goes at its own rate and does not heed the application's latency: the backup is at another store,
 * or at least another file, and nobody waits for it. Nothing is repaired: the volume has moved on.
 */
import { PsmaError } from "../core/mod.ts";
import type { Backend } from "../backend/mod.ts";
import { DIGEST_ALGORITHM, Verify, type VerifyOptions } from "../mirror/mod.ts";
import type { BackupDigests, DifferingRange, Placement } from "../volume/mod.ts";
import { digestExtents } from "./digests.ts";
import type { VerifySubject } from "./verification.ts";
import { openBackend, type VolumeParts } from "./volume_opening.ts";

const EXTENT_BYTES = 256 * 1024;
/** Where no other rate is asked for. */
const RATE_BYTES_PER_S = 64 * 2 ** 20;
/** A list of digests grows to megabytes: it is not written each time that the cursor is. */
const SAVE_LIST_EVERY_MS = 60_000;

export class BackupScrub implements VerifySubject {
  readonly side = "backup";
  readonly wouldDiffer = "The backup";
  #backend: Backend | undefined;
  #digests: Uint8Array = new Uint8Array();
  #digestBytes = 0;
  #recorded = 0;
  /** Of what it was begun: a switch may put another backup in its place meanwhile. */
  #begunOf: string | undefined;
  #savedMs = -Infinity;

  constructor(readonly parts: VolumeParts) {}

  /** A followed backup is compared as a mirror is. */
  get #backup(): Placement | undefined {
    const { backup, backup_mode } = this.parts.manifest.current;
    return backup && backup_mode === "frozen" ? backup : undefined;
  }

  of(): string | undefined {
    const backup = this.#backup;
    const { backup_rest, last_cutover } = this.parts.manifest.current;
    // Not the volume's epoch, which rises at each opening.
    const left_at = `@${last_cutover?.epoch ?? 0} ${backup_rest?.at ?? ""}`;
    return backup && `${backup.store}/${backup.store_volume}${left_at}`;
  }

  get totalBytes(): number {
    return this.#backup?.size_bytes ?? 0;
  }

  /** @throws {PsmaError} state/no-backup */
  need(): void {
    const { name } = this.parts.volume;
    if (this.#backup) return;
    throw new PsmaError(
      "state/no-backup",
      `Cannot verify the backup of ${name}: it has no frozen one`,
      { hint: "A backup that is followed is compared by psma mirror verify without --backup." },
    );
  }

  async start(options: Pick<VerifyOptions, "record" | "save" | "onEnd">): Promise<Verify> {
    const { context, volume, emit } = this.parts;
    const { backend } = this.#backup as Placement;
    this.#begunOf = this.of();
    this.#load();
    const record = {
      ...options.record,
      max_rate_bytes_per_s: options.record.max_rate_bytes_per_s ?? RATE_BYTES_PER_S,
      // What was recorded after the list was last saved is to be recorded again.
      done_bytes: this.#isWhole
        ? options.record.done_bytes
        : Math.min(options.record.done_bytes, this.#recorded * EXTENT_BYTES),
    };
    const opened = await openBackend(backend, context, undefined, volume.name);
    opened.setLossPolicy("fail");
    this.#backend = opened;
    const verify = new Verify({
      record,
      save: async (now) => {
        await this.#saveList(now.state !== "running");
        await options.save(now);
      },
      onEnd: (ended) => {
        context.supervise("closing a backup", this.close());
        options.onEnd(ended);
      },
      turns: context.reactor,
      clock: context.clock,
      sides: {
        chunkBytes: EXTENT_BYTES,
        compare: (chunks) => this.#compare(chunks),
        compareLocked: () => Promise.resolve("busy"),
        holes: () => Promise.resolve(new Set()),
        rangeOf: (chunk) => this.#rangeOf(chunk),
      },
      admit: () => Promise.resolve(),
      waitsFor: () => this.#isSame ? undefined : "there is another backup now, or none",
      onMismatch: ({ at, length }, tell) => {
        const message = `The backup of ${volume.name} has changed from byte ${at} on`;
        if (tell) emit("backup.verify-mismatch", "error", message, { at, length });
      },
    });
    verify.start();
    return verify;
  }

  async close(): Promise<void> {
    const backend = this.#backend;
    this.#backend = undefined;
    await backend?.close();
  }

  /** Gives up waiting for a backup that does not answer. */
  abort(): void {
    this.#backend?.abort();
  }

  async #compare(chunks: readonly number[]) {
    const verdicts = new Map<number, "equal" | "unequal" | "recorded">();
    const digests = await this.#digestsOf(chunks);
    if (!this.#isSame) {
      throw new PsmaError("state/ended", "Cannot go on: the backup is another one");
    }
    for (const [index, chunk] of chunks.entries()) {
      const digest = digests[index] as Uint8Array;
      if (chunk >= this.#recorded) {
        this.#record(chunk, digest);
        verdicts.set(chunk, "recorded");
      } else if (this.#isAsRecorded(chunk, digest)) verdicts.set(chunk, "equal");
      else {
        // Read once more: a fault on the way here is none of the backup's.
        const [again] = await this.#digestsOf([chunk]);
        const same = again !== undefined && this.#isAsRecorded(chunk, again);
        verdicts.set(chunk, same ? "equal" : "unequal");
      }
    }
    return verdicts;
  }

  async #digestsOf(chunks: readonly number[]): Promise<Uint8Array[]> {
    const { calls, digest } = this.parts.context;
    const backend = this.#backend;
    if (!backend) throw new PsmaError("state/ended", "Cannot read the backup: it is closed");
    const ranges = chunks.map((chunk) => this.#rangeOf(chunk));
    const { digests } = await digestExtents(backend, ranges, calls, digest);
    return digests.map((hex) => Uint8Array.fromHex(hex));
  }

  #record(chunk: number, digest: Uint8Array) {
    this.#digestBytes = digest.length;
    const at = chunk * digest.length;
    if (this.#digests.length === 0) {
      this.#digests = new Uint8Array(Math.ceil(this.totalBytes / EXTENT_BYTES) * digest.length);
    }
    this.#digests.set(digest, at);
    this.#recorded = chunk + 1;
  }

  #isAsRecorded(chunk: number, digest: Uint8Array): boolean {
    const at = chunk * this.#digestBytes;
    return digest.every((byte, index) => byte === this.#digests[at + index]);
  }

  #rangeOf(chunk: number): DifferingRange {
    const at = chunk * EXTENT_BYTES;
    return { at, length: Math.min(EXTENT_BYTES, this.totalBytes - at) };
  }

  get #isSame(): boolean {
    return this.#begunOf !== undefined && this.of() === this.#begunOf;
  }

  get #isWhole(): boolean {
    return this.#recorded * EXTENT_BYTES >= this.totalBytes;
  }

  #load() {
    const list = this.parts.directory.loadBackupDigests();
    const fits = list?.of === this.of() && list?.extent_bytes === EXTENT_BYTES &&
      list?.algorithm === DIGEST_ALGORITHM;
    this.#recorded = list && fits ? list.digests.length / list.digest_bytes : 0;
    this.#digestBytes = list?.digest_bytes ?? 0;
    const extents = Math.ceil(this.totalBytes / EXTENT_BYTES);
    this.#digests = new Uint8Array(fits ? extents * this.#digestBytes : 0);
    if (list && fits) this.#digests.set(list.digests);
    this.#savedMs = this.#isWhole ? Infinity : this.parts.context.clock.monotonicMs();
  }

  /** Nothing is written once the list is whole and saved. */
  async #saveList(isLast: boolean) {
    const now = this.parts.context.clock.monotonicMs(), of = this.#begunOf;
    if (of === undefined || !this.#isSame || this.#savedMs === Infinity) return;
    if (!isLast && !this.#isWhole && now - this.#savedMs < SAVE_LIST_EVERY_MS) return;
    const list: BackupDigests = {
      of,
      algorithm: DIGEST_ALGORITHM,
      extent_bytes: EXTENT_BYTES,
      digest_bytes: this.#digestBytes,
      digests: this.#digests.slice(0, this.#recorded * this.#digestBytes),
    };
    if (this.#recorded > 0) await this.parts.directory.saveBackupDigests(list);
    this.#savedMs = this.#isWhole ? Infinity : now;
  }
}
