/** Stands where the agent stands, to see what the routes make of requests: it records, and decides nothing. */
import type { Agent, AgentEvent, VolumeView } from "../../src/agent/mod.ts";
import { PsmaError } from "../../src/core/mod.ts";

export const VOLUME: VolumeView = {
  name: "data",
  state: "attached",
  size_bytes: 1024,
  max_size_bytes: 4096,
  epoch: 1,
  active: { store: "local", backend: "file", uri: "file:///v", operations: [] },
  backup: null,
  exports: [{ frontend: "nbd", uri: "nbd+unix:///data?socket=/s" }],
  filesystem: null,
  used_bytes: 512,
  used_source: "allocated",
  mirror: null,
  last_cutover: null,
  time_to_full: null,
};

const OPERATION = {
  id: "op-1",
  verb: "scale",
  volume: "data",
  state: "running",
  started_at: "2030-01-01T00:00:00Z",
  ended_at: null,
  error: null,
  result: null,
} as const;

export function eventNumber(id: number): AgentEvent {
  const at = "2030-01-01T00:00:00Z";
  return {
    id,
    at,
    type: "t.t",
    severity: "info",
    volume: "data",
    message: `event ${id}`,
    data: {},
  };
}

export interface RecordingAgent extends Agent {
  /** Calls in order: the method and its arguments. */
  readonly calls: readonly (readonly [string, ...unknown[]])[];
  /** Gives an event to all who follow. */
  emit(event: AgentEvent): void;
  readonly followers: number;
}

export function recordingAgent(): RecordingAgent {
  const calls: [string, ...unknown[]][] = [];
  const followers = new Set<(event: AgentEvent) => void>();
  const past = [1, 2, 3].map(eventNumber);
  /** Records the call and answers for the one volume that there is. */
  const named =
    <T>(method: string, answer: T) => (name: string, ...rest: unknown[]): Promise<T> => {
      calls.push([method, name, ...rest]);
      if (name === VOLUME.name) return Promise.resolve(answer);
      return Promise.reject(
        new PsmaError("not-found/volume", `Cannot find ${name}: there is no such volume`),
      );
    };
  const forecast = {
    volume: "data",
    metric: "used_bytes",
    origin_ms: 0,
    step_ms: 1000,
    horizon_ms: 1000,
    levels: [0.5],
    steps: [{ at_ms: 1000, values: [600] }],
    history_points: 9,
    model: [{ name: "holt-winters", weight: 1 }],
    backtest: { windows: 0, coverage80: null, pinball: null },
    fit_ms: 1,
  } as const;
  return {
    calls,
    get followers() {
      return followers.size;
    },
    emit: (event) => followers.forEach((follow) => follow(event)),
    status: () =>
      Promise.resolve({
        version: "0",
        started_at: "2030-01-01T00:00:00Z",
        ready: false,
        not_ready: ["data: starting"],
        unreachable_stores: [{ name: "far", reason: "Cannot reach store far" }],
        volumes: [VOLUME],
      }),
    volume: named("volume", VOLUME),
    createVolume: (spec) => {
      calls.push(["createVolume", spec]);
      return Promise.resolve({ ...VOLUME, name: spec.name });
    },
    deleteVolume: named("deleteVolume", undefined),
    attach: named("attach", VOLUME),
    detach: named("detach", VOLUME),
    claim: named("claim", VOLUME),
    forecast: named("forecast", forecast),
    history: named("history", [{ at_ms: 1, value: 2 }]),
    plan: named("plan", {
      volume: "data",
      at: "2030-01-01T00:00:00Z",
      action: "none",
      because: ["There is room."],
      numbers: { used_bytes: 512, full_in_ms: null },
      target_size_bytes: null,
    }),
    mirror: named("mirror", null),
    startMirror: named("startMirror", OPERATION),
    pauseMirror: named("pauseMirror", undefined as never),
    resumeMirror: named("resumeMirror", undefined as never),
    cancelMirror: named("cancelMirror", undefined),
    verifyMirror: named("verifyMirror", { ...OPERATION, verb: "verify" }),
    stopVerify: named("stopVerify", undefined as never),
    scale: named("scale", OPERATION),
    switchVolume: named("switchVolume", OPERATION),
    rollback: named("rollback", OPERATION),
    retire: named("retire", OPERATION),
    operation(id) {
      calls.push(["operation", id]);
      if (id !== OPERATION.id) {
        throw new PsmaError("not-found/operation", `Cannot find ${id}: it is none`);
      }
      return OPERATION;
    },
    events: ({ after = 0, limit = 100 }) => past.filter(({ id }) => id > after).slice(0, limit),
    subscribe(onEvent, signal) {
      followers.add(onEvent);
      signal.addEventListener("abort", () => followers.delete(onEvent), { once: true });
    },
    metrics: () =>
      Promise.resolve([{
        name: "psma_volume_used_bytes",
        help: "Bytes\nused",
        type: "gauge",
        samples: [{ labels: { volume: 'a"b\\c' }, value: 512 }],
      }]),
  } as RecordingAgent;
}
