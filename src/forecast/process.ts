/**
 * The child process as the parent sees it: started, asked one thing at a time, ended.
 * Whatever kills it (the kernel for memory, a person, a defect) ends the request in flight with an error
 * and nothing else; its database is as of its last checkpoint.
 */
import {
  type Clock,
  type ErrorRecord,
  type Log,
  PsmaError,
  type SelfCommand,
  supervise,
  toPsmaError,
} from "../core/mod.ts";
import { readLines } from "./lines.ts";
import type { ChildAnswers, ChildHello, ChildReply, ChildRequest } from "./types.ts";

export interface ProcessOptions {
  readonly command: SelfCommand;
  readonly clock: Clock;
  readonly log: Log;
  /** Starting included. */
  readonly timeout_ms: number;
}

interface Waiting {
  readonly seq: number;
  resolve(result: unknown): void;
  reject(error: PsmaError): void;
}

const END_GRACE_MS = 3000;

export class ForecasterProcess {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #options: ProcessOptions;
  #waiting: Waiting | undefined;
  #seq = 0;
  #alive = true;
  /** Settles when the process is gone and its pipes are drained. */
  readonly #over: Promise<void>;

  private constructor(options: ProcessOptions) {
    this.#options = options;
    const { command, args } = options.command;
    this.#child = new Deno.Command(command, {
      args,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#over = supervise("forecaster process", this.#attend(), options.log);
  }

  /** @throws {PsmaError} what the child said, unavailable/forecaster when it died, timeout/forecaster. */
  static async start(options: ProcessOptions): Promise<ForecasterProcess> {
    const process = new ForecasterProcess(options);
    try {
      const hello = await process.#await(0) as ChildHello;
      if (!hello.ready) throw PsmaError.fromRecord(hello.error);
      if (hello.set_aside !== null) {
        options.log.warn("forecast database is damaged and was set aside", {
          path: hello.set_aside,
        });
      }
      return process;
    } catch (error) {
      await process.kill();
      throw error;
    }
  }

  get alive(): boolean {
    return this.#alive;
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** One request at a time: the caller waits for the answer before it asks again. */
  async ask<K extends ChildRequest["kind"]>(
    request: Extract<ChildRequest, { kind: K }>,
  ): Promise<ChildAnswers[K]> {
    const seq = ++this.#seq;
    const answer = this.#await(seq);
    const line = new TextEncoder().encode(JSON.stringify({ seq, ...request }) + "\n");
    // A broken pipe is the death of the child, which `#attend` reports with its reason.
    this.#input.write(line).catch(() => {});
    return await answer as ChildAnswers[K];
  }

  /** Lets the child finish and go; kills it when it does not. */
  async end(): Promise<void> {
    const grace = new AbortController();
    this.#input.close().catch(() => {});
    const late = this.#options.clock.sleep(END_GRACE_MS, grace.signal)
      .then(() => this.#signalKill(), () => {});
    await this.#over;
    grace.abort();
    await late;
  }

  async kill(): Promise<void> {
    this.#signalKill();
    await this.#over;
  }

  #await(seq: number): Promise<unknown> {
    const { clock, timeout_ms } = this.#options;
    const timer = new AbortController();
    const answer = new Promise<unknown>((resolve, reject) => {
      if (!this.#alive) return reject(died("it is not running"));
      this.#waiting = { seq, resolve, reject };
    });
    const late = clock.sleep(timeout_ms, timer.signal).then(() => {
      this.#waiting?.reject(
        new PsmaError("timeout/forecaster", `Cannot forecast: no answer within ${timeout_ms} ms`),
      );
      this.#signalKill();
    }, () => {});
    return answer.finally(() => {
      timer.abort();
      return late;
    });
  }

  /** Reads what the child says until it is gone. */
  async #attend(): Promise<void> {
    const said: string[] = [];
    const errors = this.#readErrors(said);
    try {
      for await (const line of readLines(this.#child.stdout)) this.#take(line);
    } catch (error) {
      this.#options.log.warn("forecaster said something unreadable", {
        reason: toPsmaError(error).message,
      });
      this.#signalKill();
    }
    const status = await this.#child.status;
    await errors;
    this.#alive = false;
    const how = status.signal ?? `exit code ${status.code}`;
    const last = said.at(-1);
    this.#waiting?.reject(died(`its process ended with ${how}${last ? ` (${last})` : ""}`));
    this.#waiting = undefined;
    this.#input.close().catch(() => {});
  }

  async #readErrors(said: string[]): Promise<void> {
    for await (const line of readLines(this.#child.stderr)) {
      this.#options.log.debug("forecaster wrote", { line });
      if (line.trim() !== "") said.push(line.trim());
      if (said.length > 20) said.shift();
    }
  }

  #take(line: string): void {
    const message = JSON.parse(line) as ChildHello | ChildReply;
    const waiting = this.#waiting;
    const seq = "seq" in message ? message.seq : 0;
    if (waiting?.seq !== seq) return;
    this.#waiting = undefined;
    if (!("seq" in message)) waiting.resolve(message);
    else if (message.ok) waiting.resolve(message.result);
    else waiting.reject(PsmaError.fromRecord(message.error satisfies ErrorRecord));
  }

  #signalKill(): void {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      // Already gone.
      if (!(error instanceof TypeError || error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

function died(reason: string): PsmaError {
  return new PsmaError("unavailable/forecaster", `Cannot forecast: ${reason}`, {
    hint: "It is started again with the next request.",
  });
}
