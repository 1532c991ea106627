/**
 * A test machine: QEMU boots a Debian kernel and runs one *guest program* as root, with PSMA inside.
 *
 *     Deno.test({
 *       name: "…",
 *       ...requires({ vm: true }),
 *       fn: (t) => bootGuest(t, { program: "ublk", modules: ["ublk_drv"], timeout_ms: 120_000 }),
 *     });
 *
 * The guest program is tests/vm/guest/PROGRAM.ts; it is bundled, so that it may import this project's
 * sources, and reports with `step()` and `check()` of tests/vm/guest/steps.ts. Each of its steps becomes
 * a step of the test. The test fails when a step failed, when the program did not end with code 0, when
 * the kernel reported a bug, and when time is up; then the last lines of the console are shown.
 *
 * In the guest: 2 processors, 3 GiB, loopback only, no disk: what is written lies in memory (/tmp and
 * /dev/shm are tmpfs, the root is a ramfs). On PATH: `psma`, `deno`, busybox's programs, and those of
 * GUEST_COMMANDS (requires.ts). `modprobe` knows the modules of vm_root.ts. The processors are emulated:
 * ten to thirty times slower than real ones (`psma run` is ready after about 15 s), so a guest tests
 * behaviour, never speed. tests/vm/guest/agent.ts starts, kills and asks the agent.
 *
 * By hand, with the console on the terminal:
 *
 *     deno run -A tests/support/vm.ts PROGRAM [KERNEL] [MODULE…]
 */
import { fail, ok } from "node:assert/strict";
import { kill } from "./process.ts";
import { tempDir } from "./temp.ts";
import { type Kernel, kernelFiles, qemuCommand } from "./vm_files.ts";
import { buildRoot } from "./vm_root.ts";

export interface GuestOptions {
  /** A file of tests/vm/guest, without its ending. */
  readonly program: string;
  /** Default 6.12. */
  readonly kernel?: Kernel;
  /** Kernel modules to load before the program starts. */
  readonly modules?: readonly string[];
  /** From the start of QEMU to the end of the program; default 10 minutes. */
  readonly timeout_ms?: number;
}

interface Step {
  readonly step: string;
  readonly ok: boolean;
  readonly detail?: string;
}

interface Ended {
  readonly steps: readonly Step[];
  /** The guest program's exit code; undefined when it never came to its end. */
  readonly code: number | undefined;
  readonly late: boolean;
  readonly console: string;
}

const TIMEOUT_MS = 600_000;
const CONSOLE_CHARACTERS_MAX = 1_000_000;
const CONSOLE_LINES_SHOWN = 40;
const KERNEL_BUG = /Oops|Kernel panic|BUG: |general protection fault|Unable to handle kernel/;
const MACHINE = ["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3072"] as const;
const NO_DEVICES = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"] as const;
/** A guest that waits for its turn on a busy host is no reason for the kernel's watchdogs to bark. */
const KERNEL_ARGUMENTS =
  "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic nowatchdog rcupdate.rcu_cpu_stall_suppress=1";

/** Boots a machine, runs the program and reports its steps. @throws {Error} with the end of the console. */
export async function bootGuest(t: Deno.TestContext, options: GuestOptions): Promise<void> {
  const ended = await runGuest(options, () => {});
  for (const { step, ok: passed, detail } of ended.steps) {
    await t.step(step, () => ok(passed, detail));
  }
  const problem = problemOf(ended, options.timeout_ms ?? TIMEOUT_MS);
  if (problem !== undefined) {
    fail(`${problem}; the end of the console:\n${lastLines(ended.console)}`);
  }
}

function problemOf({ steps, code, late, console }: Ended, timeout_ms: number): string | undefined {
  const bug = console.split("\n").find((line) => KERNEL_BUG.test(line));
  if (bug !== undefined) return `the guest's kernel reported: ${bug}`;
  if (late) return `the guest did not end within ${timeout_ms} ms`;
  if (code === undefined) return "the guest stopped before its program had ended";
  if (code !== 0) return `the guest program ended with code ${code}`;
  if (steps.length === 0) return "the guest program reported nothing";
  return steps.every((step) => step.ok) ? undefined : "a step failed";
}

async function runGuest(options: GuestOptions, listen: (text: string) => void): Promise<Ended> {
  using temp = tempDir("vm");
  const kernel = kernelFiles(options.kernel ?? "6.12");
  const initrd = buildRoot({ kernel, program: options.program, work: temp.path });
  const report = temp.file("report");
  Deno.writeTextFileSync(report, "");
  const qemu = qemuCommand();
  const modules = (options.modules ?? []).join(",");
  const child = new Deno.Command(qemu.path, {
    args: [...qemu.args, ...MACHINE, ...NO_DEVICES]
      .concat("-serial", "stdio", "-serial", `file:${report}`)
      .concat("-kernel", kernel.image, "-initrd", initrd)
      .concat("-append", `${KERNEL_ARGUMENTS} modules=${modules}`),
    env: qemu.env,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    kill(child.pid, "SIGKILL");
  }, options.timeout_ms ?? TIMEOUT_MS);
  let console = "";
  const follow = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>) => {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      listen(text);
      console = (console + text.replaceAll("\r", "")).slice(-CONSOLE_CHARACTERS_MAX);
    }
  };
  try {
    await Promise.all([follow(child.stdout), follow(child.stderr), child.status]);
  } finally {
    clearTimeout(timer);
    kill(child.pid, "SIGKILL");
  }
  return { ...decodeReport(Deno.readTextFileSync(report)), late, console };
}

function decodeReport(text: string): Pick<Ended, "steps" | "code"> {
  // A machine that was killed may have left half a line.
  const lines = text.split("\n").slice(0, -1).map((line) => JSON.parse(line) as object);
  const steps = lines.filter((line): line is Step => "step" in line);
  const last = lines.at(-1);
  const code = last !== undefined && "end" in last ? Number(last.end) : undefined;
  return { steps, code };
}

function lastLines(text: string): string {
  return text.trimEnd().split("\n").slice(-CONSOLE_LINES_SHOWN).join("\n");
}

if (import.meta.main) {
  const [program = "smoke", kernel = "6.12", ...modules] = Deno.args;
  const encoder = new TextEncoder();
  const say = (text: string) => Deno.stdout.writeSync(encoder.encode(text));
  const timeout_ms = 15 * 60_000;
  const options = { program, kernel: kernel as Kernel, modules, timeout_ms };
  const ended = await runGuest(options, say);
  for (const step of ended.steps) say(`${JSON.stringify(step)}\n`);
  const problem = problemOf(ended, timeout_ms);
  say(`${problem ?? "all steps passed"}\n`);
  Deno.exitCode = problem === undefined ? 0 : 1;
}
