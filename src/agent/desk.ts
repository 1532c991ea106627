/** The agent as the API sees it: answers questions, takes orders, refuses what makes no sense. */
import { checkName, formatSize, PsmaError } from "../core/mod.ts";
import { type MirrorStatus, needFrontend, type VerifyStatus } from "../dataplane/mod.ts";
import { MAX_VOLUME_BYTES } from "../datastore/mod.ts";
import { type Forecast, type Forecaster, isMetric, type Metric, METRICS } from "../forecast/mod.ts";
import type { Sampler } from "../monitor/mod.ts";
import { noVolume } from "./catalogue.ts";
import { directoryOf } from "./config.ts";
import { defaultMirror } from "./config_mirror.ts";
import {
  DEFAULT_MAX_GROWTH,
  DEFAULT_QUEUE_DEPTH,
  defaultScale,
  LEAST_VOLUME_BYTES,
  type VolumeConfig,
} from "./config_volume.ts";
import { type AgentContext, storeNamed } from "./context.ts";
import { forecastUse, planUnit, usableBytes } from "./evaluation.ts";
import { bringUp } from "./bring_up.ts";
import { sampleOnce } from "./loops.ts";
import { metricFamilies } from "./metrics.ts";
import {
  beginMirror,
  beginRetire,
  beginRollback,
  beginScale,
  beginSwitch,
  cancelMirror,
} from "./scaling.ts";
import { claimUnit } from "./claiming.ts";
import { attachUnit, deleteUnit, detachUnit } from "./serving.ts";
import { viewOf } from "./show.ts";
import { beginVerify, stopVerify } from "./verifying.ts";
import type { StoreWatch } from "./store_watch.ts";
import type {
  Agent,
  AgentEvent,
  AgentStatus,
  CreateVolume,
  HistoryQuery,
  MetricFamily,
  Operation,
  Plan,
  ScaleOrder,
  VerifyOptions,
  VolumeView,
  Wish,
} from "./views.ts";
import { VolumeUnit } from "./volume_unit.ts";

export interface DeskParts {
  readonly context: AgentContext;
  readonly units: Map<string, VolumeUnit>;
  readonly forecaster: Forecaster;
  readonly sampler: Sampler;
  readonly storeWatch: StoreWatch;
  readonly version: string;
}

export class AgentDesk implements Agent {
  /** Every volume has been brought up, or has failed to. */
  started = false;
  readonly #parts: DeskParts;
  readonly #startedAt: string;

  constructor(parts: DeskParts) {
    this.#parts = parts;
    this.#startedAt = new Date(parts.context.clock.nowMs()).toISOString();
  }

