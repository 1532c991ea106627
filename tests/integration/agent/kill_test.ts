/**
 * `kill -9` of the agent at random and at chosen moments of sync, converge and switch, under an application
 * that verifies every block. The agent is started again each time and must go on with what it was doing, to the end.
 * `deno task test:kills` does it more often.
 */
import { equal, ok } from "node:assert/strict";
import { type Rng, seededRng, silentLog, systemRng } from "../../../src/core/mod.ts";
import { DataPlane } from "../../../src/dataplane/mod.ts";
import { DeviceWriter } from "../../support/device_writer.ts";
import {
  atAnyMoment,
  freePort,
  type Started,
  startPsma,
  waitUntil,
} from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const KILLS = Number(Deno.env.get("PSMA_KILLS") ?? 50);
const SEED = Number(Deno.env.get("PSMA_SEED") ?? systemRng.below(2 ** 32));
const MIB = 2 ** 20;
/** A scaling event of this volume takes about this long: kills fall anywhere in it. */
const LONGEST_LIFE_MS = 2000;

/** Every other kill waits for one of these, the rest fall where they fall. */
const AIMS = ["syncing", "converging", "switching"];
/** Kills must fall into some of these, or the test shows nothing. */
const AT_WORK = ["syncing", "tracking", "converging", "ready", "switching", "requested"];

interface View {
  readonly size_bytes: number;
  readonly epoch: number;
  readonly mirror: { readonly state: string } | null;
  readonly exports: readonly { readonly uri?: string }[];
}

class Api {
  constructor(readonly base: string, readonly token: () => string) {}

  async view(): Promise<View | undefined> {
    try {
      const response = await fetch(`${this.base}/v1/volumes/data`);
      const view = await response.json();
      return response.ok && view.exports.length > 0 ? view : undefined;
    } catch {
      return undefined;
    }
  }

  async stateAtAnyMoment(rng: Rng): Promise<string> {
    await atAnyMoment(rng, LONGEST_LIFE_MS);
    return (await this.view())?.mirror?.state ?? "none";
  }

  /**
   * Waits for a state of the mirror. It may be too short to be seen: then for the end of the scaling event.
   * Asks again while there is no mirror: the event before may have been coming to its end when it was asked.
   */
  async stateAimedAt(aim: string, size_bytes: number): Promise<string> {
    let seen: View | undefined;
    return await waitUntil(async () => {
      const view = seen = await this.view();
      if (!view) return undefined;
      const state = view.mirror?.state ?? "none";
      if (state === aim || state === "failed" || view.size_bytes >= size_bytes) return state;
      if (view.mirror === null) await this.scale(size_bytes);
      return undefined;
    }, { what: () => `a mirror that is ${aim}; seen: ${JSON.stringify(seen)}`, every_ms: 1 });
  }

  /** Asks for a scaling event; one that is under way is fine. */
  async scale(size_bytes: number): Promise<void> {
    const response = await fetch(`${this.base}/v1/volumes/data/scale`, {
      method: "POST",
      headers: { authorization: `Bearer ${this.token()}`, "content-type": "application/json" },
      body: JSON.stringify({ size_bytes }),
    });
    const answer = await response.text();
    ok(response.ok || response.status === 409, answer);
  }
}

Deno.test({
  name: `agent: killed ${KILLS} times while it scales, it loses no acknowledged write and finishes`,
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    const rng = seededRng(SEED);
    const storePort = freePort(), nbdPort = freePort(), apiPort = freePort();
    await using store = startPsma([
      "store",
      "serve",
      "--path",
      temp.file("store"),
      "--listen",
      `127.0.0.1:${storePort}`,
      "--nbd-listen",
      `127.0.0.1:${nbdPort}`,
    ]);
    await store.line(/Ready/);
    const config = temp.file("psma.yaml");
    Deno.writeTextFileSync(
      config,
      `
api: { listen: "127.0.0.1:${apiPort}" }
state_dir: ${temp.file("state")}
sampling: { interval: 1s }
forecast: { horizon: 1m, interval: 1h }
stores:
  near: { type: embedded, path: ${temp.file("near")} }
  far: { type: psma, url: "http://127.0.0.1:${storePort}", token_file: ${
        temp.file("store/.psma-token")
      } }
volumes:
  data:
    size: 24MiB
    max_size: 2GiB
    frontend: nbd
    mirror: { store: far, write_through_timeout: 2s, max_rate: 60MiB/s }
    scale: { threshold: 100%, approve: advise, cooldown: 0s }
`,
    );
    const start = () => startPsma(["run", "--config", config, "--log-level", "warn"]);
    const api = new Api(
      `http://127.0.0.1:${apiPort}`,
      () => Deno.readTextFileSync(temp.file("state/api.token")).trim(),
    );
    let agent: Started = start();
    const application = await DataPlane.start({ log: silentLog });
    const ready = () =>
      waitUntil(() => api.view(), { what: () => `the volume; seed ${SEED}\n${agent.output()}` });
    try {
      const first = await ready();
      const writer = await DeviceWriter.open(application, first.exports[0]?.uri ?? "", rng);
      writer.start(8);
      let asked_bytes = first.size_bytes;
      const seen = new Map<string, number>();
      for (let kill = 0; kill < KILLS; kill++) {
        const now = await ready();
        if (now.size_bytes >= asked_bytes) asked_bytes += MIB;
        await api.scale(asked_bytes);
        const state = kill % 2 === 0
          ? await api.stateAtAnyMoment(rng)
          : await api.stateAimedAt(AIMS[(kill >> 1) % AIMS.length] ?? "", asked_bytes);
        seen.set(state, (seen.get(state) ?? 0) + 1);
        await agent.end("SIGKILL");
        agent = start();
      }
      await ready();
      const last = await waitUntil(async () => {
        const view = await api.view();
        if (view?.mirror !== null) return undefined;
        if (view.size_bytes >= asked_bytes) return view;
        await api.scale(asked_bytes);
        return undefined;
      }, { what: () => `the last scaling event; seed ${SEED}\n${agent.output()}` });
      const acknowledged = writer.writes;
      await waitUntil(() => writer.writes > acknowledged + 50, { what: "the application" });
      await writer.stop();
      await writer.verifyAll();
      await writer.close();
      ok(last.epoch >= 4, `epoch ${last.epoch}, seed ${SEED}`);
      const struck = AT_WORK.filter((state) => seen.has(state));
      ok(KILLS < 50 || struck.length >= 2, `kills fell into ${[...seen]}, seed ${SEED}`);
      equal(last.size_bytes, asked_bytes);
    } finally {
      await application.stop();
      await agent.end();
    }
  },
});
