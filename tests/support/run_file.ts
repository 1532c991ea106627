/**
 * Runs one test file in a process group of its own, so that a hung test cannot hang the run and
 * nothing it started outlives it unseen.
 */
import { decodeJunit, type TestCase } from "./junit.ts";
import { cleanUp, describeLeftovers, findLeftovers, MARK_VARIABLE } from "./leftovers.ts";
import { kill } from "./process.ts";
import { type Missing, SKIP_FILE_VARIABLE } from "./requires.ts";

const MOMENT_MS = 5000;

export interface FileResult {
  readonly path: string;
  readonly cases: readonly TestCase[];
  readonly missing: readonly Missing[];
  /** What it printed; the end of it when it is long. */
  readonly output: string;
  readonly took_ms: number;
}

export interface RunFileOptions {
  readonly root: string;
  readonly limit_ms: number;
  readonly leftovers: boolean;
  readonly flags: readonly string[];
  readonly filter: string | undefined;
  readonly env: Readonly<Record<string, string>>;
  /** Aborted when the person interrupts the run. */
  readonly signal: AbortSignal;
}

const OUTPUT_CHARACTERS_MAX = 20_000;
const DRAIN_MS = 2000;

/** Runs `path`. What goes wrong outside a test (a throw at the top, a hang, leftovers) becomes a failed case. */
export async function runFile(path: string, options: RunFileOptions): Promise<FileResult> {
  const began_ms = performance.now();
  // The report and the reasons lie beside the folder that the test may use, not in it.
  const own = Deno.makeTempDirSync({ prefix: "psma-t" });
  const dir = `${own}/t`;
  Deno.mkdirSync(dir);
  const mark = crypto.randomUUID();
  const cases: TestCase[] = [];
  const fail = (name: string) => cases.push({ name, outcome: "failed" });
  let output = "";
  try {
    const ended = await runProcess(path, { ...options, own, dir, mark });
    cases.push(...decodeJunit(readIfThere(`${own}/junit.xml`)));
    output = ended.output;
    const explained = cases.some((test) => test.outcome === "failed");
    if (ended.late) fail(`did not end within ${options.limit_ms / 1000} s`);
    else if (ended.code !== 0 && !explained) fail(`ended with exit code ${ended.code}`);
    const left = await lasting(() => describeLeftovers(findLeftovers(dir, mark)));
    if (left.length > 0 && options.leftovers && !ended.late) {
      output += `\nleft behind:\n${left.map((line) => `  ${line}\n`).join("")}`;
      fail("left something behind");
    }
  } finally {
    await cleanUp(dir, mark);
  }
  const missing = readIfThere(`${own}/skips`).split("\n").filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Missing);
  Deno.removeSync(own, { recursive: true });
  return { path, cases, missing, output, took_ms: performance.now() - began_ms };
}

/** What is there after a while: children of a process that was killed need a moment to notice. */
async function lasting(find: () => readonly string[]): Promise<readonly string[]> {
  const endMs = performance.now() + MOMENT_MS;
  let left = find();
  while (left.length > 0 && performance.now() < endMs) {
    await new Promise((resolve) => setTimeout(resolve, MOMENT_MS / 20));
    left = find();
  }
  return left;
}

interface ProcessOptions extends RunFileOptions {
  readonly own: string;
  readonly dir: string;
  readonly mark: string;
}

async function runProcess(
  path: string,
  { root, limit_ms, flags, filter, env, signal, own, dir, mark }: ProcessOptions,
): Promise<{ code: number; late: boolean; output: string }> {
  const child = new Deno.Command(Deno.execPath(), {
    // Types are checked once for the whole tree, by the run's own check.
    args: ["test", "-A", "--no-check", `--junit-path=${own}/junit.xml`, ...flags]
      .concat(filter === undefined ? [] : [`--filter=${filter}`], [path]),
    cwd: root,
    env: {
      ...env,
      TMPDIR: dir,
      NO_COLOR: "1",
      [MARK_VARIABLE]: mark,
      [SKIP_FILE_VARIABLE]: `${own}/skips`,
    },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    detached: true,
  }).spawn();
  let late = false;
  const endGroup = () => kill(-child.pid, "SIGKILL");
  const timer = setTimeout(() => {
    late = true;
    endGroup();
  }, limit_ms);
  signal.addEventListener("abort", endGroup);
  if (signal.aborted) endGroup();
  const output = new Tail(OUTPUT_CHARACTERS_MAX);
  const streams = [output.follow(child.stdout), output.follow(child.stderr)];
  try {
    const { code } = await child.status;
    // A process that was left behind may hold the pipes open for ever.
    await Promise.race([
      Promise.all(streams.map((one) => one.done)),
      new Promise((resolve) => Deno.unrefTimer(setTimeout(resolve, DRAIN_MS))),
    ]);
    return { code, late, output: output.text };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", endGroup);
    await Promise.all(streams.map((one) => one.cancel()));
  }
}

/** Keeps the end of what streams say. */
class Tail {
  text = "";

  constructor(readonly characters_max: number) {}

  follow(stream: ReadableStream<Uint8Array<ArrayBuffer>>): {
    done: Promise<void>;
    cancel: () => Promise<void>;
  } {
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    const read = async () => {
      while (true) {
        const { done, value } = await reader.read();
        if (done) return;
        this.text = (this.text + value).slice(-this.characters_max);
      }
    };
    return { done: read(), cancel: () => reader.cancel() };
  }
}

function readIfThere(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}