  async status(): Promise<AgentStatus> {
    const { units, version } = this.#parts;
    const volumes = await Promise.all([...units.values()].map((unit) => this.#view(unit)));
    const not_ready = this.#notReady(volumes);
    return {
      version,
      started_at: this.#startedAt,
      ready: not_ready.length === 0,
      not_ready,
      unreachable_stores: this.#parts.storeWatch.unreachable,
      volumes,
    };
  }

  async volume(name: string): Promise<VolumeView> {
    return await this.#view(this.#unit(name));
  }

  async createVolume(spec: CreateVolume): Promise<VolumeView> {
    const { context, units } = this.#parts;
    const config = volumeOf(context, spec);
    // An order that cannot be carried out changes nothing: neither the catalogue nor a store.
    needFrontend(config, { verb: "create", volume: config.name });
    context.catalogue.add(config.name, config, false);
    const unit = new VolumeUnit(config, directoryOf(context.config, config.name));
    units.set(config.name, unit);
    try {
      await bringUp(context, unit);
    } catch (error) {
      // Nothing was made: then nothing is left. What was made stays, with its reason, to be tried again.
      if (!context.catalogue.get(config.name).initial) {
        units.delete(config.name);
        context.catalogue.remove(config.name);
      }
      throw error;
    }
    await this.#look(unit);
    return await this.#view(unit);
  }

  async deleteVolume(name: string): Promise<void> {
    await deleteUnit(this.#parts.context, this.#unit(name));
    this.#parts.units.delete(name);
  }

  async attach(name: string): Promise<VolumeView> {
    const unit = this.#unit(name);
    await attachUnit(this.#parts.context, unit);
    await this.#look(unit);
    return await this.#view(unit);
  }

  async detach(name: string, options: { force?: boolean } = {}): Promise<VolumeView> {
    const unit = this.#unit(name);
    await detachUnit(this.#parts.context, unit, options);
    return await this.#view(unit);
  }

  async claim(name: string): Promise<VolumeView> {
    const unit = this.#unit(name);
    await claimUnit(this.#parts.context, unit);
    return await this.#view(unit);
  }

  async forecast(
    name: string,
    query: { metric: string; horizon_ms?: number; levels?: readonly number[] },
  ): Promise<Forecast> {
    const { context, forecaster } = this.#parts;
    const unit = this.#unit(name);
    const metric = metricNamed(query.metric);
    const status = metric === "used_bytes" ? await this.#status(unit) : undefined;
    return await forecaster.forecast({
      volume: name,
      metric,
      horizon_ms: query.horizon_ms ?? context.config.forecast.horizon_ms,
      ...(query.levels === undefined ? {} : { levels: query.levels }),
      ...(status === undefined ? {} : { limit: usableBytes(unit, status) }),
    });
  }

  async history(
    name: string,
    { metric, ...query }: HistoryQuery,
  ): Promise<readonly { at_ms: number; value: number }[]> {
    this.#unit(name);
    return await this.#parts.forecaster.history({
      volume: name,
      metric: metricNamed(metric),
      ...query,
    });
  }

  async plan(name: string): Promise<Plan> {
    const { context, forecaster } = this.#parts;
    const unit = this.#unit(name);
    unit.needOpen("plan");
    const { plane, clock, config } = context;
    const status = await plane.command("volumeStatus", { name });
    const { forecast } = unit;
    const fresh = forecast && clock.nowMs() - forecast.origin_ms < config.forecast.interval_ms;
    const now = fresh
      ? forecast
      : await forecastUse(context, forecaster, unit, usableBytes(unit, status));
    return planUnit(context, unit, status, now).plan;
  }

  async mirror(name: string): Promise<MirrorStatus | null> {
    const status = await this.#status(this.#unit(name));
    return status?.mirror ?? status?.backup_status?.mirror ?? null;
  }

  async startMirror(name: string, { size_bytes, ...wish }: ScaleOrder): Promise<Operation> {
    const unit = this.#unit(name), size = size_bytes ?? await this.#targetSize(unit);
    return await beginMirror(this.#parts.context, unit, size, wish);
  }

  async pauseMirror(name: string): Promise<MirrorStatus> {
    this.#unit(name).needOpen("pause");
    return await this.#parts.context.plane.command("pauseMirror", { volume: name });
  }

  async resumeMirror(name: string): Promise<MirrorStatus> {
    this.#unit(name).needOpen("resume");
    return await this.#parts.context.plane.command("resumeMirror", { volume: name });
  }

  async cancelMirror(name: string): Promise<void> {
    await cancelMirror(this.#parts.context, this.#unit(name));
  }

  async verifyMirror(name: string, options: VerifyOptions): Promise<Operation> {
    return await beginVerify(this.#parts.context, this.#unit(name), options);
  }

  async stopVerify(name: string): Promise<VerifyStatus> {
    return await stopVerify(this.#parts.context, this.#unit(name));
  }

  async scale(name: string, { size_bytes, ...wish }: ScaleOrder): Promise<Operation> {
    const unit = this.#unit(name);
    const mirror = (await this.#status(unit))?.mirror;
    const size = size_bytes ?? mirror?.target.size_bytes ?? await this.#targetSize(unit);
    return await beginScale(this.#parts.context, unit, size, wish);
  }

  async switchVolume(name: string, wish: Wish = {}): Promise<Operation> {
    return await beginSwitch(this.#parts.context, this.#unit(name), wish);
  }

  async rollback(
    name: string,
    { discard_changes = false }: { discard_changes?: boolean } = {},
  ): Promise<Operation> {
    return await beginRollback(this.#parts.context, this.#unit(name), discard_changes);
  }

  async retire(name: string): Promise<Operation> {
    return await beginRetire(this.#parts.context, this.#unit(name));
  }

  operation(id: string): Operation {
    return this.#parts.context.operations.get(id);
  }

  events(query: { after?: number; limit?: number; volume?: string }): readonly AgentEvent[] {
    return this.#parts.context.events.list(query);
  }

  subscribe(onEvent: (event: AgentEvent) => void, signal: AbortSignal): void {
    this.#parts.context.events.subscribe(onEvent, signal);
  }

  async metrics(): Promise<readonly MetricFamily[]> {
    const { context, units, sampler, forecaster, version } = this.#parts;
    const known = await Promise.all(
      [...units.values()].map(async (unit) => ({ unit, status: await this.#status(unit) })),
    );
    return metricFamilies({
      version,
      ready: this.#notReady(known.map(({ unit, status }) => viewOf(unit, status))).length === 0,
      units: known,
      pressure: sampler.pressure,
      last_event_id: context.events.lastId,
      dropped_samples: forecaster.droppedSamples,
    });
  }

  #unit(name: string): VolumeUnit {
    const unit = this.#parts.units.get(name);
    if (unit) return unit;
    throw noVolume(name);
  }

  async #view(unit: VolumeUnit): Promise<VolumeView> {
    return viewOf(unit, await this.#status(unit));
  }

  async #status(unit: VolumeUnit) {
    return unit.open
      ? await this.#parts.context.plane.command("volumeStatus", { name: unit.name })
      : undefined;
  }

  /** So that a view right after an attach does not show an empty volume. */
  async #look(unit: VolumeUnit): Promise<void> {
    const { context, sampler, units, forecaster } = this.#parts;
    if (!unit.observation) await sampleOnce(context, units.values(), sampler, forecaster);
  }

  async #targetSize(unit: VolumeUnit): Promise<number> {
    const { numbers } = await this.plan(unit.name);
    return numbers["target_bytes"] ?? unit.config.max_size_bytes;
  }

  #notReady(volumes: readonly VolumeView[]): string[] {
    const { catalogue } = this.#parts.context;
    if (!this.started) return ["volumes are being brought up"];
    return volumes.flatMap(({ name, state, reason }) => {
      const wanted = catalogue.find(name)?.desired === "attached";
      if (!wanted || (state === "attached" && reason === undefined)) return [];
      return [`${name}: ${reason ?? "not attached"}`];
    });
  }
}

function metricNamed(name: string): Metric {
  if (isMetric(name)) return name;
  throw new PsmaError("usage/metric", `Cannot show ${name}: it is not a metric`, {
    hint: `Metrics: ${Object.keys(METRICS).join(", ")}.`,
  });
}

/** Checks an order for a new volume and fills in what it leaves out. */
function volumeOf(context: AgentContext, spec: CreateVolume): VolumeConfig {
  const { config, stores } = context;
  const { name, size_bytes, max_size_bytes = DEFAULT_MAX_GROWTH * size_bytes } = spec;
  checkName(name);
  const names = Object.keys(config.stores);
  const store = storeNamed(stores, spec.store ?? names[0] ?? "").name;
  const sane = Number.isSafeInteger(size_bytes) && size_bytes >= LEAST_VOLUME_BYTES &&
    size_bytes <= MAX_VOLUME_BYTES;
  if (!sane || max_size_bytes < size_bytes) {
    throw new PsmaError(
      "usage/size",
      sane
        ? `Cannot create ${name}: its cap of ${formatSize(max_size_bytes)} is below its size`
        : `Cannot create ${name}: ${size_bytes} bytes are not a size that a volume can have`,
      {
        hint: `A volume has ${formatSize(LEAST_VOLUME_BYTES)} to ${formatSize(MAX_VOLUME_BYTES)}.`,
      },
    );
  }
  return {
    name,
    store,
    size_bytes,
    max_size_bytes,
    frontend: spec.frontend ?? "auto",
    device: false,
    queue_depth: DEFAULT_QUEUE_DEPTH,
    filesystem: null,
    profile: "auto",
    mirror: defaultMirror(store, names),
    scale: defaultScale(config.forecast.level),
  };
}
