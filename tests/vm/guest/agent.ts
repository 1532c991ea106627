/** The agent inside a test machine: started, killed and started again by a guest program, asked over HTTP. */
import { kill, start, type Started, waitUntil } from "../../support/process.ts";

/** Everything lies in memory; an emulated processor needs about ten seconds to start the agent. */
const FOLDER = "/dev/shm";
const STATE = `${FOLDER}/psma`;
const API = "http://127.0.0.1:9310";
const SLOW_MS = 300_000;
const OPERATION_MS = 400_000;

/** A volume as `GET /v1/volumes/V` shows it, as much as guest programs ask for. */
export interface VolumeView {
  readonly state: string;
  readonly size_bytes: number;
  readonly epoch: number;
  readonly active: { readonly uri: string };
  readonly exports: readonly {
    readonly frontend: string;
    readonly uri?: string;
    readonly device?: string;
    readonly mount?: string;
  }[];
}

interface OperationView {
  readonly id: string;
  readonly state: "running" | "done" | "failed";
  readonly error: unknown;
}

/**
 * `psma run` with two embedded stores, `near` and `far`, and the volumes of `volumes`, which is the YAML
 * below `volumes:`, indented by two. Forecasts are an hour apart, so that nothing waits for the forecaster.
 */
export class GuestAgent {
  #process: Started | undefined;
  readonly #config = `${STATE}.yaml`;

  constructor(volumes: string) {
    Deno.writeTextFileSync(
      this.#config,
      `
api: { listen: "127.0.0.1:9310" }
state_dir: ${STATE}
sampling: { interval: 5s }
forecast: { horizon: 1m, interval: 1h }
stores:
  near: { type: embedded, path: ${STATE}.near }
  far: { type: embedded, path: ${STATE}.far }
volumes:
${volumes}
`,
    );
  }

  /** Starts the agent and waits until its API answers. Volumes may still be on their way. */
  async start(): Promise<void> {
    this.#process = start("psma", ["run", "--config", this.#config]);
    await this.#process.line(/Ready/, SLOW_MS);
  }

  /** Waits until a volume is attached. */
  attached(name: string): Promise<VolumeView> {
    return waitUntil(async () => {
      const view = await this.view(name);
      return view.state === "attached" ? view : undefined;
    }, {
      what: () => `${name} to be attached; the agent says:\n${this.output()}`,
      within_ms: SLOW_MS,
    });
  }

  /** A volume as it is now. */
  view(name: string): Promise<VolumeView> {
    return this.#get<VolumeView>(`/v1/volumes/${name}`);
  }

  /** Sends a signal and waits for nothing. */
  signal(signal: Deno.Signal): void {
    if (this.#process) kill(this.#process.pid, signal);
  }

  /** Kills it with -9. */
  async kill(): Promise<void> {
    await this.#process?.end("SIGKILL");
  }

  /** Ends it in order. */
  async stop(): Promise<void> {
    await this.#process?.end("SIGTERM", SLOW_MS);
  }

  /** Loses all that it knew and served, as a machine does whose directories were deleted. */
  forget(): void {
    for (const { name } of [...Deno.readDirSync(FOLDER)]) {
      if (name.startsWith("psma")) Deno.removeSync(`${FOLDER}/${name}`, { recursive: true });
    }
  }

  /** What the agent of now has printed. */
  output(): string {
    return this.#process?.output() ?? "";
  }

  /** Does `POST /v1/volumes/V/VERB` and waits for the operation that it may start. @throws {Error} with the answer. */
  async do(name: string, verb: string, body: Record<string, unknown> = {}): Promise<void> {
    const response = await fetch(`${API}/v1/volumes/${name}/${verb}`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${Deno.readTextFileSync(`${STATE}/api.token`).trim()}`,
        "content-type": "application/json",
      },
      body: JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${verb} ${name}: ${response.status} ${text}`);
    if (response.status !== 202) return;
    const { id } = JSON.parse(text) as OperationView;
    const ended = await waitUntil(async () => {
      const operation = await this.#get<OperationView>(`/v1/operations/${id}`);
      return operation.state === "running" ? undefined : operation;
    }, {
      what: () => `the end of ${verb} ${name}; the agent says:\n${this.output()}`,
      within_ms: OPERATION_MS,
    });
    if (ended.state !== "done") throw new Error(`${verb} ${name}: ${JSON.stringify(ended)}`);
  }

  async #get<T>(path: string): Promise<T> {
    const response = await fetch(`${API}${path}`);
    const text = await response.text();
    if (!response.ok) throw new Error(`GET ${path}: ${response.status} ${text}`);
    return JSON.parse(text) as T;
  }
}
