/**
 * The volume's manifest on disk: one header line with format version and CRC-32 of the rest, then JSON.
 * What it says is the truth about where a volume's bytes are; it is replaced atomically and never edited.
 */
import { crc32 } from "node:zlib";
import { PsmaError } from "../core/mod.ts";

const MAGIC = "PSMA-MANIFEST 1";

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

/** A mirror as the manifest remembers it, so that a restart goes on with it. */
export interface MirrorRecord {
  readonly id: string;
  readonly target: Placement;
  readonly max_rate_bytes_per_s: number | null;
  readonly write_through_timeout_ms: number;
  readonly resync_interval_ms: number;
  readonly paused: boolean;
}

export interface Manifest {
  readonly name: string;
  readonly size_bytes: number;
  readonly epoch: number;
  readonly active: Placement;
  readonly mirror: MirrorRecord | null;
  /** A cutover that began: the store may have been promoted to this epoch already. */
  readonly prepare: { readonly epoch: number; readonly to: Placement } | null;
  readonly backup: Placement | null;
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
  return JSON.parse(body) as Manifest;
}

function hex(value: number): string {
  return (value >>> 0).toString(16).padStart(8, "0");
}
