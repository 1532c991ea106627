/** The test's end of `nbd_service.ts`: starts the process, sends commands, keeps its events. */
import { type ErrorRecord, PsmaError } from "../../src/core/mod.ts";
import type { LossPolicy } from "../../src/backend/mod.ts";
import type { SocketAddress } from "../../src/sys/mod.ts";
import type { NbdServerEvent } from "../../src/frontend/mod.ts";

export interface ClientOperation {
  readonly code: "read" | "write" | "flush" | "trim" | "writeZeroes";
  readonly at: number;
  readonly length: number;
  /** The byte that a write is made of. */
  readonly fill?: number;
  readonly fua?: boolean;
}

export interface NbdCommands {
  serve: {
    argument: {
      server: string;
      listen: SocketAddress;
      fenced: boolean;
      handshake_s?: number;
      idle_s?: number;
      connections?: number;
    };
    answer: { address: string };
  };
  exportFile: {
    argument: {
      server: string;
      name: string;
      path: string;
      description: string;
      readOnly?: boolean;
      epoch?: number;
    };
    answer: { uri: string };
  };
  unexport: { argument: { server: string; name: string }; answer: null };
  promote: { argument: { server: string; name: string; epoch: number }; answer: null };
  /** Holds a volume's operations back, or lets them go. */
  gate: { argument: { name: string; open: boolean }; answer: { held: number } };
  closeServer: { argument: { server: string }; answer: null };
  stats: {
    argument: null;
    answer: {
      slots_free: number;
      operations_in_use: number;
      connected: number;
      accepted: number;
      turned_away: number;
      cut: number;
      rss_bytes: number;
      descriptors: number;
      held: number;
    };
  };
  open: {
    argument: {
      uri: string;
      policy: LossPolicy;
      options?: {
        connections?: number;
        answerLimitMs?: number;
        dialLimitMs?: number;
        fenced?: boolean;
      };
    };
    answer: { client: number; size_bytes: number };
  };
  /** Runs operations side by side; a read answers with a digest of what it read. */
  run: {
    argument: { client: number; operations: readonly ClientOperation[] };
    answer: { results: readonly { errno: number; digest?: string }[] };
  };
  client: {
    argument: { client: number };
    answer: { connected: boolean; connections: number; lost: number; size_bytes: number };
  };
  extents: {
    argument: { client: number; from: number; length: number };
    answer: { extents: readonly { at: number; length: number }[] };
  };
  setPolicy: { argument: { client: number; policy: LossPolicy }; answer: null };
  abort: { argument: { client: number }; answer: null };
  grow: { argument: { client: number; size_bytes: number }; answer: null };
  closeClient: { argument: { client: number }; answer: null };
  stop: { argument: null; answer: null };
}

type Line =
  | { readonly started: number }
  | { readonly event: NbdServerEvent }
  | { readonly id: number; readonly ok: unknown }
  | { readonly id: number; readonly error: ErrorRecord };

export class NbdProcess implements AsyncDisposable {
  readonly events: NbdServerEvent[] = [];
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  readonly #started = Promise.withResolvers<void>();
  readonly #reading: Promise<void>;
  #id = 0;

  private constructor(slots: number, maxIo: number) {
    const script = new URL("./nbd_service.ts", import.meta.url).pathname;
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", script, JSON.stringify({ slots, maxIo })],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#reading = this.#read();
  }

  static async start({ slots = 128, maxIo = 1 << 20 } = {}): Promise<NbdProcess> {
    const started = new NbdProcess(slots, maxIo);
    await started.#started.promise;
    return started;
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** @throws {PsmaError} what the process refused with. */
  async call<Name extends keyof NbdCommands>(
    name: Name,
    argument: NbdCommands[Name]["argument"],
  ): Promise<NbdCommands[Name]["answer"]> {
    const id = ++this.#id;
    const answer = Promise.withResolvers<unknown>();
    this.#waiting.set(id, answer);
    await this.#writer.write(
      new TextEncoder().encode(JSON.stringify({ id, name, argument }) + "\n"),
    );
    return await answer.promise as NbdCommands[Name]["answer"];
  }

  async #read(): Promise<void> {
    let rest = "";
    for await (const part of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + part).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#take(JSON.parse(line) as Line);
    }
    const gone = new Error("the NBD process ended");
    this.#started.reject(gone);
    for (const waiting of this.#waiting.values()) waiting.reject(gone);
  }

  #take(line: Line) {
    if ("started" in line) return this.#started.resolve();
    if ("event" in line) return void this.events.push(line.event);
    const waiting = this.#waiting.get(line.id);
    this.#waiting.delete(line.id);
    if ("ok" in line) waiting?.resolve(line.ok);
    else waiting?.reject(PsmaError.fromRecord(line.error));
  }

  /** Ends it as a crash would. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close().catch(() => {});
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), 5000);
    await this.#child.status;
    clearTimeout(timer);
    await this.#reading;
  }
}
