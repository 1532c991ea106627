/**
 * The main job from start to finish, by processes as an operator would run them: a data store, an agent, an
 * application that fills a volume. Nobody tells the agent to do anything: its own forecast makes it act.
 * Here everything is only started, watched, and in the end checked.
 */
import { AgentClient, type AgentEvent, readToken, type VolumeView } from "../../api/client.ts";
import { type Clock, formatDuration, PsmaError } from "../../core/mod.ts";
import type { Report, Verdict } from "./application.ts";
import { Child } from "./child.ts";
import { demoConfiguration, VOLUME } from "./configuration.ts";
import { type Latency, summarizeAround, summarizeBefore } from "./latencies.ts";
import { type Prediction, predictionOf } from "./prediction.ts";
import type { Observed } from "./report.ts";
import type { Screen } from "./screen.ts";
import type { Workspace } from "./workspace.ts";

const LOOK_MS = 250;
const READY_WITHIN_MS = 30_000;
/** Ten times what it takes where nothing else runs. */
const SWITCH_WITHIN_MS = 400_000;
const FILL_WITHIN_MS = 120_000;
const AHEAD_MS = 10_000;

export interface DemoOptions {
  readonly frontend: "fuse" | "nbd";
  readonly workspace: Workspace;
  readonly screen: Screen;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Runs the demo. @throws {PsmaError} when a part of it fails, or the signal aborts. */
export async function playDemo(options: DemoOptions): Promise<Observed> {
  await using processes = new AsyncDisposableStack();
  const stage = await raise(options, processes);
  const play = new Play(options, stage);
  const gone = [stage.store, stage.agent, stage.application].map((child) => child.ended());
  for (const one of gone) one.catch(() => {});
  return await Promise.race([play.perform(), aborted(options.signal), ...gone]);
}

interface Stage {
  readonly store: Child;
  readonly agent: Child;
  readonly application: Child;
  readonly client: AgentClient;
  readonly before: VolumeView;
}

/** Starts everything, each once the one before is ready; all of it ends in the opposite order. */
async function raise(options: DemoOptions, processes: AsyncDisposableStack): Promise<Stage> {
  const { frontend, workspace, screen, clock, signal } = options;
  const startChild = (name: string, args: readonly string[]) =>
    processes.use(new Child({ name, args, log_path: workspace.file(`${name}.log`) }));
  const lifeline = ["--until-stdin-ends", "--json"];
  screen.say("starting a data store in a second process");
  const store_path = workspace.file("store");
  const store_token_file = workspace.file("store.token");
  const places = ["--path", store_path, "--token-file", store_token_file];
  const anywhere = ["--listen", "127.0.0.1:0", "--nbd-listen", "127.0.0.1:0"];
  const store = startChild("store", ["store", "serve", ...places, ...anywhere, ...lifeline]);
  const { url: store_url } = await orAborted(store.next<{ url: string }>(), signal);

  screen.say(
    "starting the agent, which makes the volume" +
      (frontend === "nbd" ? "" : ", its file system, and mounts it"),
  );
  const mount = workspace.file("mnt");
  const config = workspace.file("psma.yaml");
  const token_file = workspace.file("api.token");
  const socket = workspace.file("api.sock");
  const text = demoConfiguration({
    frontend,
    state_dir: workspace.file("state"),
    socket,
    token_file,
    volumes: workspace.file("volumes"),
    mount,
    store_url,
    store_token_file,
  });
  Deno.mkdirSync(mount);
  Deno.writeTextFileSync(config, text);
  const agent = startChild("agent", ["run", "--config", config, ...lifeline]);
  const { url } = await orAborted(agent.next<{ url: string }>(), signal);
  const client = processes.use(new AgentClient({ url, token: () => readToken(token_file), clock }));
  const before = await attachedVolume(client, options);

  screen.say(
    "starting an application: SQLite and files of random content, every digest remembered",
  );
  const application = startChild("application", [
    "internal",
    "demo-application",
    ...targetOf(before, workspace),
  ]);
  await orAborted(application.next<Report>(), signal);
  return { store, agent, application, client, before };
}

function targetOf(volume: VolumeView, workspace: Workspace): string[] {
  if (volume.filesystem !== null) return ["--folder", volume.filesystem.mount];
  const exported = volume.exports.find((one) => one.frontend === "nbd");
  if (exported?.frontend === "nbd") return ["--uri", exported.uri, "--scratch", workspace.path];
  throw new PsmaError("internal/demo", "Cannot go on: the volume is not exported");
}

/** Waits until the volume is served, and until its first sample says how large its file system is. */
async function attachedVolume(
  client: AgentClient,
  { frontend, clock, signal }: DemoOptions,
): Promise<VolumeView> {
  const until_ms = clock.monotonicMs() + READY_WITHIN_MS;
  while (true) {
    const volume = await client.volume(VOLUME);
    const measured = frontend === "nbd" || volume.filesystem !== null;
    if (volume.state === "attached" && measured) return volume;
    if (volume.state === "failed" || clock.monotonicMs() > until_ms) {
      throw new PsmaError(
        "state/not-attached",
        `Cannot go on: the volume is ${volume.state}: ${
          volume.reason ?? "it is not served in time"
        }`,
      );
    }
    await clock.sleep(LOOK_MS, signal);
  }
}

/** What happens on the stage, and what is seen of it. */
class Play {
  readonly #latencies: Latency[] = [];
  #kept = { files: 0, bytes: 0 };
  #last_event = 0;
  #tripped: AgentEvent | null = null;
  #mirrored_at_ms: number | null = null;
  #prediction: Prediction | null = null;
  #predicting: Promise<void> | undefined;
  #closed = false;

  constructor(readonly options: DemoOptions, readonly stage: Stage) {}

