/**
 * The agent: composes stores, data plane, forecaster and volumes, and runs by itself until it is stopped.
 *
 * Restart: the catalogue says which volumes there are and what was under way, the manifests where their bytes
 * are. Volumes are opened again, what a killed process left in the kernel is removed, mirrors and interrupted
 * work go on. One agent a state directory.
 */
import { type Clock, type Log, PsmaError, type Rng, supervise } from "../core/mod.ts";
import { DataPlane, type DataPlaneEvent } from "../dataplane/mod.ts";
import { type DataStore, openStore } from "../datastore/mod.ts";
import { type Forecaster, openForecaster } from "../forecast/mod.ts";
import { Sampler } from "../monitor/mod.ts";
import { Catalogue } from "./catalogue.ts";
import { type AgentConfig, directoryOf } from "./config.ts";
import { type AgentContext, storeNamed } from "./context.ts";
import { AgentDesk } from "./desk.ts";
import { EventLog } from "./events.ts";
import { volumeWarnings } from "./config_warnings.ts";
import { bringAllUp, runBringUps } from "./bring_up.ts";
import { runEvaluations, runSampling, runVerifies } from "./loops.ts";
import { Nudge } from "./rounds.ts";
import { Operations } from "./operations.ts";
import { epochAtStore } from "./claiming.ts";
import { closeUnit } from "./serving.ts";
import { lockDirectory, makeStateDirectory } from "./state_files.ts";
import { StoreWatch } from "./store_watch.ts";
import type { Agent } from "./views.ts";
import { VolumeUnit } from "./volume_unit.ts";

const SOCKET_PATH_MAX = 107;
const SETTLE_WITHIN_MS = 5_000;

export interface StartAgent {
  readonly config: AgentConfig;
  readonly version: string;
  readonly log: Log;
  readonly clock: Clock;
  readonly rng: Rng;
}

export interface RunningAgent extends Agent {
  /** Rejects when the data plane dies: end the process and start it again. Never resolves. */
  readonly died: Promise<never>;
  /** Leaves all volumes consistent and detached; what was under way goes on at the next start. Idempotent. */
  stop(): Promise<void>;
}

/**
 * Starts the agent; it answers at once, and is ready when its volumes are served.
 * @throws {PsmaError} state/locked, state/catalogue, io/state, sys/... when the data plane cannot start.
 */
export async function startAgent(options: StartAgent): Promise<RunningAgent> {
  const { config, log, clock, rng, version } = options;
  const { state_dir } = config;
  await using undo = new AsyncDisposableStack();
  makeStateDirectory(state_dir);
  undo.use(lockDirectory(state_dir));
  const stopping = new AbortController();
  const catalogue = new Catalogue(`${state_dir}/catalogue.json`, rng);
  const events = new EventLog({ path: `${state_dir}/events.jsonl`, log, clock });
  undo.defer(() => events.close());
  const operations = new Operations({ path: `${state_dir}/operations.json`, clock, rng, log });
  const stores = openStores(config, { log, clock, rng });
  undo.defer(() => stores.forEach((store) => store.close()));
  const forecaster = await openForecaster({ dir: `${state_dir}/forecast`, log, clock });
  undo.defer(() => forecaster.close());
  const nudge = new Nudge();
  // A mirror that is complete may be what is waited for.
  events.subscribe(({ type }) => type === "mirror.synced" && nudge.now(), stopping.signal);
  const plane = await startDataPlane(config, stores, events, log);
  undo.defer(() => plane.stop().catch(() => {})); // Dead already: then there is nothing to stop.

  const context: AgentContext = {
    config,
    plane,
    stores,
    catalogue,
    events,
    operations,
    clock,
    rng,
    log,
    stopping: stopping.signal,
  };
  const units = gatherUnits(context);
  const { interval_ms } = config.sampling;
  const sampler = new Sampler({ clock, log, interval_ms });
  const storeWatch = new StoreWatch();
  const desk = new AgentDesk({ context, units, forecaster, sampler, storeWatch, version });
  events.add({ type: "agent.started", message: `PSMA ${version} started`, data: { version } });
  for (const warning of volumeWarnings(config)) events.add({ ...warning, severity: "warning" });
  supervise("watching stores", storeWatch.run(context), log);
  const work = supervise("the agent", run(context, units, sampler, forecaster, desk, nudge), log);
  const running = undo.move();
  let stopped: Promise<void> | undefined;
  return Object.assign(desk, {
    died: plane.died,
    stop: () =>
      stopped ??= (async () => {
        stopping.abort();
        // What waits for a device that nobody serves any more would wait for ever.
        await (plane.ended ? within(clock, SETTLE_WITHIN_MS, work) : work);
        for (const unit of units.values()) await closeUnit(context, unit);
        await within(clock, SETTLE_WITHIN_MS, operations.settle());
        events.add({ type: "agent.stopped", message: "PSMA stopped" });
        await running.disposeAsync();
      })(),
  });
}

