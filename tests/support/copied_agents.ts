/**
 * Agents as processes, each begun with a copy of another's state directory, on one volume of one network
 * store; and applications that write to them and know what was acknowledged.
 */
import { ok } from "node:assert/strict";
import { decodeManifest, encodeManifest } from "../../src/codec/mod.ts";
import { silentLog } from "../../src/core/mod.ts";
import { DataPlane } from "../../src/dataplane/mod.ts";
import { freePort, type Output, psma, type Started, startPsma, waitUntil } from "./process.ts";
import type { TempDir } from "./temp.ts";

const MIB = 1024 ** 2;
const BLOCK_BYTES = 4096, LANES = 8;
/** Not to be copied: open databases, and what names a running process. */
const NOT_COPIED = /^(?:forecast|events\.jsonl)$/;

/** How a store is reached: directly, or through relays. */
export interface Way {
  readonly http: number;
  readonly nbd: number;
}

interface View {
  readonly state: string;
  readonly reason?: string;
  readonly epoch: number;
  readonly exports: readonly { readonly uri?: string }[];
}

export class CopiedAgent implements AsyncDisposable {
  readonly #base: string;
  readonly #config: string;
  readonly #started: Started;

  private constructor(
    readonly state: string,
    readonly way: Way,
    { config, port }: { config: string; port: number },
  ) {
    this.#config = config;
    this.#base = `http://127.0.0.1:${port}`;
    this.#started = startPsma(["run", "--config", config, "--log-level", "warn"]);
  }

  /** @param original whose state it begins with; without one the volume is made. */
  static start(
    temp: TempDir,
    { name, way, token_file, original }: {
      readonly name: string;
      readonly way: Way;
      readonly token_file: string;
      readonly original?: CopiedAgent;
    },
  ): CopiedAgent {
    const state = temp.file(name), config = `${state}.yaml`, port = freePort();
    Deno.mkdirSync(state, { mode: 0o700 });
    if (original) {
      copyFiles(original.state, state);
      leadManifest(`${state}/volume-state/data/manifest`, way);
    }
    Deno.writeTextFileSync(
      config,
      `
api: { listen: "127.0.0.1:${port}" }
state_dir: ${state}
forecast: { horizon: 1m, interval: 1h }
stores:
  far: { type: psma, url: "http://127.0.0.1:${way.http}", token_file: ${token_file} }
volumes:
  data: { store: far, size: 8MiB, max_size: 16MiB, frontend: nbd, scale: { approve: advise } }
`,
    );
    return new CopiedAgent(state, way, { config, port });
  }

  get pid(): number {
    return this.#started.pid;
  }

  async view(): Promise<View | undefined> {
    try {
      const response = await fetch(`${this.#base}/v1/volumes/data`);
      return response.ok ? await response.json() : void await response.body?.cancel();
    } catch {
      return undefined; // It is starting.
    }
  }

  /** Waits until the volume is served. @returns the URI of its export. */
  async served(): Promise<string> {
    let last: View | undefined;
    return await waitUntil(async () => {
      last = await this.view();
      return last?.state === "attached" ? last.exports[0]?.uri : undefined;
    }, { what: () => `${this.state}, not ${JSON.stringify(last)}; ${this.#started.output()}` });
  }

  /** Waits until the volume could not be opened. */
  async refused(): Promise<View> {
    return await waitUntil(async () => {
      const view = await this.view();
      return view?.state === "failed" ? view : undefined;
    }, { what: () => `a refusal; ${this.#started.output()}` });
  }

  /** Types of the volume's events. */
  async events(): Promise<string[]> {
    const response = await fetch(`${this.#base}/v1/events?volume=data&limit=1000`);
    const { events } = await response.json();
    return events.map(({ type }: { type: string }) => type);
  }

  async saysFenced(): Promise<View> {
    await waitUntil(async () => (await this.events()).includes("volume.fenced"), {
      what: () => `the event of ${this.state}; ${this.#started.output()}`,
    });
    const view = await this.view();
    ok(view);
    return view;
  }

