/** A rate over a sliding stretch of time, and how far the rate of a time to come may lie from it. */

/** Slices that are alike because they follow each other count as fewer. */
const CORRELATION_MAX = 0.9;
const FEW_SLICES = 4;

interface Slice {
  readonly ms: number;
  readonly bytes: number;
}

export class RateMeter {
  readonly #slices: Slice[] = [];
  #ms = 0;
  #bytes = 0;

  /** @param spanMs what is older is forgotten. */
  constructor(readonly spanMs: number) {}

  /** So many bytes in so much time, right after what was added before. Bytes may be negative. */
  add(ms: number, bytes: number): void {
    this.#slices.push({ ms, bytes });
    this.#ms += ms;
    this.#bytes += bytes;
    let first = this.#slices[0];
    while (first !== undefined && this.#ms - first.ms >= this.spanMs) {
      this.#slices.shift();
      this.#ms -= first.ms;
      this.#bytes -= first.bytes;
      first = this.#slices[0];
    }
  }

  clear(): void {
    this.#slices.length = 0;
    this.#ms = this.#bytes = 0;
  }

  /** Null before anything was added. */
  get bytesPerSecond(): number | null {
    return this.#ms === 0 ? null : this.#bytes / this.#ms * 1000;
  }

  /**
   * Standard deviation of the mean rate over the next `futureMs` from the one that was measured: both scatter.
   * @returns bytes per second; null when too little was seen.
   */
  deviation(futureMs: number): number | null {
    const slices = this.#slices, mean = this.bytesPerSecond;
    if (slices.length < FEW_SLICES || mean === null) return null;
    const off = slices.map(({ ms, bytes }) => bytes / ms * 1000 - mean);
    const squares = off.reduce(
      (sum, one, index) => sum + one * one * (slices[index] as Slice).ms,
      0,
    );
    const variance = squares / this.#ms * slices.length / (slices.length - 1);
    if (variance === 0) return 0;
    let products = 0;
    for (let i = 1; i < off.length; i++) products += (off[i] as number) * (off[i - 1] as number);
    const seen = products / (off.length - 1) / variance;
    // A short series looks less alike than it is (Kendall 1954).
    const alike = Math.min(Math.max(seen + (1 + 4 * seen) / off.length, 0), CORRELATION_MAX);
    const sliceMs = this.#ms / slices.length * (1 + alike) / (1 - alike);
    return Math.sqrt(variance * (sliceMs / this.#ms + sliceMs / Math.max(futureMs, sliceMs)));
  }
}
