/** What every verb has in common: its options, its help, and a session that talks and answers. */
import { Command } from "@commander-js/extra-typings";
import { AgentClient, readToken } from "../api/client.ts";
import { type Clock, PsmaError } from "../core/mod.ts";
import type { CliParts, LoadedConfig } from "./parts.ts";
import { LiveText, type Paint, painter, type Writer } from "./terminal.ts";

const DEFAULT_CONFIG = "/etc/psma/psma.yaml";
const DEFAULT_LISTEN = "127.0.0.1:9310";
const DEFAULT_TOKEN_FILE = "/var/lib/psma/api.token";

export interface CommonOptions {
  readonly json?: true | undefined;
  readonly config?: string | undefined;
  readonly color: boolean;
  readonly url?: string | undefined;
  readonly tokenFile?: string | undefined;
}

/** A verb with the options that every verb has, and examples under its help. */
// deno-lint-ignore explicit-module-boundary-types -- the type is what the options make it
export function verb(name: string, about: string, examples: readonly string[]) {
  return new Command(name)
    .description(about)
    .option("--json", "print JSON for programs")
    .option("--config <file>", `the configuration (default: $PSMA_CONFIG or ${DEFAULT_CONFIG})`)
    .option("--no-color", "print no colours (also: NO_COLOR=1)")
    .option(
      "--url <url>",
      "the agent's address (default: $PSMA_URL or what the configuration says)",
    )
    .option("--token-file <file>", "the agent's token (default: what the configuration says)")
    .addHelpText("after", `\nExamples:\n${examples.map((line) => `  $ ${line}`).join("\n")}`);
}

/** A verb that only holds other verbs. */
export function group(name: string, about: string, verbs: readonly Command[]): Command {
  const holder = new Command(name).description(about);
  // The type of a command's arguments and options does not matter to the command above it.
  for (const one of verbs) holder.addCommand(one as never);
  return holder as never;
}

/** Runs a verb's work in a session. */
export type Start = (
  options: CommonOptions,
  work: (session: Session) => Promise<void>,
) => Promise<void>;

/** One run of a verb: where it writes, and whom it asks. */
export class Session {
  readonly clock: Clock;
  readonly paint: Paint;
  readonly live: LiveText;
  #client: AgentClient | undefined;

  constructor(
    readonly parts: CliParts,
    readonly options: CommonOptions,
    readonly stdout: Writer,
    readonly stderr: Writer,
  ) {
    this.clock = parts.clock;
    const wanted = options.color && (Deno.env.get("NO_COLOR") ?? "") === "" && !options.json;
    this.paint = painter(wanted && stdout.is_terminal);
    this.live = new LiveText(stderr);
  }

  get json(): boolean {
    return this.options.json === true;
  }

  /** Prints for people, or, with --json, the value for programs. */
  answer(value: unknown, text: () => string): void {
    this.stdout.write(this.json ? JSON.stringify(value) + "\n" : text() + "\n");
  }

  configPath(): string {
    return this.options.config ?? Deno.env.get("PSMA_CONFIG") ?? DEFAULT_CONFIG;
  }

  config(): Promise<LoadedConfig> {
    return this.parts.config.load(this.configPath());
  }

  /** The agent that --url, PSMA_URL or the configuration names. */
  async agent(): Promise<AgentClient> {
    this.#client ??= await this.#connect();
    return this.#client;
  }

  close(): void {
    this.#client?.[Symbol.dispose]();
  }

  async #connect(): Promise<AgentClient> {
    const url = this.options.url ?? Deno.env.get("PSMA_URL");
    const token_file = this.options.tokenFile ?? Deno.env.get("PSMA_TOKEN_FILE");
    const config = url !== undefined && token_file !== undefined ? undefined : await this.#place();
    const token_path = token_file ?? config?.token_file ?? DEFAULT_TOKEN_FILE;
    return new AgentClient({
      url: url ?? config?.listen ?? DEFAULT_LISTEN,
      token: () => readToken(token_path),
      clock: this.clock,
    });
  }

  /** The configuration, where there is one: without, an agent may still run at the usual place. */
  async #place(): Promise<{ listen: string; token_file: string } | undefined> {
    const named = this.options.config !== undefined || Deno.env.has("PSMA_CONFIG");
    if (!named && !exists(DEFAULT_CONFIG)) return undefined;
    return await this.config();
  }
}

/** The code of work that a signal ended. */
export const INTERRUPTED = "state/interrupted";

/** Signals end the wait; the first one wins. */
export function untilSignal(): { readonly signal: AbortSignal; [Symbol.dispose](): void } {
  const controller = new AbortController();
  const stop = () => controller.abort(new PsmaError(INTERRUPTED, "Interrupted"));
  const names = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const name of names) Deno.addSignalListener(name, stop);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const name of names) Deno.removeSignalListener(name, stop);
    },
  };
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
