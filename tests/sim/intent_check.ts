/**
 * After a power loss of the machine: a mirror with a write-intent log that survives it (`durability: power`)
 * doubts what the log said to be hot, and nothing else. The log itself must always be readable.
 */
import { decodeIntentLog, type Manifest } from "../../src/codec/mod.ts";
import { ChangeMap, type MirrorLink, type Range } from "../../src/volume/mod.ts";
import { MemoryFiles } from "../support/memory_files.ts";
import type { VirtualDisk } from "./disk.ts";
import { Violation } from "./oracle.ts";

/** What the disk says right after the power came back. */
interface Expected {
  readonly id: string;
  readonly hot: readonly Range[];
  readonly doubtful: ReadonlySet<number>;
}

export class IntentCheck {
  /** Of mirrors that were opened after a power loss. */
  checked = 0;
  doubtedBytes = 0;
  mirroredBytes = 0;
  #expected: Expected | undefined;

  constructor(readonly disk: VirtualDisk, readonly directory: string) {}

  /** The power came back. @throws {Violation} when the log of the mirror that the manifest names cannot be read. */
  async powerIsBack(mirror: Manifest["mirror"] | undefined): Promise<void> {
    this.#expected = undefined;
    if (!mirror || mirror.terms.durability !== "power") return;
    const { id } = mirror, log = this.disk.find(`${this.directory}/${id}.intent`);
    const map = this.disk.find(`${this.directory}/${id}.map`);
    // Taken away when a start failed that the disk names all the same: then everything is in doubt.
    if (!log || !map) return;
    const content = decodeIntentLog(log.cache);
    if (!content) throw new Violation(`the write-intent log of ${id} cannot be read`);
    const { region_bytes, runs } = content.last;
    const hot = runs.map(({ first, count }) => ({
      at: first * region_bytes,
      length: count * region_bytes,
    }));
    this.#expected = { id, hot, doubtful: await doubtfulIn(map.cache.slice()) };
  }

  /** Something happened after which more may be in doubt. */
  told(event: string): void {
    if (event === "mirror.map-lost" || event === "mirror.target-away") this.#expected = undefined;
  }

  /** The volume is open again. @throws {Violation} when something else is doubtful than what was hot. */
  opened(link: MirrorLink | undefined, id: string | undefined): void {
    const expected = this.#expected;
    this.#expected = undefined;
    if (!expected || !link || expected.id !== id) return;
    const { map } = link;
    this.checked++;
    this.doubtedBytes += map.doubtfulBytes;
    this.mirroredBytes += map.sizeBytes;
    for (const chunk of doubtfulChunks(map)) {
      const at = chunk * map.chunkBytes;
      if (expected.doubtful.has(chunk)) continue;
      if (expected.hot.some((range) => at >= range.at && at < range.at + range.length)) continue;
      throw new Violation(`chunk ${chunk} is in doubt after a power loss, and was not hot`);
    }
  }
}

async function doubtfulIn(bytes: Uint8Array): Promise<ReadonlySet<number>> {
  const files = new MemoryFiles();
  await files.replace("map", bytes);
  return new Set(doubtfulChunks(ChangeMap.open(files, "map", () => [])));
}

function doubtfulChunks(map: ChangeMap): number[] {
  const chunks: number[] = [];
  let chunk = map.nextDoubtful(0);
  for (; chunk >= 0; chunk = map.nextDoubtful(chunk + 1)) chunks.push(chunk);
  return chunks;
}
