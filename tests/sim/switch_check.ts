/** At the commit of a switch: the target holds what the source holds, every acknowledged byte of it. */
import { SECTOR_BYTES, type VirtualFile } from "./disk.ts";
import { type Oracle, Violation, whatHolds } from "./oracle.ts";

export interface SwitchSides {
  readonly oracle: Oracle;
  readonly source: Uint8Array<ArrayBuffer>;
  readonly target: VirtualFile;
  /** The target's machine lost its power during the switch: what nobody flushed may be gone. */
  readonly lostPower: boolean;
}

/** @throws {Violation} where the sides differ, or where a power loss now would cost what was flushed. */
export function checkSwitch({ oracle, source, target, lostPower }: SwitchSides): void {
  for (let block = 0; block < oracle.sizeBytes / SECTOR_BYTES; block++) {
    if (oracle.isBeingWritten(block)) continue;
    const at = block * SECTOR_BYTES, end = at + SECTOR_BYTES;
    const now = target.cache.subarray(at, end), durable = target.durable.subarray(at, end);
    if (!oracle.survives(block, durable)) {
      throw new Violation(
        `the switch: block ${block} (byte ${at}) is not durable on the target: ` +
          `${whatHolds(durable)}, ${whatHolds(now)} in its cache; possible: ${
            oracle.historyOf(block)
          }`,
      );
    }
    if (lostPower) {
      if (!oracle.survives(block, now)) throw new Violation(`the switch lost block ${block}`);
      continue;
    }
    oracle.check("the target at the switch", at, now, undefined, false);
    if (!oracle.isLoose(block) && !isEqual(now, source.subarray(at, end))) {
      throw new Violation(
        `the switch: block ${block} (byte ${at}) differs between the sides: ` +
          `${whatHolds(now)} on the target, ${
            whatHolds(source.subarray(at, end))
          } on the source; ` +
          `possible: ${oracle.historyOf(block)}`,
      );
    }
  }
}

function isEqual(one: Uint8Array, other: Uint8Array): boolean {
  for (let i = 0; i < one.length; i++) if (one[i] !== other[i]) return false;
  return true;
}
