/**
 * The volume's manifest on disk: one header line with format version and CRC-32 of the rest, then JSON.
 * What it says is the truth about where a volume's bytes are; it is replaced atomically and never edited.
 */
import { crc32 } from "node:zlib";
import { PsmaError } from "../core/mod.ts";

const MAGIC = "PSMA-MANIFEST 1";
const EPOCH_OF_URI = /@(\d{1,15})(?=\?|$)/;

/** Paths of PEM files. Without `ca_file` the authorities that come with this program are trusted. */
export interface TlsFiles {
  readonly ca_file?: string;
  /** The certificate that we show; goes with `key_file`. */
  readonly cert_file?: string;
  readonly key_file?: string;
}

/** How a server is known, and how we are known to it. */
export interface TlsSpec extends TlsFiles {
  /** What the server's certificate is for, when it is not the host of the URI. */
  readonly server_name?: string;
}

/**
 * Where bytes live. `uri` is `nbd://host:port/name` or `nbd+unix:///name?socket=/path`, or one of them with
 * `nbds` for NBD over TLS, which alone has a use for `tls`.
 */
export type BackendSpec =
  | { readonly type: "file"; readonly path: string; readonly direct?: boolean }
  | { readonly type: "device"; readonly path: string }
  | { readonly type: "nbd"; readonly uri: string; readonly tls?: TlsSpec };

/** A place for a volume's bytes, with the name of the data store that it belongs to. */
export interface Placement {
  /** Name of the store in the configuration. */
  readonly store: string;
  /** The store's own id of the volume. */
  readonly store_volume: string;
  readonly size_bytes: number;
  readonly backend: BackendSpec;
}

/** Microseconds; as in `psma status --json`. */
export interface LatencyReport {
  readonly baseline_p99: number;
  readonly window_p99: number;
  readonly window_max: number;
}

export interface CutoverReport {
  readonly epoch: number;
  /** RFC 3339. */
  readonly at: string;
  readonly io_errors: number;
  /** Longest time that an admitted write waited for a copy of its extent; 0 when none had to. */
  readonly held_us_max: number;
  readonly latency_us: LatencyReport;
  readonly size_before_bytes: number;
  readonly size_after_bytes: number;
  readonly copied_bytes: number;
  readonly changed_bytes: number;
  readonly digests_checked: number;
  readonly digest_mismatches: number;
  /** Of chunks that were written through during or after the last comparison before the commit. */
  readonly unverified_bytes?: number;
}

/** Hours of the week, in UTC, with a ceiling of their own. */
export interface RateWindow {
  /** Minutes after midnight, 0 to 1440; ending before it begins, it goes on after midnight. */
  readonly from_minute: number;
  readonly to_minute: number;
  /** Of its beginning: 0 is Sunday. */
  readonly days: readonly number[];
  /** Null for none. */
  readonly max_rate_bytes_per_s: number | null;
}

/** How a mirror is to work, as configured. */
export interface MirrorTerms {
  /** Ceiling of the copier outside of all windows; null for none. */
  readonly max_rate_bytes_per_s: number | null;
  /** The first that covers a moment counts. Left out: there are none. */
  readonly rate_windows?: readonly RateWindow[];
  /** The copier's share even while the application suffers. */
  readonly min_rate_bytes_per_s: number;
  readonly write_through_timeout_ms: number;
  /** The RPO: how old a write may become while tracking before the target has it. */
  readonly resync_interval_ms: number;
  /**
   * What the knowledge of differences is to survive: a kill, or a power loss too, by a write-intent log (see
   * `volume/intent_log.ts`). With `process` everything is compared after a power loss.
   */
  readonly durability: "process" | "power";
}

/** How far the first sync had come. */
export interface FirstSync {
  /** What there was to copy, and what became dirty since. */
  readonly total_bytes: number;
  /** As it was shown last; in [0, 100]. */
  readonly percent: number;
}

/** A mirror as the manifest remembers it, so that a restart goes on with it. */
export interface MirrorRecord {
  readonly id: string;
  /** `scale`: the target is a larger place to move to. `backup`: it is the former source, followed. */
  readonly role: "scale" | "backup";
  readonly target: Placement;
  readonly terms: MirrorTerms;
  /** The target held data before: digests are compared before anything is sent. */
  readonly compare: boolean;
  readonly digest_algorithm: string;
  readonly paused: boolean;
  /** Under which a cutover, or an opening, claims the target: since it was first tried. */
  readonly claimant?: string;
  /**
   * Of a backup in lock-step: how long the active store may be lost before the volume goes on on the backup
   * by itself; left out: for ever.
   */
  readonly failover_after_ms?: number;
  /** Null when it is over; left out: nothing is known. */
  readonly first_sync?: FirstSync | null;
}

