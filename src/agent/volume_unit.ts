/** One volume while the agent runs: what it is configured to be, what it is now, what is done with it. */
import { PsmaError } from "../core/mod.ts";
import type { Attachment, LoadStep } from "../dataplane/mod.ts";
import type { Forecast } from "../forecast/mod.ts";
import type { Observation } from "../monitor/mod.ts";
import type { VolumeConfig } from "./config_volume.ts";
import type { Plan, VolumeState } from "./views.ts";

export class VolumeUnit {
  state: VolumeState = "detached";
  reason: string | undefined;
  /** Open in the data plane. */
  open = false;
  attachment: Attachment | undefined;
  observation: Observation | undefined;
  /** Bytes that the store has allocated, where the data plane cannot tell; null until the store answered. */
  allocated_at_store: number | null | undefined;
  forecast: Forecast | undefined;
  plan: Plan | undefined;
  /** For the mirror's schedule, and when it was asked for (monotonic). */
  predicted_load: { readonly steps: readonly LoadStep[]; readonly asked_ms: number } | undefined;
  /** The measured use was at the threshold when last looked at. */
  too_full = false;
  mirror_trips = 0;
  switch_trips = 0;
  /** Why the last growth did not reach the file system. */
  grow_fault: string | undefined;
  /** Failures in a row of what the agent does by itself, and when it may try again (monotonic). */
  failures = 0;
  /** The failure that an event told last, so that it is told once. */
  told: string | undefined;
  retry_at_ms = 0;
  /** When a failed volume may be tried again (monotonic), and the pause after that. */
  bring_up_at_ms = 0;
  bring_up_pause_ms = 0;
  /** What was under way when the agent ended is gone on with. */
  resumed = false;
  /** The operation that the agent began last by itself, until its outcome is learnt. */
  last_operation: string | undefined;
  #doing: string | undefined;

  /** @param directory of the volume's own files. */
  constructor(readonly config: VolumeConfig, readonly directory: string) {}

  get name(): string {
    return this.config.name;
  }

  /** One piece of work at a time. @throws {PsmaError} state/busy while there is another. */
  async exclusively<T>(verb: string, work: () => Promise<T>): Promise<T> {
    if (this.#doing !== undefined) {
      throw new PsmaError(
        "state/busy",
        `Cannot ${verb} ${this.name}: ${this.#doing} is under way`,
        { hint: "Try again when it has ended." },
      );
    }
    this.#doing = verb;
    try {
      return await work();
    } finally {
      this.#doing = undefined;
    }
  }

  /** @throws {PsmaError} state/closed with the reason, while the volume cannot be worked with. */
  needOpen(verb: string): void {
    if (this.open) return;
    throw new PsmaError(
      "state/closed",
      `Cannot ${verb} ${this.name}: ${this.reason ?? "it is not open"}`,
    );
  }

  fail(reason: string): void {
    this.state = "failed";
    this.reason = reason;
  }
}
