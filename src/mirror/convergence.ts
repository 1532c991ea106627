/** What a converge met: whether rounds are worth it, and why the mirror did not get ready. */
import { type Clock, PsmaError } from "../core/mod.ts";
import type { ChangeMap, MirrorLink } from "../volume/mod.ts";
import type { MirrorEventSink } from "./events.ts";

/** After so many copied bytes it is seen how many became dirty meanwhile. */
const LOOK_EVERY_BYTES = 16 * 2 ** 20;
/** Of what was copied: from where on a writer makes rounds without write-through useless. */
const KEEPS_UP = 0.5;
/** More than this is not copied under write-through that a round can still make less. */
const MOST_BYTES_WRITTEN_THROUGH = 2 * 2 ** 30;

/** What converging need not copy again before write-through begins: so much, and this share of a small volume. */
const LITTLE_BYTES = 16 * 2 ** 20, LITTLE_SHARE = 1 / 64;

/** Says whether so few bytes are dirty that write-through may begin. */
export function isLittle(dirtyBytes: number, volumeBytes: number): boolean {
  return dirtyBytes <= Math.min(LITTLE_BYTES, volumeBytes * LITTLE_SHARE);
}

interface Copied {
  readonly copiedBytes: number;
}

type Changed = Pick<MirrorLink, "changedBytes"> & { readonly map: Pick<ChangeMap, "dirtyBytes"> };

/** During one round: whether the application makes dirty what was copied, about as fast as it is copied. */
export class WriterWatch {
  #changedBytes: number;
  #copiedBytes: number;
  #kept = false;

  constructor(readonly link: Changed, readonly copier: Copied) {
    this.#changedBytes = link.changedBytes;
    this.#copiedBytes = copier.copiedBytes;
  }

  /** Then only write-through gets ahead of it, and the round may end. */
  get keepsUp(): boolean {
    const { link, copier } = this;
    const copied = copier.copiedBytes - this.#copiedBytes;
    if (this.#kept || copied < LOOK_EVERY_BYTES) return this.#kept;
    const changed = link.changedBytes - this.#changedBytes;
    this.#kept = changed > copied * KEEPS_UP &&
      link.map.dirtyBytes <= MOST_BYTES_WRITTEN_THROUGH;
    this.#changedBytes = link.changedBytes;
    this.#copiedBytes = copier.copiedBytes;
    return this.#kept;
  }

  /** It was seen to. */
  get kept(): boolean {
    return this.#kept;
  }
}

/** Of the time until a deadline: when all is to be copied and compared by then, there is some to spare. */
const DEADLINE_SHARE = 0.5;

/** Until when those who wait for a mirror to get ready do so. */
export class Deadlines {
  /** Monotonic milliseconds. */
  readonly #ends: number[] = [];

  constructor(
    readonly link: Pick<MirrorLink, "unverifiedBytes"> & Pick<Changed, "map">,
    readonly clock: Pick<Clock, "monotonicMs">,
  ) {}

  /** For as long as the work lasts somebody waits for it, so long at most. */
  async during(ms: number, work: Promise<void>): Promise<void> {
    const end = this.clock.monotonicMs() + ms;
    this.#ends.push(end);
    try {
      await work;
    } finally {
      this.#ends.splice(this.#ends.indexOf(end), 1);
    }
  }

  /** What all of them need to be served in time; 0 when nobody waits. */
  get neededBytesPerSecond(): number {
    if (this.#ends.length === 0) return 0;
    const leftMs = Math.min(...this.#ends) - this.clock.monotonicMs();
    const bytes = this.link.map.dirtyBytes + this.link.unverifiedBytes;
    return bytes / Math.max(1, leftMs * DEADLINE_SHARE) * 1000;
  }
}

export class ConvergenceWatch {
  readonly #changedBytes: number;
  readonly #copiedBytes: number;

  constructor(
    readonly link: MirrorLink,
    readonly copier: Copied,
    readonly timeoutMs: number,
  ) {
    this.#changedBytes = link.changedBytes;
    this.#copiedBytes = copier.copiedBytes;
  }

  /** The time has run out. Tells at what rates; call it before write-through is dropped. @returns what to throw. */
  missed(emit: MirrorEventSink): PsmaError {
    const { link, copier, timeoutMs } = this;
    const perSecond = (bytes: number) => Math.round(bytes / Math.max(1, timeoutMs) * 1000);
    const dirty_bytes = link.map.dirtyBytes, unverified_bytes = link.unverifiedBytes;
    const copied_bytes_per_s = perSecond(copier.copiedBytes - this.#copiedBytes);
    const dirty_bytes_per_s = perSecond(link.changedBytes - this.#changedBytes);
    emit(
      "mirror.not-converged",
      "warning",
      `The mirror did not get ready within ${timeoutMs} ms: ${copied_bytes_per_s} bytes per second ` +
        `were copied, ${dirty_bytes_per_s} became dirty`,
      { dirty_bytes, unverified_bytes, copied_bytes_per_s, dirty_bytes_per_s },
    );
    return new PsmaError(
      "timeout/converge",
      `Cannot converge: ${dirty_bytes} bytes are still dirty, ${unverified_bytes} not verified`,
      { hint: "The application may write faster than the target; raise the rate or wait." },
    );
  }
}