/** What becomes of the former source: untouched, followed behind, or in lock-step. */
export type BackupMode = "frozen" | "async" | "sync";

/** A backup that is not followed. */
export interface BackupRest {
  /** What was written later is not there; RFC 3339. */
  readonly at: string;
  readonly reason: string;
  /** It is the volume as it was at that moment. False: left in the midst of copying, and no volume at all. */
  readonly complete: boolean;
  /** Under which it is claimed at its store, so that no other agent goes on there; left out by earlier versions. */
  readonly claimant?: string;
}

export interface Manifest {
  readonly name: string;
  readonly size_bytes: number;
  readonly epoch: number;
  readonly active: Placement;
  readonly mirror: MirrorRecord | null;
  /**
   * A cutover, or with a `claimant` a claim on the active place or on the backup, that began: the store may have been promoted to
   * this epoch already.
   */
  readonly prepare: {
    readonly epoch: number;
    readonly to: Placement;
    readonly claimant?: string;
  } | null;
  readonly backup: Placement | null;
  readonly backup_mode: BackupMode;
  /** Null where there is no backup, where it is followed, and where an earlier version froze it. */
  readonly backup_rest: BackupRest | null;
  readonly last_cutover: CutoverReport | null;
}

/** The file's bytes: a line with the format's name and the text's CRC, then the record as JSON. */
export function encodeManifest(manifest: Manifest): Uint8Array {
  const body = JSON.stringify(manifest, null, 1) + "\n";
  return new TextEncoder().encode(`${MAGIC} ${hex(crc32(body))}\n${body}`);
}

/** @throws {PsmaError} state/manifest when the bytes are damaged or of a later format. */
export function decodeManifest(bytes: Uint8Array, path: string): Manifest {
  const text = new TextDecoder().decode(bytes);
  const split = text.indexOf("\n");
  const header = text.slice(0, Math.max(split, 0)), body = text.slice(split + 1);
  if (!header.startsWith(`${MAGIC} `) || header.slice(MAGIC.length + 1) !== hex(crc32(body))) {
    throw new PsmaError("state/manifest", `Cannot read ${path}: its checksum does not match`, {
      hint: "Restore the file from a backup of the state directory; PSMA will not guess.",
    });
  }
  return completed(JSON.parse(body));
}

/** The fencing epoch that a place is written with, `volume@EPOCH`; undefined where nothing is fenced. */
export function epochOf({ backend }: Placement): number | undefined {
  const epoch = backend.type === "nbd" ? EPOCH_OF_URI.exec(backend.uri)?.[1] : undefined;
  return epoch === undefined ? undefined : Number(epoch);
}

/** The least epoch from `least` on that is beyond a place's own. */
export function epochBeyond(place: Placement, least: number): number {
  return Math.max(least, (epochOf(place) ?? 0) + 1);
}

/** The same place for a writer of another fencing epoch; as it is where nothing is fenced. */
export function atEpoch(place: Placement, epoch: number): Placement {
  const { backend } = place;
  if (backend.type !== "nbd") return place;
  const uri = backend.uri.replace(EPOCH_OF_URI, `@${epoch}`);
  return { ...place, backend: { ...backend, uri } };
}

/** A mirror as it was recorded before terms had a record of their own. */
type FlatMirror = Pick<MirrorRecord, "id" | "target" | "paused"> & Partial<MirrorTerms>;

/** What a manifest of an earlier version leaves out stands for what there was then. */
function completed(manifest: Manifest): Manifest {
  const { mirror } = manifest;
  return {
    ...manifest,
    backup_mode: manifest.backup_mode ?? "frozen",
    backup_rest: manifest.backup_rest ?? null,
    mirror: mirror && !mirror.terms ? withTerms(mirror) : mirror,
  };
}

function withTerms({ id, target, paused, ...flat }: FlatMirror): MirrorRecord {
  return {
    id,
    role: "scale",
    target,
    terms: {
      max_rate_bytes_per_s: flat.max_rate_bytes_per_s ?? null,
      min_rate_bytes_per_s: 0,
      write_through_timeout_ms: flat.write_through_timeout_ms ?? 200,
      resync_interval_ms: flat.resync_interval_ms ?? 300_000,
      durability: "process",
    },
    compare: false,
    digest_algorithm: "xxh64",
    paused,
  };
}

function hex(value: number): string {
  return (value >>> 0).toString(16).padStart(8, "0");
}
