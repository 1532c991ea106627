/**
 * The sample journal on disk: what was measured and is not yet durable in the database.
 *
 * A directory of segments named by the sequence number of their first sample. The parent appends to the
 * newest; `rotate` begins another so that the older ones can be read and dropped. The newest segment is
 * never dropped: its name carries the numbering over a restart, which is what makes ingestion
 * exactly-once (the database remembers the highest number it holds).
 *
 * Faults expected: kill -9 (a torn last record is cut off on opening), a full disk (the append fails and
 * says so), a database that cannot take samples for long (the oldest segment is dropped). A power cut may
 * lose the samples of the last seconds: segments are synced when they are rotated, not at each append.
 */
import { assert, type Log, need, PsmaError, syncDirectorySync } from "../core/mod.ts";
import {
  decodeSegment,
  encodeRecord,
  encodeSegmentHeader,
  SEGMENT_HEADER_BYTES,
} from "./journal_codec.ts";
import type { Sample } from "./types.ts";

const SEGMENT_NAME = /^(\d{16})\.psmj$/;
const SAMPLES_PER_RECORD_MAX = 1000;

export interface JournalOptions {
  readonly dir: string;
  readonly log: Log;
  /** Numbering of a journal that has no segment yet; must exceed every number used before. */
  readonly first_seq: number;
  readonly segment_bytes_max?: number;
  readonly journal_bytes_max?: number;
}

interface Segment {
  readonly first_seq: number;
  readonly path: string;
  bytes: number;
  /** Below `first_seq` while the segment is empty. */
  last_seq: number;
}

export class Journal {
  readonly #dir: string;
  readonly #log: Log;
  readonly #segmentBytesMax: number;
  readonly #journalBytesMax: number;
  /** Oldest first; the last one is written to. */
  #segments: Segment[] = [];
  #file: Deno.FsFile | undefined;
  #nextSeq: number;

  private constructor(options: JournalOptions) {
    this.#dir = options.dir;
    this.#log = options.log;
    this.#segmentBytesMax = options.segment_bytes_max ?? 1 << 20;
    this.#journalBytesMax = options.journal_bytes_max ?? 16 << 20;
    this.#nextSeq = options.first_seq;
  }

  /** Opens or begins the journal in `dir`; cuts a torn tail off. @throws {PsmaError} io/journal */
  static open(options: JournalOptions): Journal {
    const journal = new Journal(options);
    journal.#guard("open", () => {
      Deno.mkdirSync(options.dir, { recursive: true, mode: 0o700 });
      journal.#recover();
    });
    return journal;
  }

  /** The number the next sample gets. */
  get nextSeq(): number {
    return this.#nextSeq;
  }

  get bytes(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.bytes, 0);
  }

  /** Appends samples; they survive the death of this process. @throws {PsmaError} io/journal */
  append(samples: readonly Sample[]): void {
    for (let at = 0; at < samples.length; at += SAMPLES_PER_RECORD_MAX) {
      const part = samples.slice(at, at + SAMPLES_PER_RECORD_MAX);
      this.#guard("append to", () => this.#write(encodeRecord(this.#nextSeq, part)));
      this.#nextSeq += part.length;
      this.#newest().last_seq = this.#nextSeq - 1;
    }
    if (this.#newest().bytes > this.#segmentBytesMax) this.rotate();
  }

  /** Begins a new segment. @returns paths of all older ones, oldest first: complete, not written any more. */
  rotate(): string[] {
    if (this.#newest().bytes > SEGMENT_HEADER_BYTES) {
      this.#guard("rotate", () => {
        const previous = this.#file;
        previous?.syncDataSync();
        this.#begin();
        previous?.close();
      });
      this.#dropBeyondLimit();
    }
    return this.#segments.slice(0, -1).map((segment) => segment.path);
  }

  /** Deletes the segments whose every sample has a number up to `seq`. */
  drop(seq: number): void {
    while (this.#segments.length > 1 && need(this.#segments[0], "segment").last_seq <= seq) {
      this.#remove(need(this.#segments.shift(), "segment"));
    }
  }

  close(): void {
    this.#file?.close();
    this.#file = undefined;
  }

  #newest(): Segment {
    return need(this.#segments.at(-1), "segment");
  }

  /** A record that was written in part is taken back, so that later ones stay readable. */
  #write(record: Uint8Array): void {
    const file = need(this.#file, "journal file");
    const segment = this.#newest();
    try {
      for (let done = 0; done < record.length;) done += file.writeSync(record.subarray(done));
    } catch (error) {
      file.truncateSync(segment.bytes);
      file.seekSync(segment.bytes, Deno.SeekMode.Start);
      throw error;
    }
    segment.bytes += record.length;
  }

  #recover(): void {
    const names = [...Deno.readDirSync(this.#dir)].map((entry) => entry.name)
      .filter((name) => SEGMENT_NAME.test(name)).sort();
    for (const name of names) this.#adopt(`${this.#dir}/${name}`);
    if (this.#segments.length === 0) return this.#begin();
    const newest = this.#newest();
    this.#nextSeq = newest.last_seq + 1;
    this.#file = Deno.openSync(newest.path, { read: true, write: true });
    this.#file.truncateSync(newest.bytes);
    this.#file.seekSync(newest.bytes, Deno.SeekMode.Start);
  }

  #adopt(path: string): void {
    const decoded = decodeSegment(Deno.readFileSync(path));
    if (!decoded) {
      this.#log.warn("journal segment is damaged and was dropped", { path });
      return Deno.removeSync(path);
    }
    const { first_seq, good_bytes } = decoded;
    const last_seq = decoded.samples.at(-1)?.seq ?? first_seq - 1;
    this.#segments.push({ first_seq, path, bytes: good_bytes, last_seq });
  }

  #begin(): void {
    const first_seq = this.#nextSeq;
    assert(Number.isSafeInteger(first_seq) && first_seq >= 0, "sequence number out of range");
    const path = `${this.#dir}/${String(first_seq).padStart(16, "0")}.psmj`;
    const file = Deno.openSync(path, { create: true, truncate: true, write: true, mode: 0o600 });
    try {
      file.writeSync(encodeSegmentHeader(first_seq));
      file.syncDataSync();
      syncDirectorySync(this.#dir);
    } catch (error) {
      file.close();
      throw error;
    }
    this.#file = file;
    this.#segments.push({ first_seq, path, bytes: SEGMENT_HEADER_BYTES, last_seq: first_seq - 1 });
  }

  #dropBeyondLimit(): void {
    while (this.#segments.length > 1 && this.bytes > this.#journalBytesMax) {
      const oldest = need(this.#segments.shift(), "segment");
      this.#log.warn("journal is full: oldest samples dropped", { path: oldest.path });
      this.#remove(oldest);
    }
  }

  #remove(segment: Segment): void {
    try {
      Deno.removeSync(segment.path);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  #guard<T>(what: string, work: () => T): T {
    try {
      return work();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new PsmaError(
        "io/journal",
        `Cannot ${what} sample journal: ${this.#dir} is failing: ${reason}`,
        {
          cause: error,
          hint: "Check that the state directory has free space and can be written.",
        },
      );
    }
  }
}
