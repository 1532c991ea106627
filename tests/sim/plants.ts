/**
 * Known bugs, to be planted in the code that is simulated: each changes one method while it stands, and is
 * taken out again. A simulator that does not find them would not find others.
 */
import { ChangeMap } from "../../src/volume/change_map.ts";
import { IntentLog } from "../../src/volume/intent_log.ts";
import { CHECK, MirrorLink } from "../../src/volume/link.ts";
import { ManifestFile } from "../../src/volume/manifest.ts";
import { WritesInFlight } from "../../src/volume/writes_in_flight.ts";
import { Copier } from "../../src/mirror/copier.ts";
import { DigestChecks } from "../../src/mirror/checks.ts";
import { Reactor } from "../../src/sys/mod.ts";
import type { Fault } from "./faults.ts";
import { Machine } from "./machine.ts";
import type { Simulation } from "./simulation.ts";
import { StoreSession } from "./store_session.ts";

const MARK_LATE_MS = 5, LOG_LATE_MS = 100;

export interface Plant {
  readonly name: string;
  /** What must go wrong for it to matter; chosen by the seed where left out. */
  readonly faults?: readonly Fault[];
  /** @returns what takes it out again. */
  readonly plant: (simulation: Simulation) => () => void;
}

/** Puts another method in the place of one; `original` is called with the object that it belongs to. */
function change<T extends object, Name extends keyof T & string>(
  prototype: T,
  name: Name,
  make: (original: T[Name]) => T[Name],
): () => void {
  const original = prototype[name];
  prototype[name] = make(original);
  return () => {
    prototype[name] = original;
  };
}

/** True when a method was called from a file. */
function isCalledFrom(file: string): boolean {
  return new Error().stack?.includes(`/${file}:`) ?? false;
}

/** Those that are found soonest come first: the quick run plants only them. */
export const PLANTS: readonly Plant[] = [
  {
    name: "the target is not flushed before the commit",
    plant: () =>
      change(Copier.prototype, "flushTarget", () =>
        function (this: Copier) {
          const { map } = this.options.link;
          map.beginFlush();
          map.flushed(true);
          return Promise.resolve();
        }),
  },
  {
    name: "overlapping writes reach the sides in any order",
    plant: () => change(WritesInFlight.prototype, "touch", () => () => false),
  },
  {
    name: "a file is renamed over another before its bytes are durable",
    plant: () => change(Reactor.prototype, "fsync", () => () => Promise.resolve(0)),
  },
  {
    name: "a dirty bit is cleared after the copy",
    plant: () => {
      const clear = ChangeMap.prototype.beginCopy;
      const outs = [
        change(ChangeMap.prototype, "beginCopy", () =>
          function (this: ChangeMap, at, length) {
            this.markUnstable(at, length);
          }),
        change(DigestChecks.prototype, "add", (add) =>
          function (this: DigestChecks, extent) {
            clear.call(this.options.link.map, extent.at, extent.length);
            return add.call(this, extent);
          }),
      ];
      return () => outs.forEach((out) => out());
    },
  },
  {
    name: "a store lets a writer in before the requests of the one before it have ended",
    faults: ["kill", "cut", "store-slow"],
    plant: () => change(StoreSession.prototype, "mustWait", () => () => false),
  },
  {
    name: "a store lets a writer in whose epoch is stale",
    faults: ["kill", "older-agent"],
    plant: () => change(StoreSession.prototype, "isStale", () => () => false),
  },
  {
    name: "a volume is opened that was not claimed",
    faults: ["kill", "store-crash", "older-agent"],
    plant: () =>
      change(Machine.prototype, "ask", (ask) =>
        function (this: Machine, name, argument, done) {
          const isClaim = name === "promote" && isCalledFrom("volume_claim.ts");
          if (isClaim) done(null);
          else ask.call(this, name, argument, done);
        }),
  },
  {
    name: "digests are taken and not compared",
    plant: () =>
      change(DigestChecks.prototype, "add", () =>
        function (this: DigestChecks, extent) {
          this.options.link.setCheck(extent, CHECK.none);
          return Promise.resolve();
        }),
  },
  {
    name: "a copy that failed is not dirty again",
    plant: () =>
      change(ChangeMap.prototype, "markDirty", (mark) =>
        function (this: ChangeMap, at, length) {
          return isCalledFrom("copier.ts") ? 0 : mark.call(this, at, length);
        }),
  },
  {
    name: "a lost target is believed to hold what was not flushed",
    plant: () => change(ChangeMap.prototype, "unstableToDirty", () => () => {}),
  },
  {
    name: "a write overlaps an extent that is being copied, and its check is believed",
    plant: () => {
      const outs = [
        change(MirrorLink.prototype, "isLocked", () => () => false),
        change(MirrorLink.prototype, "taint", () => () => {}),
      ];
      return () => outs.forEach((out) => out());
    },
  },
  {
    name: "a commit that failed is taken for done",
    plant: () =>
      change(ManifestFile.prototype, "commit", (commit) =>
        function (this: ManifestFile, alter) {
          return commit.call(this, alter).catch(() => {});
        }),
  },
  {
    name: "a chunk is marked after its write",
    plant: ({ world }) =>
      change(ChangeMap.prototype, "markDirty", (mark) =>
        function (this: ChangeMap, at, length) {
          if (!isCalledFrom("volume.ts")) return mark.call(this, at, length);
          world.after(MARK_LATE_MS, () => void mark.call(this, at, length));
          return 0;
        }),
  },
  {
    name: "the write-intent log is written after the write",
    faults: ["node-power"],
    plant: ({ world }) =>
      change(IntentLog.prototype, "admits", (admits) =>
        function (this: IntentLog, at, length) {
          if (!admits.call(this, at, length)) {
            world.after(LOG_LATE_MS, () => this.want(at, length));
          }
          return true;
        }),
  },
  {
    name: "a directory is not synced after a rename",
    plant: () => change(Reactor.prototype, "syncDirectory", () => () => Promise.resolve()),
  },
  {
    name: "a change map from before a power loss is believed",
    plant: () => change(Machine.prototype, "bootId", () => () => "any boot"),
  },
];

export const QUICK_PLANTS = 3;
