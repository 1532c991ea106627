/**
 * Whether the network stores answer: asked at the start and every minute, told once when one does not and once
 * when it does again. Not fatal: volumes whose bytes are elsewhere go on, and mirrors wait.
 */
import { type Clock, type Log, type Rng, toPsmaError } from "../core/mod.ts";
import type { HostFinding } from "../dataplane/mod.ts";
import { openStore } from "../datastore/mod.ts";
import type { AgentConfig } from "./config.ts";
import type { AgentContext } from "./context.ts";
import type { AgentStatus } from "./views.ts";

const LOOK_EVERY_MS = 60_000;

export class StoreWatch {
  readonly #reasons = new Map<string, string>();

  /** Stores that did not answer when last asked, and why. */
  get unreachable(): AgentStatus["unreachable_stores"] {
    return [...this.#reasons].map(([name, reason]) => ({ name, reason }));
  }

  /** Looks until the agent ends; does not wait for a store that takes its time then. */
  async run({ stores, clock, events, stopping }: AgentContext): Promise<void> {
    const ended = new Promise<void>((resolve) =>
      stopping.addEventListener("abort", () => resolve(), { once: true })
    );
    const network = [...stores.values()].filter(({ type }) => type === "psma");
    while (!stopping.aborted && network.length > 0) {
      const looks = network.map(async (store) => {
        const fault = await faultOf(() => store.capacity());
        if (!stopping.aborted) this.#note(store.name, fault, events);
      });
      await Promise.race([Promise.all(looks), ended]);
      await clock.sleep(LOOK_EVERY_MS, stopping).catch(() => {});
    }
  }

  #note(store: string, fault: string | undefined, events: AgentContext["events"]): void {
    const known = this.#reasons.has(store);
    if (fault === undefined) {
      this.#reasons.delete(store);
      if (known) {
        events.add({ type: "store.reached", message: `Store ${store} answers`, data: { store } });
      }
      return;
    }
    this.#reasons.set(store, fault);
    if (known) return;
    events.add({ type: "store.unreachable", severity: "warning", message: fault, data: { store } });
  }
}

/** What `psma doctor` says about the network stores of a configuration. */
export async function probeStores(
  config: Pick<AgentConfig, "stores">,
  options: { log: Log; clock: Clock; rng: Rng },
): Promise<HostFinding[]> {
  const network = Object.entries(config.stores).filter(([, { type }]) => type === "psma");
  return await Promise.all(network.map(async ([name, store]): Promise<HostFinding> => {
    const line = `store ${name}`;
    const fault = await faultOf(async () => {
      const opened = openStore(name, store, options);
      try {
        await opened.capacity();
      } finally {
        opened.close();
      }
    });
    return fault === undefined
      ? { name: line, level: "ok", found: "answers, and takes the token" }
      : {
        name: line,
        level: "warn",
        found: fault,
        advice: "nothing can be mirrored to it, and volumes on it cannot be opened",
      };
  }));
}

async function faultOf(ask: () => Promise<unknown>): Promise<string | undefined> {
  try {
    await ask();
    return undefined;
  } catch (error) {
    const { message, hint } = toPsmaError(error);
    return hint === undefined ? message : `${message}. ${hint}`;
  }
}
