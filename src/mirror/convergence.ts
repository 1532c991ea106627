/** What a converge met until its time had run out, to say why the mirror did not get ready. */
import { PsmaError } from "../core/mod.ts";
import type { MirrorLink } from "../volume/mod.ts";
import type { MirrorEventSink } from "./events.ts";

export class ConvergenceWatch {
  readonly #changedBytes: number;
  readonly #copiedBytes: number;

  constructor(
    readonly link: MirrorLink,
    readonly copier: { readonly copiedBytes: number },
    readonly timeoutMs: number,
  ) {
    this.#changedBytes = link.changedBytes;
    this.#copiedBytes = copier.copiedBytes;
  }

  /** The time has run out. Tells at what rates; call it before write-through is dropped. @returns what to throw. */
  missed(emit: MirrorEventSink): PsmaError {
    const { link, copier, timeoutMs } = this;
    const perSecond = (bytes: number) => Math.round(bytes / Math.max(1, timeoutMs) * 1000);
    const dirty_bytes = link.map.dirtyBytes, unverified_bytes = link.unverifiedBytes;
    const copied_bytes_per_s = perSecond(copier.copiedBytes - this.#copiedBytes);
    const dirty_bytes_per_s = perSecond(link.changedBytes - this.#changedBytes);
    emit(
      "mirror.not-converged",
      "warning",
      `The mirror did not get ready within ${timeoutMs} ms: ${copied_bytes_per_s} bytes per second ` +
        `were copied, ${dirty_bytes_per_s} became dirty`,
      { dirty_bytes, unverified_bytes, copied_bytes_per_s, dirty_bytes_per_s },
    );
    return new PsmaError(
      "timeout/converge",
      `Cannot converge: ${dirty_bytes} bytes are still dirty, ${unverified_bytes} not verified`,
      { hint: "The application may write faster than the target; raise the rate or wait." },
    );
  }
}