  /** @param options.exit as expected. */
  psma(args: readonly string[], { exit = 0 }: { exit?: number } = {}): Promise<Output> {
    return psma([...args, "--config", this.#config], { exit });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // One that is stopped ends as well.
    await this.#started.end("SIGKILL");
    await this.#started[Symbol.asyncDispose]();
  }
}

/** An application on a volume's export: each lane writes rising numbers to a block of its own. */
export class CountingWriter {
  /** By lane: the last number that was sent, and the last that was acknowledged. */
  readonly sent: number[] = Array(LANES).fill(0);
  readonly acknowledged: number[] = Array(LANES).fill(0);
  #lanes: Promise<void>[] = [];
  #stopped = false;

  private constructor(readonly plane: DataPlane, readonly device: number) {}

  static async open(plane: DataPlane, uri: string): Promise<CountingWriter> {
    const { device } = await plane.command("openDevice", { uri });
    return new CountingWriter(plane, device);
  }

  /** Each lane writes until a write fails. @param from the numbers that stand there. */
  start(from: readonly number[]): void {
    for (let lane = 0; lane < LANES; lane++) {
      this.sent[lane] = this.acknowledged[lane] = from[lane] ?? 0;
      this.#lanes.push(this.#write(lane));
    }
  }

  async #write(lane: number): Promise<void> {
    while (!this.#stopped) {
      const number = this.sent[lane] = (this.sent[lane] ?? 0) + 1;
      const bytes = new Uint8Array(BLOCK_BYTES);
      new DataView(bytes.buffer).setUint32(0, number);
      const at = lane * MIB / 2;
      try {
        await this.plane.command("writeDevice", { device: this.device, at, bytes });
      } catch {
        return;
      }
      this.acknowledged[lane] = number;
    }
  }

  /** Waits until each lane has come so much further. */
  async further(count: number): Promise<void> {
    const goal = this.acknowledged.map((number) => number + count);
    await waitUntil(() => this.acknowledged.every((number, lane) => number >= (goal[lane] ?? 0)), {
      what: "writes",
    });
  }

  /** Waits until a write of each lane has failed. */
  async failed(): Promise<void> {
    await Promise.all(this.#lanes);
    this.#lanes = [];
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.failed();
  }

  /** The numbers that stand there, by lane. */
  async read(): Promise<number[]> {
    return await Promise.all(this.sent.map(async (_, lane) => {
      const at = lane * MIB / 2;
      const { device } = this;
      const bytes = await this.plane.command("readDevice", { device, at, length: BLOCK_BYTES });
      return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
    }));
  }
}

/** A program of its own on this machine, for any number of exports. */
export async function startApplications(): Promise<DataPlane & AsyncDisposable> {
  const plane = await DataPlane.start({ log: silentLog });
  return Object.assign(plane, { [Symbol.asyncDispose]: () => plane.stop() });
}

function copyFiles(from: string, to: string) {
  for (const { name, isFile, isDirectory } of Deno.readDirSync(from)) {
    if (NOT_COPIED.test(name)) continue;
    if (isFile) Deno.copyFileSync(`${from}/${name}`, `${to}/${name}`);
    if (!isDirectory) continue;
    Deno.mkdirSync(`${to}/${name}`, { mode: 0o700 });
    copyFiles(`${from}/${name}`, `${to}/${name}`);
  }
}

/** Lets a copied manifest name the store by the way that its new agent reaches it. */
function leadManifest(path: string, way: Way) {
  const manifest = decodeManifest(Deno.readFileSync(path), path);
  const { active } = manifest;
  ok(active.backend.type === "nbd");
  const uri = active.backend.uri.replace(/:\d+\//, `:${way.nbd}/`);
  const led = { ...active, backend: { ...active.backend, uri } };
  Deno.writeFileSync(path, encodeManifest({ ...manifest, active: led }));
}