async function run(
  context: AgentContext,
  units: Map<string, VolumeUnit>,
  sampler: Sampler,
  forecaster: Forecaster,
  desk: AgentDesk,
  nudge: Nudge,
): Promise<void> {
  const { operations, log } = context;
  const sampling = supervise(
    "sampling",
    runSampling(context, units, sampler, forecaster, nudge),
    log,
  );
  const evaluations = supervise(
    "evaluations",
    runEvaluations(context, units, forecaster, nudge),
    log,
  );
  await bringAllUp(context, units);
  operations.endInterrupted(intended(context));
  desk.started = true;
  const bringUps = supervise("bringing volumes up", runBringUps(context, units), log);
  const verifies = supervise("verifies", runVerifies(context, units), log);
  await evaluations;
  await sampling;
  await bringUps;
  await verifies;
}

/** Operations that a volume goes on with as soon as it can be opened. */
function intended({ catalogue }: AgentContext): Set<string> {
  const intents = catalogue.names().map((name) => catalogue.get(name).intent);
  return new Set(intents.flatMap((intent) => intent === null ? [] : [intent.operation_id]));
}

function openStores(
  config: AgentConfig,
  options: { log: Log; clock: Clock; rng: Rng },
): Map<string, DataStore> {
  return new Map(
    Object.entries(config.stores).map(([name, store]) => [name, openStore(name, store, options)]),
  );
}

async function startDataPlane(
  { state_dir, nbd }: AgentConfig,
  stores: ReadonlyMap<string, DataStore>,
  events: EventLog,
  log: Log,
): Promise<DataPlane> {
  const path = `${state_dir}/nbd.sock`;
  if (new TextEncoder().encode(path).length > SOCKET_PATH_MAX) {
    throw new PsmaError("config/value", `Cannot listen on ${path}: the path is too long`, {
      hint: `Choose a state_dir of at most ${SOCKET_PATH_MAX - "/nbd.sock".length} bytes.`,
    });
  }
  const plane = await DataPlane.start({
    log,
    onEvent: (event) => events.add(fromDataPlane(event)),
    tls_directory: `${state_dir}/tls`,
    questions: {
      digests: ({ target, extents }) => storeNamed(stores, target.store).digests(target, extents),
      promote: async ({ target, epoch, claimant }) => {
        await storeNamed(stores, target.store).promote(target, epoch, claimant);
        return null;
      },
      storeEpoch: ({ target }) => epochAtStore(stores, target),
    },
  });
  try {
    await plane.command("serveNbd", { listen: { path }, fenced: false });
    if (nbd !== null) {
      const { listen, tls, host } = nbd;
      await plane.serveTls({ listen, forward_to: path, ...tls }, host ?? undefined);
    }
    return plane;
  } catch (error) {
    await plane.stop();
    throw error;
  }
}

function fromDataPlane({ at_ms, type, severity, volume, message, data }: DataPlaneEvent) {
  return { at_ms, type, severity, volume, message, data };
}

/** Volumes of the configuration and of the catalogue; one that left the configuration stays as it was. */
function gatherUnits({ config, catalogue, events }: AgentContext): Map<string, VolumeUnit> {
  for (const volume of Object.values(config.volumes)) {
    const known = catalogue.find(volume.name) ?? catalogue.add(volume.name, volume);
    if (JSON.stringify(known.spec) === JSON.stringify(volume)) continue;
    catalogue.update(volume.name, { spec: volume, configured: true });
  }
  const units = new Map<string, VolumeUnit>();
  for (const name of catalogue.names()) {
    const { spec, configured } = catalogue.get(name);
    units.set(name, new VolumeUnit(spec, directoryOf(config, name)));
    if (!configured || config.volumes[name]) continue;
    catalogue.update(name, { configured: false });
    events.add({
      type: "volume.unconfigured",
      severity: "warning",
      volume: name,
      message:
        `${name} is not in the configuration any more: it stays as it was until it is deleted`,
    });
  }
  return units;
}

async function within(clock: Clock, ms: number, work: Promise<void>): Promise<void> {
  const done = new AbortController();
  const late = clock.sleep(ms, done.signal).catch(() => {});
  await Promise.race([work, late]);
  done.abort();
}
