/**
 * Lets regions of the write-intent log become cold again, cycle by cycle, so that a power loss costs a
 * comparison of what was written in the last few seconds. See `volume/intent_log.ts` for what must hold.
 *
 * Faults: a side that does not flush, or a map that cannot be made durable, leaves everything hot that is; a log
 * that cannot be written is tried again for ever, and writes to cold regions wait meanwhile.
 */
import { Signal, toPsmaError, type Turns } from "../core/mod.ts";
import type { BackendCalls } from "../backend/mod.ts";
import type { IntentLog, MirrorLink, Settling, Volume } from "../volume/mod.ts";
import type { Copier } from "./copier.ts";
import type { MirrorEventSink } from "./events.ts";

/** A region is hot for one cycle at least after its last write, and for two at most. */
const CYCLE_MS = 2000, SHORT_CYCLE_MS = 500;
/** With more than this hot a power loss would cost more than a few seconds. */
const MUCH_BYTES = 2 ** 30;
const TELL_AGAIN_MS = 60_000;

export interface CoolingOptions {
  readonly volume: Volume;
  readonly link: MirrorLink;
  readonly calls: BackendCalls;
  readonly turns: Turns;
  readonly copier: Copier;
  readonly emit: MirrorEventSink;
  readonly coolEveryMs?: number | undefined;
}

export class Cooling {
  readonly #options: CoolingOptions;
  readonly #settling: Settling;
  readonly #end: Signal;
  #ended = false;
  #quiet = false;
  #finished: Promise<void> = Promise.resolve();

  constructor(options: CoolingOptions) {
    this.#options = options;
    this.#end = new Signal(options.turns);
    this.#settling = this.#settlingOf(options);
  }

  /** Does nothing for a mirror without a log. */
  start(): void {
    const { log } = this.#options.link;
    if (log) this.#finished = this.#run(log);
  }

  /** The mirror copies nothing any more. Closes the log: whoever waited for it goes on. */
  async end(): Promise<void> {
    this.#ended = true;
    this.#end.tell();
    await this.#options.link.log?.close();
    await this.#finished;
  }

  async #run(log: IntentLog) {
    log.onFailed = (error) => this.#tell("Cannot write the write-intent log", error);
    for (;;) {
      const { coolEveryMs = CYCLE_MS } = this.#options;
      await this.#sleep(log.hotBytes > MUCH_BYTES ? SHORT_CYCLE_MS : coolEveryMs);
      if (this.#ended) return;
      try {
        await log.cool(this.#settling);
      } catch (error) {
        this.#tell("Cannot make the change map durable", error);
      }
    }
  }

  #settlingOf({ volume, link, calls, copier }: CoolingOptions): Settling {
    const { map, unverified } = link;
    return {
      eachWrite: (visit) => volume.eachWrite(visit),
      flushSource: async () => {
        // A source that is away answers when it is back; nobody waits so long for a mirror to end.
        let isDurable = false;
        await this.#end.or(volume.flushActive(calls).then((errno) => isDurable = errno === 0));
        return isDurable && !this.#ended;
      },
      flushTarget: () => copier.flushTarget().then(() => true, () => false),
      isSettled: (range) => !map.isUnstable(range.at, range.length) && !link.isChecked(range),
      syncMap: async () => {
        await map.sync();
        await unverified.sync();
      },
    };
  }

  #tell(what: string, error: unknown) {
    if (this.#ended || this.#quiet) return;
    const { emit, turns } = this.#options;
    this.#quiet = true;
    turns.sleep(TELL_AGAIN_MS).then(() => this.#quiet = false);
    emit("mirror.log-failed", "error", `${what}: ${toPsmaError(error).message}`);
  }

  async #sleep(ms: number) {
    if (!this.#ended) await this.#end.or(this.#options.turns.sleep(ms));
  }
}
