/**
 * An agent, its store server and an application that verifies every block, for kills without end: each life of the
 * agent is given an order, and the agent, the store or both are killed at random or at a chosen moment of it.
 */
import { ok } from "node:assert/strict";
import { type Rng, silentLog } from "../../src/core/mod.ts";
import { DataPlane } from "../../src/dataplane/mod.ts";
import { DeviceWriter } from "./device_writer.ts";
import { atAnyMoment, freePort, type Started, startPsma, waitUntil } from "./process.ts";
import type { TempDir } from "./temp.ts";

const MIB = 2 ** 20;
/** A scaling event of this volume takes about this long: kills fall anywhere in it. */
const LONGEST_LIFE_MS = 1500;
const LANES = 3;
const ASK_AGAIN_MS = 250;

export type Victim = "agent" | "store" | "both";
type Order = "scale" | "mirror/start" | "switch" | "rollback";

/** Every other kill waits for one of these, the rest fall where they fall. */
const AIMS: readonly { readonly order: Order; readonly state: string }[] = [
  { order: "scale", state: "syncing" },
  { order: "scale", state: "converging" },
  { order: "scale", state: "switching" },
  { order: "mirror/start", state: "resyncing" },
];
const BARE: readonly Order[] = ["switch", "rollback"];
/** How often a volume that could go back to a followed backup is told to. */
const ROLLBACK_SHARE = 0.4;

interface View {
  readonly size_bytes: number;
  readonly mirror: { readonly state: string } | null;
  readonly backup: { readonly state: string } | null;
  readonly exports: readonly { readonly uri?: string }[];
  readonly last_cutover: {
    readonly epoch: number;
    readonly copied_bytes: number;
    readonly digests_checked: number;
    readonly digest_mismatches: number;
  } | null;
}

/** What a rig has been through. */
export class KillCounts {
  /** By who was killed and what the mirror was doing. */
  readonly kills = new Map<string, number>();
  switches = 0;
  /** Reports of switches to a target whose copied extents were not checked, or did not agree. */
  readonly unverified: string[] = [];
  /** Writes that were acknowledged, each found in its place or overwritten by a later one. */
  writes = 0;
  reads = 0;

  count(victim: Victim, state: string): void {
    const key = `${victim}: ${state}`;
    this.kills.set(key, (this.kills.get(key) ?? 0) + 1);
  }

  add(other: KillCounts): void {
    for (const [key, count] of other.kills) this.kills.set(key, (this.kills.get(key) ?? 0) + count);
    this.switches += other.switches;
    this.unverified.push(...other.unverified);
    this.writes += other.writes;
    this.reads += other.reads;
  }

  get total(): number {
    return [...this.kills.values()].reduce((sum, count) => sum + count, 0);
  }
}

export interface KillRigOptions {
  readonly temp: TempDir;
  readonly rng: Rng;
  readonly backup: "frozen" | "async" | "sync";
  /** Told in errors. */
  readonly name: string;
}

export class KillRig implements AsyncDisposable {
  readonly counts = new KillCounts();
  readonly #rng: Rng;
  readonly #base: string;
  readonly #storeArgs: readonly string[];
  #store: Started;
  #agent: Started;
  #application: DataPlane | undefined;
  #writer: DeviceWriter | undefined;
  /** Epoch of the last switch that was seen. */
  #switched = 0;
  #asked_bytes = 0;
  #aim = 0;

