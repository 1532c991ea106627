/**
 * What the agent must remember about volumes over a restart, beside the configuration and the manifests:
 * volumes that were made by hand, what was asked for, what is under way, what was measured.
 *
 * Every change is durable before the step that it announces: an intent stands here before the first request
 * that belongs to it, and a piece of a store is on the list of leftovers before anything lets go of it.
 */
import { PsmaError, type Rng } from "../core/mod.ts";
import type { Placement } from "../dataplane/mod.ts";
import { defaultMirror } from "./config_mirror.ts";
import { DEFAULT_QUEUE_DEPTH, type VolumeConfig } from "./config_volume.ts";
import type { Measured } from "./plan_need.ts";
import { readFile, replaceFile } from "./state_files.ts";

/** Work on a volume that a restart goes on with. */
export interface Intent {
  readonly verb: "mirror" | "scale" | "switch" | "rollback";
  readonly size_bytes: number;
  readonly operation_id: string;
  /** When an operator wants it done, RFC 3339; absent: nobody said. */
  readonly deadline_at?: string;
  /** Of a rollback: where the volume was when it began, and whether what was written since may be lost. */
  readonly from?: Pick<Placement, "store" | "store_volume">;
  readonly discard_changes?: boolean;
}

/** A mirror as it was asked for at its store. */
export interface MirrorOrder {
  readonly id: string;
  readonly store: string;
  readonly size_bytes: number;
  /** The volume's when it was first asked for: asked again, it is the same order. */
  readonly epoch?: number;
  /** Null until the store has answered. */
  readonly placement: Placement | null;
}

export interface CatalogueEntry {
  readonly name: string;
  /** What it was made or last configured to be; the configuration has precedence. */
  readonly spec: VolumeConfig;
  /** The configuration named it at the last start. */
  readonly configured: boolean;
  /** `deleted`: being deleted; a restart goes on with it. */
  readonly desired: "attached" | "detached" | "deleted";
  /** Where its first bytes are; the manifest knows where they are now. */
  readonly initial: Placement | null;
  /** It was opened once: from then on a missing manifest is a loss, not a beginning. */
  readonly begun: boolean;
  readonly mirror: MirrorOrder | null;
  readonly intent: Intent | null;
  readonly measured: Measured;
  readonly last_scale_at_ms: number | null;
  /** The volume has grown and its device or file system may not have followed. */
  readonly grow_pending: boolean;
  /** Pieces at stores that nobody needs and that are to be deleted. */
  readonly leftovers: readonly Placement[];
}

interface CatalogueFile {
  readonly format: 1;
  /** Tells this agent from others at a shared store. */
  readonly agent: string;
  readonly volumes: readonly CatalogueEntry[];
}

const FORMAT = 1;
const AGENT_ID_BYTES = 6;
const MAX_VOLUMES = 1024;
/** What an entry lacks that an earlier version wrote, beside what its mirror does. */
const NEW_KEYS: Partial<VolumeConfig> = { device: false, queue_depth: DEFAULT_QUEUE_DEPTH };

export class Catalogue {
  readonly agent: string;
  readonly #path: string;
  readonly #entries = new Map<string, CatalogueEntry>();

  /** Reads the file, or begins a new one. @throws {PsmaError} state/catalogue when it is not understood. */
  constructor(path: string, rng: Rng) {
    this.#path = path;
    const file = decodeCatalogue(readFile(path), path);
    this.agent = file?.agent ?? rng.hex(AGENT_ID_BYTES);
    for (const entry of file?.volumes ?? []) {
      const mirror = { ...defaultMirror(entry.spec.store, []), ...entry.spec.mirror };
      this.#entries.set(entry.name, { ...entry, spec: { ...NEW_KEYS, ...entry.spec, mirror } });
    }
    if (file === undefined) this.#save();
  }

  names(): string[] {
    return [...this.#entries.keys()];
  }

  find(name: string): CatalogueEntry | undefined {
    return this.#entries.get(name);
  }

  /** @throws {PsmaError} not-found/volume */
  get(name: string): CatalogueEntry {
    const entry = this.#entries.get(name);
    if (entry) return entry;
    throw noVolume(name);
  }

  /** Adds a volume, durably. @throws {PsmaError} state/exists, state/too-many */
  add(name: string, spec: VolumeConfig, configured = true): CatalogueEntry {
    if (this.#entries.has(name)) {
      throw new PsmaError("state/exists", `Cannot create ${name}: there is a volume of this name`, {
        hint: `psma volume show ${name} shows it; choose another name.`,
      });
    }
    if (this.#entries.size >= MAX_VOLUMES) {
      throw new PsmaError(
        "state/too-many",
        `Cannot create ${name}: there are ${MAX_VOLUMES} already`,
      );
    }
    const entry: CatalogueEntry = {
      name,
      spec,
      configured,
      desired: "attached",
      initial: null,
      begun: false,
      mirror: null,
      intent: null,
      measured: { sync_rate_bytes_per_s: null, provision_ms: null, switch_ms: null },
      last_scale_at_ms: null,
      grow_pending: false,
      leftovers: [],
    };
    this.#entries.set(name, entry);
    this.#save();
    return entry;
  }

  /** Changes a volume's entry, durably before it returns. */
  update(name: string, change: Partial<Omit<CatalogueEntry, "name">>): CatalogueEntry {
    const entry = { ...this.get(name), ...change };
    this.#entries.set(name, entry);
    this.#save();
    return entry;
  }

  remove(name: string): void {
    this.#entries.delete(name);
    this.#save();
  }

  #save() {
    const file: CatalogueFile = {
      format: FORMAT,
      agent: this.agent,
      volumes: [...this.#entries.values()],
    };
    replaceFile(this.#path, JSON.stringify(file, null, 1) + "\n");
  }
}

/** What to say to somebody who names a volume that there is not. */
export function noVolume(name: string): PsmaError {
  return new PsmaError("not-found/volume", `Cannot find volume ${name}: there is none`, {
    hint: "psma volume list shows the volumes there are.",
  });
}

function decodeCatalogue(text: string | undefined, path: string): CatalogueFile | undefined {
  if (text === undefined) return undefined;
  const refuse = (why: string, cause?: unknown) =>
    new PsmaError("state/catalogue", `Cannot read the catalogue ${path}: ${why}`, {
      cause,
      hint: "Restore it from a backup; volumes' bytes and manifests are not touched.",
    });
  let file: Partial<CatalogueFile>;
  try {
    file = JSON.parse(text);
  } catch (cause) {
    throw refuse("it is damaged", cause);
  }
  if (file?.format !== FORMAT) throw refuse(`its format ${file?.format} is not ${FORMAT}`);
  if (typeof file.agent !== "string" || !Array.isArray(file.volumes)) throw refuse("it is damaged");
  return file as CatalogueFile;
}
