/**
 * A mirror in small, with a real change map and a real write-intent log over a disk that tells what a power
 * loss could leave. Both sides hold versions: of each chunk the last one that is durable, up to the newest that
 * was sent, any of which may be found afterwards.
 */
import { ok } from "node:assert/strict";
import { CHANGE_MAP_HEADER_BYTES, decodeIntentLog, planeBytes } from "../../src/codec/mod.ts";
import { ChangeMap, CHUNK_BYTES, IntentLog, REGION_BYTES } from "../../src/volume/mod.ts";
import { PowerFiles } from "./power_files.ts";
import { promiseTurns } from "./promise_turns.ts";

const REGIONS = 5, CHUNKS_PER_REGION = REGION_BYTES / CHUNK_BYTES;
/** Two a region: others would only be more of the same. */
const CHUNKS = Array.from(
  { length: 2 * REGIONS },
  (_, i) => (i >> 1) * CHUNKS_PER_REGION + (i % 2) * (CHUNKS_PER_REGION - 1),
);
const MAP = "m.map", LOG = "m.log";

/** One side's bytes of each chunk. */
class Side {
  readonly sent = new Map<number, number>(CHUNKS.map((chunk) => [chunk, 0]));
  readonly durable = new Map<number, number>(CHUNKS.map((chunk) => [chunk, 0]));

  newest(chunk: number): number {
    return this.sent.get(chunk) as number;
  }

  oldest(chunk: number): number {
    return this.durable.get(chunk) as number;
  }
}

export class IntentModel {
  readonly #source = new Side();
  readonly #target = new Side();
  /** Writes of the application, and copies, that are under way. */
  readonly #writes = new Map<number, { readonly through: boolean }>();
  readonly #copies = new Set<number>();
  #writeThrough = false;
  #cooling: Promise<void> | undefined;
  #flushing: Promise<boolean> | undefined;
  #version = 0;

  private constructor(
    readonly files: PowerFiles,
    readonly map: ChangeMap,
    readonly log: IntentLog,
  ) {}

  static async create(): Promise<IntentModel> {
    const files = new PowerFiles(), size = REGIONS * REGION_BYTES;
    const map = await ChangeMap.create(files, MAP, size);
    const log = await IntentLog.create(files, promiseTurns, LOG, size, {
      all: false,
      regionBytes: REGION_BYTES,
    });
    return new IntentModel(files, map, log);
  }

  /** One thing happens, wherever it may. */
  async step(what: number, where: number): Promise<void> {
    const chunk = CHUNKS[where % CHUNKS.length] as number;
    if (what < 25) this.#write(chunk);
    else if (what < 40) this.#copy(chunk);
    else if (what < 55) this.#cool();
    else if (what < 58) this.#writeThrough = !this.#writeThrough || this.#leaveTarget();
    else if (what < 62) this.#flushTarget().catch(() => {});
    else this.#endOne(where, what >= 65);
    await this.#settle();
  }

  /** Everything that was begun ends. */
  async end(): Promise<void> {
    while (this.files.pending.length > 0) {
      this.#endOne(0, true);
      await this.#settle();
    }
    await this.#cooling;
    await this.log.close();
  }

  /** After a power loss at this moment, whatever it leaves, a chunk that may be wrong is in a hot region. */
  check(): void {
    const cold = this.#mayBeCold();
    for (const chunk of CHUNKS) {
      if (!cold.has(Math.floor(chunk / CHUNKS_PER_REGION))) continue;
      ok(!(this.#mayDiffer(chunk) && this.#mayReadClean(chunk)), `chunk ${chunk} may be wrong`);
    }
  }

  #mayBeCold(): Set<number> {
    const cold = new Set<number>();
    for (let sectors = 0; sectors < 256; sectors += this.#version % 2 === 0 ? 51 : 17) {
      const content = decodeIntentLog(this.files.afterPowerLoss(LOG, sectors));
      ok(content, "no single power loss makes the log unreadable");
      const hot = (region: number) =>
        content.last.runs.some(({ first, count }) => region >= first && region < first + count);
      for (let region = 0; region < REGIONS; region++) if (!hot(region)) cold.add(region);
    }
    return cold;
  }

  #mayDiffer(chunk: number): boolean {
    const [source, target] = [this.#source, this.#target];
    const same = source.newest(chunk) === target.newest(chunk);
    const durable = source.oldest(chunk) === source.newest(chunk) &&
      target.oldest(chunk) === target.newest(chunk);
    return !(same && durable);
  }

  #mayReadClean(chunk: number): boolean {
    const mayBeClear = this.files.mayBeClear(MAP), plane = planeBytes(this.map.chunks);
    return [0, 1, 2].every((index) => {
      const byte = mayBeClear[CHANGE_MAP_HEADER_BYTES + index * plane + (chunk >> 3)] as number;
      return (byte & (1 << (chunk & 7))) !== 0;
    });
  }

