/** One volume of the configuration: its keys, defaults and limits. */
import { formatSize } from "../core/mod.ts";
import { defaultMirror, type MirrorConfig, readMirror } from "./config_mirror.ts";
import type { Section } from "./config_section.ts";

export type Frontend = "auto" | "ublk" | "fuse" | "nbd";
export type FilesystemType = "ext4" | "xfs" | "btrfs";

/** Profiles of the contract; discovering them and acting on them is to come. */
const LATER_PROFILES = [
  "database",
  "streaming",
  "log",
  "vm-image",
  "object",
  "backup",
  "general",
] as const;

export interface FilesystemConfig {
  readonly type: FilesystemType;
  /** Absolute. */
  readonly mount: string;
  /** `auto`: grown with the volume. `never`: the operator grows it. */
  readonly grow: "auto" | "never";
}

export interface ScaleConfig {
  /** Share of the usable size that is too full. */
  readonly threshold: number;
  /** The forecast's quantile level that the plan acts on. */
  readonly level: number;
  /** Least growth of one scaling event, as a share of the size. */
  readonly step: number;
  /** Most growth of one scaling event, as a share of the size. */
  readonly max_step: number;
  readonly cooldown_ms: number;
  readonly approve: "auto" | "advise";
  /** How many evaluations in a row must agree before a forecast is acted on. */
  readonly debounce_evaluations: number;
  /** Added to every lead time. */
  readonly safety_ms: number;
}

export interface VolumeConfig {
  readonly name: string;
  readonly store: string;
  readonly size_bytes: number;
  readonly max_size_bytes: number;
  readonly frontend: Frontend;
  /** Frontend nbd: also as a device of this machine's kernel. */
  readonly device: boolean;
  /** Requests that the block device of frontend ublk has in flight at most. */
  readonly queue_depth: number;
  readonly filesystem: FilesystemConfig | null;
  readonly profile: "auto";
  readonly mirror: MirrorConfig;
  readonly scale: ScaleConfig;
}

const MIB = 1024 * 1024;
export const LEAST_VOLUME_BYTES = MIB;
/** What each mkfs demands: xfsprogs 5.19 and newer refuse less than 300 MiB, btrfs-progs less than 109 MiB. */
const LEAST_FILESYSTEM_BYTES: Readonly<Record<FilesystemType, number>> = {
  ext4: LEAST_VOLUME_BYTES,
  xfs: 300 * MIB,
  btrfs: 109 * MIB,
};
/** Growth that an unattended volume may reach when the operator names no cap. */
export const DEFAULT_MAX_GROWTH = 10;
export const DEFAULT_QUEUE_DEPTH = 64;

/** Reads one volume. @param stores names of the stores, the first is the default. @param level of `forecast`. */
export function readVolume(
  volume: Section,
  name: string,
  stores: readonly string[],
  level: number,
): VolumeConfig {
  const store = readStoreName(volume, stores, stores[0]);
  const sizeBytes = volume.size("size", { minimum: LEAST_VOLUME_BYTES });
  const maxSizeBytes = volume.size("max_size", { fallback: DEFAULT_MAX_GROWTH * sizeBytes });
  if (maxSizeBytes < sizeBytes) {
    volume.refuse("max_size", `it is below the size of ${formatSize(sizeBytes)}`);
  }
  const config: VolumeConfig = {
    name,
    store,
    size_bytes: sizeBytes,
    max_size_bytes: maxSizeBytes,
    frontend: volume.choice("frontend", {
      values: ["auto", "ublk", "fuse", "nbd"],
      fallback: "auto",
    }),
    device: volume.flag("device", false),
    queue_depth: volume.count("queue_depth", {
      fallback: DEFAULT_QUEUE_DEPTH,
      minimum: 1,
      maximum: 1024,
    }),
    filesystem: readFilesystem(volume.section("filesystem")),
    profile: volume.choice("profile", {
      values: ["auto"],
      later: LATER_PROFILES,
      fallback: "auto",
    }),
    mirror: readMirrorOf(volume.section("mirror"), store, stores),
    scale: readScale(volume.section("scale"), level),
  };
  refuseDevice(volume, config);
  refuseSmall(volume, config);
  volume.end();
  return config;
}

function refuseDevice(volume: Section, { frontend, device, filesystem }: VolumeConfig): void {
  if (device && frontend !== "nbd") {
    volume.refuse("device", "it is for frontend: nbd", "All other frontends have a device.");
  }
  if (filesystem === null || frontend !== "nbd" || device) return;
  volume.refuse(
    "frontend",
    "an nbd export has no file system to mount",
    "Add device: true, or use ublk, fuse or auto.",
  );
}

function refuseSmall(volume: Section, { filesystem, size_bytes }: VolumeConfig): void {
  if (filesystem === null) return;
  const least = LEAST_FILESYSTEM_BYTES[filesystem.type];
  if (!(size_bytes >= LEAST_VOLUME_BYTES && size_bytes < least)) return;
  volume.refuse("size", `${filesystem.type} needs at least ${formatSize(least)}`);
}

/** @param level the forecast's quantile level. */
export function defaultScale(level: number): ScaleConfig {
  return {
    threshold: 0.8,
    level,
    step: 0.25,
    max_step: 1,
    cooldown_ms: 3_600_000,
    approve: "auto",
    debounce_evaluations: 2,
    safety_ms: 5_000,
  };
}

function readStoreName(
  section: Section,
  stores: readonly string[],
  fallback: string | undefined,
): string {
  const name = section.text("store", fallback);
  if (section.has("store") && !stores.includes(name)) {
    section.report("store", "config/reference", `there is no store "${name}"`, {
      hint: stores.length === 0 ? "Add it under stores." : `Stores: ${stores.join(", ")}.`,
    });
  }
  return name;
}

function readFilesystem(section: Section): FilesystemConfig | null {
  if (!section.present) return null;
  const mount = section.text("mount");
  if (section.has("mount") && !String(mount).startsWith("/")) {
    section.refuse("mount", `"${mount}" is not an absolute path`);
  }
  const config: FilesystemConfig = {
    type: section.choice("type", { values: ["ext4", "xfs", "btrfs"] }),
    mount,
    grow: section.choice("grow", { values: ["auto", "never"], fallback: "auto" }),
  };
  section.end();
  return config;
}

function readMirrorOf(
  section: Section,
  store: string,
  stores: readonly string[],
): MirrorConfig {
  const fallback = defaultMirror(store, stores);
  return readMirror(section, fallback, readStoreName(section, stores, fallback.store));
}

function readScale(section: Section, level: number): ScaleConfig {
  const fallback = defaultScale(level);
  const step = section.ratio("step", { fallback: fallback.step, minimum: 0.01 });
  const config: ScaleConfig = {
    threshold: section.share("threshold", { fallback: fallback.threshold, above: 0.05 }),
    level: section.share("level", { fallback: fallback.level, above: 0.5, atMost: 0.999 }),
    step,
    max_step: section.ratio("max_step", {
      fallback: Math.max(fallback.max_step, step),
      minimum: step,
    }),
    cooldown_ms: section.duration("cooldown", { fallback: fallback.cooldown_ms }),
    approve: section.choice("approve", { values: ["auto", "advise"], fallback: "auto" }),
    debounce_evaluations: section.count("debounce", {
      fallback: fallback.debounce_evaluations,
      minimum: 1,
      maximum: 100,
    }),
    safety_ms: section.duration("safety", { fallback: fallback.safety_ms }),
  };
  section.end();
  return config;
}
