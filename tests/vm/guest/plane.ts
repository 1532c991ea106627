/**
 * A data plane in a process of its own, to be killed: the service that the agent's worker thread runs, and no
 * agent around it, which an emulated processor would need a minute to start. A guest program is its own server:
 * it starts itself once more with the argument `serve`, and then calls `servePlane()`.
 */
import type { CommandName, Commands, FromWorker } from "../../../src/dataplane/messages.ts";
import { Service } from "../../../src/dataplane/service.ts";
import { loadDigest } from "../../../src/mirror/mod.ts";
import { allocateMemory, Reactor, UringRing } from "../../../src/sys/mod.ts";
import { kill, waitUntil } from "../../support/process.ts";

const PROGRAM = "/guest/program.js";
const FLAGS = [
  "--quiet",
  "--no-config",
  "--no-lock",
  "--no-remote",
  "--no-npm",
  "--no-prompt",
  "-A",
];
const SLOW_MS = 120_000;
const COMMAND_BYTES = 4096;

/** The server's life: commands as lines on standard input, outcomes as lines on standard output. */
export async function servePlane(): Promise<never> {
  const digest = await loadDigest();
  const reactor = new Reactor(new UringRing({ entries: 1024 }));
  const service = new Service({
    reactor,
    digest,
    slots: 128,
    maxIo: 1 << 20,
    replay: false,
    post: say,
    ask: () => Promise.reject(new Error("nobody answers here")),
  });
  service.supervise("commands", takeCommands(reactor, service));
  await reactor.run();
  Deno.exit(0);
}

/** On the ring, because nothing else of the runtime goes on in its thread. */
async function takeCommands(reactor: Reactor, service: Service): Promise<void> {
  const memory = allocateMemory(COMMAND_BYTES);
  for (;;) {
    const count = await reactor.read(0, 0, memory);
    if (count <= 0) return;
    const line = new TextDecoder().decode(memory.bytes.slice(0, count));
    const { seq, name, argument } = JSON.parse(line);
    service.handle(seq, name, argument);
  }
}

function say(message: FromWorker): void {
  if (message.kind === "counters") return;
  Deno.stdout.writeSync(new TextEncoder().encode(`${JSON.stringify(message)}\n`));
}

/** The other end, in the guest program. */
export class Plane {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #outcomes = new Map<number, Extract<FromWorker, { kind: "outcome" }>["outcome"]>();
  #seq = 0;

  constructor() {
    this.#child = new Deno.Command("deno", {
      args: ["run", ...FLAGS, PROGRAM, "serve"],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#listen().catch(() => {}); // It was killed in the middle of a line.
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** One at a time, so that each is one line to the server. @throws {Error} what the service refused it with. */
  async command<Name extends CommandName>(
    name: Name,
    argument: Commands[Name]["argument"],
  ): Promise<Commands[Name]["answer"]> {
    const seq = ++this.#seq;
    await this.#input.write(new TextEncoder().encode(JSON.stringify({ seq, name, argument })));
    const outcome = await waitUntil(() => this.#outcomes.get(seq), {
      what: `the data plane to answer ${name}`,
      within_ms: SLOW_MS,
    });
    if (!outcome.ok) throw new Error(`${outcome.error.message} (${outcome.error.code})`);
    return outcome.value as Commands[Name]["answer"];
  }

  /** Kills it with -9. */
  async kill(): Promise<void> {
    kill(this.pid, "SIGKILL");
    await this.#child.status;
  }

  async #listen(): Promise<void> {
    let text = "";
    for await (const part of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (text + part).split("\n");
      text = lines.pop() ?? "";
      for (const message of lines.map((line) => JSON.parse(line) as FromWorker)) {
        if (message.kind === "outcome") this.#outcomes.set(message.seq, message.outcome);
        else Deno.stderr.writeSync(new TextEncoder().encode(`${JSON.stringify(message)}\n`));
      }
    }
  }
}
