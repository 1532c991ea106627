/**
 * A process of our own that the demo starts: its log in a file, its standard input our lifeline. When the
 * demo dies, however it dies, the input ends and the process stops in order.
 *
 * In a session of its own, so that Ctrl-C reaches the demo alone and the demo decides who stops first.
 */
import { PsmaError, selfCommand } from "../../core/mod.ts";

export interface ChildOptions {
  /** What messages call it. */
  readonly name: string;
  readonly args: readonly string[];
  /** Gets its standard error. */
  readonly log_path: string;
}

const END_WITHIN_MS = 20_000;

export class Child implements AsyncDisposable {
  readonly name: string;
  readonly log_path: string;
  readonly #process: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #output: AsyncIterableIterator<string>;
  readonly #logged: Promise<void>;
  #ended: Deno.CommandStatus | undefined;

  constructor({ name, args, log_path }: ChildOptions) {
    this.name = name;
    this.log_path = log_path;
    const self = selfCommand(args);
    this.#process = new Deno.Command(self.command, {
      args: self.args,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
      env: { NO_COLOR: "1" },
      detached: true,
    }).spawn();
    this.#input = this.#process.stdin.getWriter();
    this.#output = lines(this.#process.stdout);
    this.#logged = this.#keepLog();
    this.#process.status.then((status) => this.#ended = status);
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** The next line that it prints, as JSON. @throws {PsmaError} internal/demo when it ends instead. */
  async next<T>(): Promise<T> {
    const { value, done } = await this.#output.next();
    if (done) throw await this.failure();
    return JSON.parse(value) as T;
  }

  /** Sends it a line of JSON. @throws {PsmaError} internal/demo when it is gone. */
  async send(message: unknown): Promise<void> {
    try {
      await this.#input.write(new TextEncoder().encode(JSON.stringify(message) + "\n"));
    } catch {
      throw await this.failure();
    }
  }

  /** Rejects when the process ends, and only then. */
  async ended(): Promise<never> {
    await this.#process.status;
    throw await this.failure();
  }

  /** What to tell when it ended by itself: its last words and where the rest is. */
  async failure(): Promise<PsmaError> {
    const { code, signal } = await this.#process.status;
    await this.#logged;
    const last = Deno.readTextFileSync(this.log_path).trim().split("\n").at(-1) ?? "";
    const end = signal === null ? `code ${code}` : signal;
    return new PsmaError(
      "internal/demo",
      `Cannot go on: the ${this.name} ended (${end})${
        last === "" ? "" : `; its last words: ${last}`
      }`,
      { hint: `Its log: ${this.log_path}` },
    );
  }

  /** Lets it stop in order; ends it when it does not. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#input.close().catch(() => {});
    const timer = setTimeout(() => this.#kill(), END_WITHIN_MS);
    try {
      while (!(await this.#output.next()).done);
      await this.#process.status;
      await this.#logged;
    } finally {
      clearTimeout(timer);
    }
  }

  #kill() {
    if (this.#ended === undefined) this.#process.kill("SIGKILL");
  }

  async #keepLog(): Promise<void> {
    using file = await Deno.open(this.log_path, { create: true, write: true, append: true });
    for await (const part of this.#process.stderr) {
      for (let at = 0; at < part.length;) at += await file.write(part.subarray(at));
    }
  }
}

/** Whole lines of a byte stream. */
export async function* lines(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
): AsyncIterableIterator<string> {
  let rest = "";
  for await (const part of stream.pipeThrough(new TextDecoderStream())) {
    const complete = (rest + part).split("\n");
    rest = complete.pop() ?? "";
    yield* complete.filter((line) => line !== "");
  }
}