  constructor(readonly options: KillRigOptions) {
    const { temp, rng, backup } = options;
    this.#rng = rng;
    const ports = { api: freePort(), store: freePort(), nbd: freePort() };
    this.#base = `http://127.0.0.1:${ports.api}`;
    this.#storeArgs = [
      "--path",
      temp.file("store"),
      "--listen",
      `127.0.0.1:${ports.store}`,
      "--nbd-listen",
      `127.0.0.1:${ports.nbd}`,
    ];
    Deno.writeTextFileSync(
      temp.file("psma.yaml"),
      `
api: { listen: "127.0.0.1:${ports.api}" }
state_dir: ${temp.file("state")}
forecast: { horizon: 1m, interval: 1h }
stores:
  near: { type: embedded, path: ${temp.file("near")} }
  far:
    type: psma
    url: "http://127.0.0.1:${ports.store}"
    token_file: ${temp.file("store/.psma-token")}
volumes:
  data:
    size: 24MiB
    max_size: 2GiB
    frontend: nbd
    mirror: { store: far, write_through_timeout: 2s, max_rate: 60MiB/s, rpo: 1s, backup: ${backup}, failover_after: 500ms }
    scale: { threshold: 100%, approve: advise, cooldown: 0s }
`,
    );
    this.#store = this.#startStore();
    this.#agent = this.#startAgent();
  }

  #startStore(): Started {
    return startPsma(["store", "serve", ...this.#storeArgs]);
  }

  #startAgent(): Started {
    const config = this.options.temp.file("psma.yaml");
    return startPsma(["run", "--config", config, "--log-level", "warn"]);
  }

  /** Waits for the volume and puts the application to work on it. */
  async begin(): Promise<void> {
    await this.#store.line(/Ready/);
    const { exports: [exported], size_bytes } = await this.#ready();
    this.#application = await DataPlane.start({ log: silentLog });
    this.#writer = await DeviceWriter.open(this.#application, exported?.uri ?? "", this.#rng);
    this.#writer.start(LANES);
    this.#asked_bytes = size_bytes;
  }

  /** One life: an order, a moment, a kill. */
  async killOnce(): Promise<void> {
    const now = await this.#ready();
    const wrong = this.#writer?.failure;
    if (wrong) throw new Error(`${wrong.message}; ${this.options.name}`, { cause: wrong });
    const victim = this.#chooseVictim();
    this.counts.count(victim, await this.#strike(now));
    await this.#kill(victim);
  }

  /** Lets the last order come to its end, and looks at every block. */
  async finish(): Promise<void> {
    await this.#ready();
    let last: View | undefined;
    await waitUntil(async () => {
      const view = last = await this.#view();
      if (view === undefined) return false;
      if (view.size_bytes >= this.#asked_bytes) return view.mirror === null;
      await this.#order("scale");
      return false;
    }, { what: () => this.#tell(`the last scaling event, not ${JSON.stringify(last)}`) });
    await this.#goBackAtLast();
    const writer = this.#writer;
    if (writer === undefined) throw new Error("Cannot finish: nothing was begun");
    const acknowledged = writer.writes;
    await waitUntil(() => writer.writes > acknowledged + 50, {
      what: this.#tell("the application"),
    });
    await writer.stop();
    await writer.verifyAll();
    await writer.close();
    this.counts.writes = writer.writes;
    this.counts.reads = writer.reads;
  }

  /** Gives an order and waits for a moment. @returns what is then under way. */
  async #strike(now: View): Promise<string> {
    const isIdle = now.size_bytes >= this.#asked_bytes && now.mirror === null;
    if (isIdle && isFollowed(now) && this.#rng.float() < ROLLBACK_SHARE) {
      return await this.#strikeWhileGoingBack(switchOf(now));
    }
    if (now.size_bytes >= this.#asked_bytes) this.#asked_bytes += MIB;
    if (this.#rng.below(2) === 0) return await this.#strikeAtAnyMoment();
    return await this.#strikeAt(AIMS[this.#aim++ % AIMS.length] ?? { order: "scale", state: "" });
  }

  /** Half of them just after it, when the sides have been exchanged. */
  async #strikeWhileGoingBack(last: number): Promise<string> {
    await this.#order("rollback");
    if (this.#rng.below(2) === 0) await atAnyMoment(this.#rng, LONGEST_LIFE_MS / 4);
    else await this.#goBack(last);
    return "going back";
  }

  /** Waits for a switch after `before`, asking for it again: the event before may not have ended. */
  async #goBack(before: number): Promise<void> {
    let last: View | undefined;
    let ask_at_ms = performance.now() + ASK_AGAIN_MS;
    await waitUntil(async () => {
      last = await this.#view();
      if (last === undefined) return false;
      if (switchOf(last) > before || !isFollowed(last)) return true;
      if (performance.now() < ask_at_ms) return false;
      await this.#order("rollback");
      ask_at_ms = performance.now() + ASK_AGAIN_MS;
      return false;
    }, { what: () => this.#tell(`the way back, not ${JSON.stringify(last)}`), every_ms: 1 });
  }

  #chooseVictim(): Victim {
    const chance = this.#rng.float();
    return chance < 0.7 ? "agent" : chance < 0.9 ? "store" : "both";
  }

  async #kill(victim: Victim): Promise<void> {
    const kills: Promise<unknown>[] = [];
    if (victim !== "store") kills.push(this.#agent.end("SIGKILL"));
    if (victim !== "agent") kills.push(this.#store.end("SIGKILL"));
    await Promise.all(kills);
    if (victim !== "agent") {
      this.#store = this.#startStore();
      await this.#store.line(/Ready/);
    }
    if (victim !== "store") this.#agent = this.#startAgent();
  }

  async #strikeAtAnyMoment(): Promise<string> {
    await this.#order(this.#rng.below(3) === 0 ? "mirror/start" : "scale");
    await atAnyMoment(this.#rng, LONGEST_LIFE_MS);
    const view = await this.#view();
    return view === undefined ? "starting" : stateOf(view);
  }

  /**
   * Waits for a state of the mirror. It may be too short to be seen: then for the end of the scaling event.
   * Asks again and again: what was under way may have been coming to its end when it was asked.
   */
  async #strikeAt(aim: { order: Order; state: string }): Promise<string> {
    let seen: View | undefined;
    let ask_at_ms = 0;
    return await waitUntil(async () => {
      const view = seen = await this.#view();
      if (!view) return undefined;
      const state = stateOf(view);
      if (state === aim.state || state === "failed") return state;
      if (view.size_bytes >= this.#asked_bytes) return state;
      if (performance.now() >= ask_at_ms) {
        await this.#order(aim.order);
        ask_at_ms = performance.now() + ASK_AGAIN_MS;
      }
      return undefined;
    }, {
      what: () => this.#tell(`a mirror that is ${aim.state}, not ${JSON.stringify(seen)}`),
      every_ms: 1,
    });
  }

  /** Asks for work; what is under way is fine, and so is an agent that cannot reach its store yet. */
  async #order(verb: Order): Promise<void> {
    const token = Deno.readTextFileSync(this.options.temp.file("state/api.token")).trim();
    const response = await fetch(`${this.#base}/v1/volumes/data/${verb}`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify(BARE.includes(verb) ? {} : { size_bytes: this.#asked_bytes }),
    }).catch((error) => {
      throw new Error(this.#tell(String(error)));
    });
    const answer = await response.text();
    ok(response.ok || response.status === 409 || response.status === 503, answer);
    // A mirror asked for between a switch and its growth leads to no larger place: first it has to be gone.
    if (verb === "scale" && answer.includes('"state/mirror"')) await this.#order("switch");
  }

  async #ready(): Promise<View> {
    const view = await waitUntil(() => this.#view(), { what: () => this.#tell("the volume") });
    this.#countSwitches(view);
    return view;
  }

  /** Each that was the last one when somebody looked. */
  #countSwitches({ last_cutover }: View): void {
    if (last_cutover === null || last_cutover.epoch === this.#switched) return;
    this.#switched = last_cutover.epoch;
    this.counts.switches++;
    const { copied_bytes, digests_checked, digest_mismatches } = last_cutover;
    const unchecked = copied_bytes > 0 && digests_checked === 0;
    if (!unchecked && digest_mismatches === 0) return;
    this.counts.unverified.push(this.#tell(JSON.stringify(last_cutover)));
  }

  /** What the application is then asked about are the backup's bytes. */
  async #goBackAtLast(): Promise<void> {
    const view = await this.#ready();
    if (this.options.backup === "frozen") return;
    ok(view.backup, this.#tell("a backup"));
    await this.#goBack(switchOf(view));
    await this.#ready();
  }

  async #view(): Promise<View | undefined> {
    try {
      const response = await fetch(`${this.#base}/v1/volumes/data`);
      const view = await response.json();
      return response.ok && view.exports.length > 0 ? view : undefined;
    } catch {
      return undefined;
    }
  }

  #tell(what: string): string {
    return `${what}; ${this.options.name}\nagent: ${this.#agent.output()}\nstore: ${this.#store.output()}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#application?.stop();
    await this.#agent[Symbol.asyncDispose]();
    await this.#store[Symbol.asyncDispose]();
  }
}

/** Its epoch; 0 before the first. An opening raises the volume's, too. */
function switchOf({ last_cutover }: View): number {
  return last_cutover?.epoch ?? 0;
}

function isFollowed({ backup }: View): boolean {
  return backup !== null && backup.state !== "frozen";
}

function stateOf(view: View): string {
  return view.mirror?.state ?? (isFollowed(view) ? `its backup is ${view.backup?.state}` : "none");
}
