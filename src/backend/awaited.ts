/**
 * Stands in for a backend that cannot be opened now, tries again with growing pauses, and forwards to it from
 * then on. Until then it is not connected, and every operation fails with ENXIO.
 * Hot path: `submit` allocates nothing.
 */
import { PsmaError, Signal, toPsmaError, type Turns } from "../core/mod.ts";
import type { Backend, Extent, LossPolicy } from "./backend.ts";
import { BackendMeter } from "./meter.ts";
import type { Operations } from "./operations.ts";

const ENXIO = 6;
const RETRY_FIRST_MS = 1000, RETRY_MAX_MS = 30_000;

export interface AwaitedOptions {
  readonly description: string;
  readonly sizeBytes: number;
  readonly operations: Operations;
  readonly turns: Turns;
  /** Why it cannot be opened now. */
  readonly fault: PsmaError;
  readonly open: () => Promise<Backend>;
  /** It is open; nothing was sent to it yet. */
  readonly onOpened: (backend: Backend) => void;
}

export class AwaitedBackend implements Backend {
  onLost: (() => void) | undefined;
  readonly #options: AwaitedOptions;
  readonly #meter = new BackendMeter();
  #inner: Backend | undefined;
  #fault: string;
  #isFenced = false;
  #policy: LossPolicy = "fail";
  readonly #ended: Signal;
  #isEnded = false;
  readonly #finished: Promise<void>;

  constructor(options: AwaitedOptions) {
    this.#options = options;
    this.#fault = options.fault.message;
    this.#isFenced = options.fault.code === "fenced/epoch";
    this.#ended = new Signal(options.turns);
    this.#finished = this.#run();
  }

  get description(): string {
    return this.#inner?.description ?? this.#options.description;
  }

  get sizeBytes(): number {
    return this.#inner?.sizeBytes ?? this.#options.sizeBytes;
  }

  get meter(): BackendMeter {
    return this.#inner?.meter ?? this.#meter;
  }

  get connected(): boolean {
    return this.#inner?.connected ?? false;
  }

  get fenced(): boolean {
    return this.#inner?.fenced ?? this.#isFenced;
  }

  get fault(): string | undefined {
    return this.#inner ? this.#inner.fault : this.#fault;
  }

  submit(op: number): void {
    if (this.#inner === undefined) this.#options.operations.complete(op, ENXIO);
    else this.#inner.submit(op);
  }

  /** Nobody knows while it is away: the whole range. */
  dataExtents(from: number, length: number): Promise<readonly Extent[]> {
    return this.#inner?.dataExtents(from, length) ?? Promise.resolve([{ at: from, length }]);
  }

  allocatedBytes(): number | undefined {
    return this.#inner?.allocatedBytes();
  }

  async grow(sizeBytes: number): Promise<void> {
    if (!this.#inner) throw this.#away("grow");
    await this.#inner.grow(sizeBytes);
  }

  async raiseEpoch(epoch: number): Promise<void> {
    if (!this.#inner) throw this.#away("fence");
    await this.#inner.raiseEpoch(epoch);
  }

  setLossPolicy(policy: LossPolicy): void {
    this.#policy = policy;
    this.#inner?.setLossPolicy(policy);
  }

  abort(): void {
    this.#inner?.abort();
  }

  async close(): Promise<void> {
    this.#isEnded = true;
    this.#ended.tell();
    await this.#finished;
    await this.#inner?.close();
  }

  /** Tries until it is open or closed. Never rejects. */
  async #run(): Promise<void> {
    const { turns, open, onOpened } = this.#options;
    for (let pauseMs = RETRY_FIRST_MS; !this.#isEnded; pauseMs *= 2) {
      await this.#ended.or(turns.sleep(Math.min(pauseMs, RETRY_MAX_MS)));
      if (this.#isEnded) return;
      try {
        const backend = await open();
        backend.setLossPolicy(this.#policy);
        backend.onLost = () => this.onLost?.();
        // Closed meanwhile: `close` closes this one, and nobody else hears of it.
        if (!this.#isEnded) onOpened(backend);
        this.#inner = backend;
        return;
      } catch (error) {
        const { code, message } = toPsmaError(error);
        this.#fault = message;
        this.#isFenced = code === "fenced/epoch";
      }
    }
  }

  #away(verb: string): PsmaError {
    return new PsmaError(
      "store/unreachable",
      `Cannot ${verb} ${this.#options.description}: it is not open (${this.#fault})`,
    );
  }
}
