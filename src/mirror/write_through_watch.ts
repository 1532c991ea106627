/** While write-through lasts: nobody waits for the target longer than the limit. */
import type { Turns } from "../core/mod.ts";
import type { MirrorLink, Volume } from "../volume/mod.ts";

export class WriteThroughWatch {
  #watching = false;

  /** @param limitMs how long a write may wait; asked again and again. */
  constructor(
    readonly parts: { readonly volume: Volume; readonly link: MirrorLink; readonly turns: Turns },
    readonly limitMs: () => number,
  ) {}

  /** Call it when write-through begins; it ends with it. */
  async begin(): Promise<void> {
    const { volume, link, turns } = this.parts;
    if (this.#watching) return;
    this.#watching = true;
    while (link.writeThrough && volume.link === link) {
      const limitMs = this.limitMs();
      await turns.sleep(Math.max(5, limitMs / 8));
      if (link.committing || volume.mirrorWaitMs() <= limitMs) continue;
      volume.dropWriteThrough(`the target did not answer within ${limitMs} ms`);
    }
    this.#watching = false;
  }
}
