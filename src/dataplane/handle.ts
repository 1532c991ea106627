/**
 * The main thread's end of the data plane: starts the worker, sends commands, answers its questions.
 *
 * Faults: a worker that dies rejects every command in flight with `internal/data-plane`; the process is
 * expected to end then and be restarted, because volumes recover from their manifests and change maps.
 */
import { MessageChannel, type MessagePort } from "node:worker_threads";
import { assert, type Log, PsmaError, systemClock, toPsmaError } from "../core/mod.ts";
import { signalEventFd } from "../sys/mod.ts";
import { kernelSendsAgain } from "./host/host.ts";
import { addressesOf } from "./host_names.ts";
import type {
  AllQuestions,
  CommandName,
  Commands,
  DataPlaneEvent,
  FromWorker,
  Outcome,
  QuestionName,
  Questions,
  ToWorker,
} from "./messages.ts";
import { TlsRelay } from "./tls/relay_handle.ts";
import type { ServeTls } from "./tls/relay_messages.ts";

const MAX_COMMANDS = 4096;

/** Answers to the data plane's questions, given on the main thread. */
export type QuestionHandlers = {
  [Name in keyof Questions]: (
    argument: Questions[Name]["argument"],
  ) => Promise<Questions[Name]["answer"]>;
};

type OwnQuestions = Omit<AllQuestions, keyof Questions>;

/** What the handle answers by itself. */
type OwnHandlers = {
  [Name in keyof OwnQuestions]: (
    argument: OwnQuestions[Name]["argument"],
  ) => Promise<OwnQuestions[Name]["answer"]>;
};

export interface DataPlaneOptions {
  readonly log: Log;
  readonly onEvent?: (event: DataPlaneEvent) => void;
  /** Without it every question is refused: right for a process that never mirrors. */
  readonly questions?: QuestionHandlers;
  /** Requests in flight over all volumes of this process, and bytes of the largest one. */
  readonly slots?: number;
  readonly maxIo?: number;
  /** For the sockets of the TLS relay: of this process alone, made when it is missing. Default: a temporary one. */
  readonly tls_directory?: string;
  /**
   * FUSE requests are kept where the next process can replay them. By default on kernels that cannot send
   * them again: it costs memory that outlives a killed process.
   */
  readonly replay?: boolean;
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: PsmaError) => void;
}

