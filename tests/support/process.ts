/** Processes and conditions for tests: every wait has a deadline and says what it waited for. */
import type { Rng } from "../../src/core/mod.ts";

export interface Output {
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: string | Uint8Array<ArrayBuffer>;
  /** Milliseconds until the command is killed; default one minute. */
  readonly within_ms?: number;
  /** The exit code that counts as success; default 0. */
  readonly exit?: number;
}

const WITHIN_MS = 60_000;

/** Runs a command to its end. @throws {Error} with both outputs when the exit code is another one. */
export async function run(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Output> {
  const { within_ms = WITHIN_MS, exit = 0 } = options;
  const child = new Deno.Command(command, {
    args: [...args],
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: { ...options.env } }),
    stdin: options.stdin === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    kill(child.pid, "SIGKILL");
  }, within_ms);
  try {
    const fed = feed(child, options.stdin);
    const { code, stdout, stderr } = await child.output();
    await fed;
    const output = { stdout: text(stdout), stderr: text(stderr) };
    if (late || code !== exit) {
      const end = late ? `was killed after ${within_ms} ms` : `ended with ${code}, not ${exit}`;
      const line = [command, ...args].join(" ");
      throw new Error(`${line}: ${end}\nstdout: ${output.stdout}\nstderr: ${output.stderr}`);
    }
    return output;
  } finally {
    clearTimeout(timer);
  }
}

async function feed(child: Deno.ChildProcess, input: RunOptions["stdin"]): Promise<void> {
  if (input === undefined) return;
  const bytes = typeof input === "string" ? new TextEncoder().encode(input) : input;
  const writer = child.stdin.getWriter();
  try {
    await writer.write(bytes);
    await writer.close();
  } catch {
    // The command did not read to the end; its exit code and outputs say why.
  }
}

/** Runs this project's command line: `psma(["status", "--json"])`. */
export function psma(args: readonly string[], options: RunOptions = {}): Promise<Output> {
  return run(Deno.execPath(), ["run", "-A", "--quiet", mainPath, ...args], options);
}

/** The file system path of main.ts. */
export const mainPath: string = new URL("../../main.ts", import.meta.url).pathname;

export interface StartOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** A long-running process; `await using` ends it with SIGTERM, then with SIGKILL. */
export interface Started extends AsyncDisposable {
  readonly pid: number;
  readonly status: Promise<Deno.CommandStatus>;
  /** All that it has printed so far, both streams in order of arrival. */
  output(): string;
  /** Waits for a printed line. @returns the match. @throws {Error} with the output on the deadline or when the process ends first. */
  line(pattern: RegExp, within_ms?: number): Promise<RegExpExecArray>;
  /** Sends a signal (default SIGTERM) and waits for the end. */
  end(signal?: Deno.Signal, within_ms?: number): Promise<Deno.CommandStatus>;
}

const END_WITHIN_MS = 20_000;

/** Starts a process whose output is kept for {@linkcode Started.line} and for error messages. */
export function start(
  command: string,
  args: readonly string[],
  options: StartOptions = {},
): Started {
  const child = new Deno.Command(command, {
    args: [...args],
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: { ...options.env } }),
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let printed = "";
  let ended = false;
  const collect = async (stream: ReadableStream<Uint8Array>) => {
    for await (const part of stream.pipeThrough(new TextDecoderStream())) printed += part;
  };
  const drained = Promise.all([collect(child.stdout), collect(child.stderr)]);
  const status = child.status.then((value) => {
    ended = true;
    return value;
  });
  const end = async (signal: Deno.Signal = "SIGTERM", within_ms = END_WITHIN_MS) => {
    if (!ended) kill(child.pid, signal);
    const timer = setTimeout(() => kill(child.pid, "SIGKILL"), within_ms);
    try {
      return await status;
    } finally {
      clearTimeout(timer);
    }
  };
  return {
    pid: child.pid,
    status,
    output: () => printed,
    async line(pattern, within_ms = WITHIN_MS) {
      const match = () => pattern.exec(printed);
      await waitUntil(() => match() !== null || ended, {
        what: () => `${command} to print ${pattern}; it printed:\n${printed}`,
        within_ms,
      });
      if (ended) await drained;
      const found = match();
      if (found === null) throw new Error(`${command} ended before ${pattern}:\n${printed}`);
      return found;
    },
    end,
    async [Symbol.asyncDispose]() {
      await end();
      await drained;
    },
  };
}

/** Starts this project's command line: `startPsma(["run", "--config", file])`. */
export function startPsma(args: readonly string[], options: StartOptions = {}): Started {
  return start(Deno.execPath(), ["run", "-A", "--quiet", mainPath, ...args], options);
}

export interface WaitOptions {
  /** Ends the sentence "Waited … ms for". */
  readonly what: string | (() => string);
  readonly within_ms?: number;
  readonly every_ms?: number;
}

/**
 * Polls a condition until it holds: for what cannot be awaited, such as another process's state.
 * @returns the first value that is neither false nor undefined. @throws {Error} at the deadline.
 */
export async function waitUntil<T>(
  condition: () => T | false | undefined | Promise<T | false | undefined>,
  { what, within_ms = WITHIN_MS, every_ms = 20 }: WaitOptions,
): Promise<T> {
  const deadline_ms = performance.now() + within_ms;
  while (true) {
    const value = await condition();
    if (value !== false && value !== undefined) return value;
    if (performance.now() >= deadline_ms) {
      throw new Error(`Waited ${within_ms} ms for ${typeof what === "string" ? what : what()}`);
    }
    await new Promise((resolve) => setTimeout(resolve, every_ms));
  }
}

/** Sends a signal to a process of ours; one that has ended already is fine. */
export function kill(pid: number, signal: Deno.Signal): void {
  try {
    Deno.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound) && !isGone(error)) throw error;
  }
}

/** A loopback TCP port that was free a moment ago. */
export function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  listener.close();
  return port;
}

function isGone(error: unknown): boolean {
  return error instanceof TypeError && /terminated/.test(error.message) ||
    error instanceof Error && /ESRCH|No such process/.test(error.message);
}

function text(bytes: Uint8Array<ArrayBuffer>): string {
  return new TextDecoder().decode(bytes);
}

/**
 * Lets some time go by, as chance wants it: for the moment of a fault that may come at any time. Never a way to
 * wait for something.
 */
export function atAnyMoment(rng: Rng, within_ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, rng.below(within_ms)));
}

/** The processes that a process has started and that still run. */
export function childrenOf(pid: number): number[] {
  return [...Deno.readDirSync("/proc")].map(({ name }) => Number(name))
    .filter((child) => Number.isInteger(child) && parentOf(child) === pid);
}

/** @returns undefined when there is no such process, or nobody has yet asked how it ended. */
function parentOf(pid: number): number | undefined {
  try {
    // The name before it, in brackets, may hold anything.
    const [, state, parent] = /\) (\S) (\d+)[^)]*$/.exec(
      Deno.readTextFileSync(`/proc/${pid}/stat`),
    ) ?? [];
    return state === "Z" ? undefined : Number(parent);
  } catch {
    return undefined; // Ended meanwhile.
  }
}

/** Whether a process still runs. */
export function isRunning(pid: number): boolean {
  return parentOf(pid) !== undefined;
}