  async perform(): Promise<Observed> {
    const { screen, frontend } = this.options;
    const { before, application } = this.stage;
    const hearing = this.#hear();
    // Awaited at the end; when the application dies before, the race in playDemo tells of it.
    hearing.catch(() => {});
    screen.say("watching: the agent acts by itself when its forecast says so");
    await this.#watch(
      SWITCH_WITHIN_MS,
      "the switch",
      (volume) => volume.last_cutover !== null && sizeOf(volume) > sizeOf(before),
    );
    screen.say("the application writes on, past the old size");
    await application.send({ do: "hurry" });
    await this.#watch(
      FILL_WITHIN_MS,
      "the old size to be passed",
      (volume) => volume.used_bytes > sizeOf(before) && this.#compared,
    );
    await application.send({ do: "close" });
    await hearing;
    const verdict = await this.#verify();
    const after = await this.stage.client.volume(VOLUME);
    screen.clear();
    const switched_ms = Date.parse(after.last_cutover?.at ?? "");
    return {
      frontend,
      before,
      after,
      prediction: this.#requirePrediction(),
      tripped: this.#tripped,
      verdict,
      latency: {
        before: summarizeBefore(this.#latencies, this.#mirrored_at_ms ?? switched_ms),
        around: summarizeAround(this.#latencies, switched_ms),
      },
      took_ms: screen.elapsed_ms,
    };
  }

  /** Takes in what the application reports, until it has closed. */
  async #hear(): Promise<void> {
    while (!this.#closed) {
      const report = await this.stage.application.next<Report>();
      if (report.kind === "progress") {
        this.#kept = { files: report.files, bytes: report.bytes };
        this.#latencies.push(...report.latencies);
      }
      if (report.kind === "closed") this.#closed = true;
    }
  }

  /** Looks again and again, showing what there is, until `seen`. */
  async #watch(
    within_ms: number,
    what: string,
    seen: (volume: VolumeView) => boolean,
  ): Promise<void> {
    const { clock, screen, signal } = this.options;
    const until_ms = clock.monotonicMs() + within_ms;
    while (true) {
      const volume = await this.stage.client.volume(VOLUME);
      await this.#takeEvents(volume);
      this.#comparePrediction(volume);
      screen.show({
        volume,
        files: this.#kept.files,
        written_bytes: this.#kept.bytes,
        latency_us: this.#latencies.at(-1)?.[1] ?? 0,
      });
      if (seen(volume)) return;
      if (clock.monotonicMs() > until_ms) throw await this.#late(what, within_ms);
      await clock.sleep(LOOK_MS, signal);
    }
  }

  async #takeEvents(volume: VolumeView): Promise<void> {
    for (const event of await this.stage.client.events({ after: this.#last_event })) {
      this.#last_event = event.id;
      this.options.screen.event(event);
      if (event.type === "forecast.tripped") this.#tripped ??= event;
    }
    if (volume.mirror === null && this.#tripped === null) return;
    this.#mirrored_at_ms ??= this.options.clock.nowMs();
    // One that fails is asked for again at the next look; looking has an end.
    this.#predicting ??= this.#predict().catch(() => this.#predicting = undefined);
  }

  /** Asks once, when it tripped, what is to come; the answer is compared when its time has come. */
  async #predict(): Promise<void> {
    const { client } = this.stage;
    const plan = await client.plan(VOLUME);
    const level = plan.numbers["level"] ?? 0.95;
    const ahead_ms = Math.max(AHEAD_MS, plan.numbers["lead_ms"] ?? 0);
    const forecast = await client.forecast(VOLUME, { levels: `0.5,${level}` });
    this.#prediction = predictionOf(forecast, { level, ahead_ms }) ?? null;
  }

  /** The time that was forecast has come, and what was there then is known. */
  get #compared(): boolean {
    return this.#prediction !== null && this.#prediction.actual_bytes !== null;
  }

  #comparePrediction(volume: VolumeView): void {
    const prediction = this.#prediction;
    if (prediction === null || prediction.actual_bytes !== null) return;
    // Right after a switch the new store has not yet said how much is allocated: zero is no measurement.
    if (this.options.clock.nowMs() < prediction.at_ms || volume.used_bytes === 0) return;
    this.#prediction = { ...prediction, actual_bytes: volume.used_bytes };
  }

  #requirePrediction(): Prediction {
    if (this.#prediction !== null) return this.#prediction;
    throw new PsmaError("forecast/none", "Cannot report the forecast: the agent gave none");
  }

  /** Everything is read back from the new volume itself: it is taken off and put on again before. */
  async #verify(): Promise<Verdict> {
    const { screen } = this.options;
    const { client, application } = this.stage;
    screen.clear();
    screen.say("taking the volume off and on again, so that nothing is read from a cache");
    await client.detach(VOLUME);
    await client.attach(VOLUME);
    screen.say("reading everything back and comparing digests");
    await application.send({ do: "verify" });
    const report = await application.next<Report>();
    if (report.kind === "verified") return report.verdict;
    throw new PsmaError("internal/demo", `Cannot go on: the application says "${report.kind}"`);
  }

  async #late(what: string, within_ms: number): Promise<PsmaError> {
    const plan = await this.stage.client.plan(VOLUME);
    const because = plan.because.join(" ");
    return new PsmaError(
      "timeout/demo",
      `Cannot wait longer than ${
        formatDuration(within_ms)
      } for ${what}: the plan is "${plan.action}": ${because}`,
    );
  }
}

/** What the application can fill. */
function sizeOf({ filesystem, size_bytes }: VolumeView): number {
  return filesystem?.size_bytes ?? size_bytes;
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return Promise.race([promise, aborted(signal)]);
}