export class DataPlane {
  /** Counter pages by volume name; layout in codec/counters.ts. */
  readonly counters: Map<string, Float64Array> = new Map();
  /** Rejects, once, when the worker dies. Never resolves. */
  readonly died: Promise<never>;
  readonly #waiting = new Map<number, Waiting>();
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #options: DataPlaneOptions;
  #reportDeath: (error: PsmaError) => void = () => {};
  #started: ((eventFd: number) => void) | undefined;
  readonly #relay: TlsRelay;
  readonly #ownHandlers: OwnHandlers = {
    tlsRoute: ({ uri, tls, patient }) => this.#relay.route(uri, tls, patient),
    tlsFault: ({ uri }) => this.#relay.fault(uri),
    resolveHost: ({ host }) => addressesOf(host),
  };
  #tlsBase: string | undefined;
  #eventFd = -1;
  #seq = 0;
  #stopped = false;

  private constructor(options: DataPlaneOptions) {
    this.#options = options;
    this.#relay = new TlsRelay({
      directory: options.tls_directory,
      log: options.log,
      clock: systemClock,
      onEvent: (event) => options.onEvent?.(event),
    });
    this.died = new Promise((_, reject) => this.#reportDeath = reject);
    this.died.catch(() => {});
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    this.#worker = new Worker(workerUrl(), { type: "module", name: "data-plane" });
    this.#worker.onmessage = (message: MessageEvent<FromWorker>) => this.#receive(message.data);
    this.#worker.onerror = (error) => {
      error.preventDefault();
      this.#die(error.message);
    };
    const { slots, maxIo, replay = !kernelSendsAgain() } = options;
    const start = { port: port2, slots, maxIo, replay };
    this.#worker.postMessage(start, [port2 as unknown as Transferable]);
  }

  /** Starts the worker. @throws {PsmaError} sys/... when the kernel gives it no ring. */
  static async start(options: DataPlaneOptions): Promise<DataPlane> {
    const plane = new DataPlane(options);
    const started = new Promise<number>((resolve) => plane.#started = resolve);
    plane.#eventFd = await Promise.race([started, plane.died]);
    return plane;
  }

  /** Sends one command and waits for its answer. @throws {PsmaError} whatever the data plane refused with. */
  command<Name extends CommandName>(
    name: Name,
    argument: Commands[Name]["argument"],
  ): Promise<Commands[Name]["answer"]> {
    if (this.#stopped) return Promise.reject(gone("it has stopped"));
    if (this.#waiting.size >= MAX_COMMANDS) {
      return Promise.reject(
        new PsmaError("unavailable/busy", `Cannot ${name}: too many commands are in flight`),
      );
    }
    const seq = ++this.#seq;
    const answer = new Promise((resolve, reject) => this.#waiting.set(seq, { resolve, reject }));
    this.#send({ kind: "command", seq, name, argument: postable(argument) });
    return answer as Promise<Commands[Name]["answer"]>;
  }

  /**
   * Lets NBD clients in by TLS; they reach the NBD server on the Unix socket `forward_to`.
   * @returns the start of its URIs. @throws {PsmaError} config/tls-file, config/listen, state/address-in-use
   */
  async serveTls(serve: ServeTls, public_host?: string): Promise<string> {
    return this.#tlsBase = await this.#relay.serve(serve, public_host);
  }

  /** Where clients reach an export by TLS; undefined when they can not. */
  tlsUri(exportName: string): string | undefined {
    return this.#tlsBase && `${this.#tlsBase}/${encodeURIComponent(exportName)}`;
  }

  /** Nothing is served any more: it was stopped, or it died. */
  get ended(): boolean {
    return this.#stopped;
  }

  /** Flushes and closes all volumes and ends the worker. Idempotent. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    await this.command("stop", null).finally(() => {
      this.#stopped = true;
      this.#port.close();
      this.#worker.terminate();
      this.#relay.stop();
    });
  }

  #send(message: ToWorker) {
    this.#port.postMessage(message);
    signalEventFd(this.#eventFd);
  }

  #receive(message: FromWorker) {
    switch (message.kind) {
      case "started":
        this.#started?.(message.eventFd);
        break;
      case "outcome": {
        const waiting = this.#waiting.get(message.seq);
        assert(waiting, "answer to no command");
        this.#waiting.delete(message.seq);
        if (message.outcome.ok) waiting.resolve(message.outcome.value);
        else waiting.reject(PsmaError.fromRecord(message.outcome.error));
        break;
      }
      case "question":
        this.#answer(message.seq, message.name, message.argument);
        break;
      case "counters":
        this.counters.set(message.volume, new Float64Array(message.page));
        break;
      case "event":
        this.#options.onEvent?.(message.event);
        break;
      case "died":
        this.#die(message.reason);
        break;
    }
  }

  async #answer(seq: number, name: QuestionName, argument: unknown) {
    let outcome: Outcome<unknown>;
    try {
      const handlers = { ...this.#options.questions, ...this.#ownHandlers };
      const handler = handlers[name] as ((argument: unknown) => Promise<unknown>) | undefined;
      if (!handler) throw new PsmaError("state/no-store", `Cannot ask for ${name}: no store here`);
      outcome = { ok: true, value: await handler(argument) };
    } catch (error) {
      outcome = { ok: false, error: toPsmaError(error, "store/unreachable").toRecord() };
    }
    if (!this.#stopped) this.#send({ kind: "answer", seq, outcome });
  }

  #die(reason: string) {
    this.#stopped = true;
    const error = gone(reason);
    this.#options.log.error("the data plane died", { reason });
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
    this.#relay.stop();
    this.#reportDeath(error);
  }
}

/**
 * A typed array crosses a message port of this runtime element by element, 200 ms a MiB; an ArrayBuffer
 * crosses at once.
 */
function postable<T>(argument: T): T {
  if (typeof argument !== "object" || argument === null || !("bytes" in argument)) return argument;
  const { bytes } = argument;
  return bytes instanceof Uint8Array ? { ...argument, bytes: bytes.slice().buffer } : argument;
}

function gone(reason: string): PsmaError {
  return new PsmaError("internal/data-plane", `Cannot reach the data plane: ${reason}`, {
    hint: "Restart psma; volumes recover by themselves.",
  });
}

/** The worker beside this module, from sources and from a bundle alike. */
function workerUrl(): URL {
  const name = import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.js";
  return new URL(name, import.meta.url);
}