  /** Runs what promises have made ready. */
  async #settle() {
    for (let turn = 0; turn < 16; turn++) {
      await null;
      this.files.observe();
    }
  }

  #write(chunk: number) {
    const at = chunk * CHUNK_BYTES, through = this.#writeThrough;
    if (this.#writes.has(chunk) || (through && this.#copies.has(chunk))) return;
    if (!this.log.admits(at, 1)) return this.log.want(at, 1);
    if (through) this.map.markUnstable(at, 1);
    else this.map.markDirty(at, 1);
    this.#source.sent.set(chunk, ++this.#version);
    if (through) this.#target.sent.set(chunk, this.#version);
    this.#writes.set(chunk, { through });
    this.files.operation("application's write", () => this.#writes.delete(chunk)).catch(() => {});
  }

  #copy(chunk: number) {
    const at = chunk * CHUNK_BYTES;
    if (!this.map.isDirty(chunk) || this.#writes.has(chunk) || this.#copies.has(chunk)) return;
    if (!this.log.admits(at, 1)) return this.log.want(at, 1);
    this.map.beginCopy(at, 1);
    this.#copies.add(chunk);
    const version = this.#source.newest(chunk);
    this.#target.sent.set(chunk, version);
    this.files.operation("copy", (succeeds) => {
      this.#copies.delete(chunk);
      if (!succeeds) this.map.markDirty(at, 1);
    }).catch(() => {});
  }

  /** @returns false: writes go to the source alone. */
  #leaveTarget(): boolean {
    for (const [chunk, { through }] of this.#writes) {
      if (through) this.map.markDirty(chunk * CHUNK_BYTES, 1);
    }
    this.map.unstableToDirty();
    return false;
  }

  #cool() {
    this.#cooling ??= this.log.cool({
      eachWrite: (visit) => {
        for (const chunk of this.#writes.keys()) visit(chunk * CHUNK_BYTES, 1);
      },
      flushSource: () => this.#flush(this.#source, (chunk) => this.#writes.has(chunk)),
      flushTarget: () => this.#flushTarget(),
      isSettled: ({ at, length }) =>
        !this.map.isUnstable(at, length) &&
        ![...this.#copies].some((chunk) => this.#within(chunk, at, length)),
      syncMap: () => this.map.sync(),
    }).catch(() => {}).finally(() => this.#cooling = undefined);
  }

  #within(chunk: number, at: number, length: number): boolean {
    return chunk * CHUNK_BYTES >= at && chunk * CHUNK_BYTES < at + length;
  }

  #flushTarget(): Promise<boolean> {
    return this.#flushing ??= this.#flushTargetOnce().finally(() => this.#flushing = undefined);
  }

  async #flushTargetOnce(): Promise<boolean> {
    this.map.beginFlush();
    const underWay = (chunk: number) =>
      this.#copies.has(chunk) || this.#writes.get(chunk)?.through === true;
    for (const chunk of CHUNKS) if (underWay(chunk)) this.map.markUnstable(chunk * CHUNK_BYTES, 1);
    const succeeded = await this.#flush(this.#target, underWay);
    this.map.flushed(succeeded);
    return succeeded;
  }

  async #flush(side: Side, underWay: (chunk: number) => boolean): Promise<boolean> {
    const covered = [...side.sent].filter(([chunk]) => !underWay(chunk));
    try {
      await this.files.operation("flush", (succeeds) => {
        if (!succeeds) return;
        for (const [chunk, version] of covered) side.durable.set(chunk, version);
      });
      return true;
    } catch {
      return false;
    }
  }

  #endOne(where: number, succeeds: boolean) {
    const { pending } = this.files;
    if (pending.length === 0) return;
    const [one] = pending.splice(where % pending.length, 1);
    one?.end(succeeds, where & 255);
  }
}
