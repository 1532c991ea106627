/**
 * Opening a volume: its manifest says where its bytes are, the backend there is opened and must be long
 * enough. A volume without a manifest begins where its first placement says.
 */
import { PsmaError } from "../core/mod.ts";
import { type Backend, DeviceBackend, FileBackend, openNbdBackend } from "../backend/mod.ts";
import type { MirrorEventSink } from "../mirror/mod.ts";
import { type BackendSpec, type ManifestFile, newManifest, Volume } from "../volume/mod.ts";
import type { DataPlaneContext } from "./context.ts";
import { withPlainUri } from "./tls/way.ts";
import type { OpenVolume } from "./messages.ts";
import { claimActive } from "./volume_claim.ts";
import { VolumeDirectory } from "./volume_directory.ts";
import { whenFree } from "./when_free.ts";

/** What an open volume's controls share. */
export interface VolumeParts {
  readonly context: DataPlaneContext;
  readonly directory: VolumeDirectory;
  readonly volume: Volume;
  readonly manifest: ManifestFile;
  /** That no other process serves the volume from its directory. */
  readonly claim: Disposable;
  /** Tells what happened to this volume. */
  readonly emit: MirrorEventSink;
}

/** @throws {PsmaError} not-found/manifest, state/manifest, state/short, state/in-use, fenced/claimed, store/unreachable, sys/... */
export async function openParts(open: OpenVolume, context: DataPlaneContext): Promise<VolumeParts> {
  const directory = new VolumeDirectory(open.directory, context.files);
  const claim = await directory.claim(open.name);
  try {
    return await openClaimed(open, context, directory, claim);
  } catch (error) {
    claim[Symbol.dispose]();
    throw error;
  }
}

async function openClaimed(
  open: OpenVolume,
  context: DataPlaneContext,
  directory: VolumeDirectory,
  claim: Disposable,
): Promise<VolumeParts> {
  const manifest = await directory.loadManifest() ?? await firstManifest(open, directory);
  const { prepare } = manifest.current;
  if (prepare && prepare.claimant === undefined) {
    context.emit({
      type: "cutover.void",
      severity: "warning",
      volume: open.name,
      message: "A cutover that was not committed is void",
      data: { epoch: prepare.epoch },
    });
  }
  await claimActive(manifest, context);
  const { name, size_bytes, active } = manifest.current;
  const backend = await openActive(name, active.backend, size_bytes, context);
  const { operations, requests, reactor, batchClock } = context;
  const volume = new Volume({
    name,
    sizeBytes: size_bytes,
    active: backend,
    operations,
    requests,
    turns: reactor,
    clock: batchClock,
  });
  const emit: MirrorEventSink = (type, severity, message, data = {}) =>
    context.emit({ type, severity, volume: name, message, data });
  return { context, directory, volume, manifest, claim, emit };
}

async function firstManifest(open: OpenVolume, directory: VolumeDirectory): Promise<ManifestFile> {
  if (!open.initial) {
    throw new PsmaError(
      "not-found/manifest",
      `Cannot open volume ${open.name}: it was never made`,
      { hint: `Make it: psma volume create ${open.name} --size SIZE` },
    );
  }
  return await directory.createManifest(newManifest(open.name, open.initial));
}

async function openActive(
  name: string,
  spec: BackendSpec,
  sizeBytes: number,
  context: DataPlaneContext,
): Promise<Backend> {
  const backend = await openBackend(spec, context, undefined, name);
  if (backend.sizeBytes < sizeBytes) {
    await backend.close();
    throw new PsmaError(
      "state/short",
      `Cannot open volume ${name}: ${backend.description} has ${backend.sizeBytes} bytes, ` +
        `${sizeBytes} are needed`,
      { hint: "Something outside PSMA has shortened it; restore it before going on." },
    );
  }
  backend.setLossPolicy("hold");
  return backend;
}

/**
 * @param expectedSizeBytes given for a backend that may be away now: it is then waited for, not refused.
 * @param volume whose backend it is, for the events of its connection.
 * @throws {PsmaError} store/unreachable, state/in-use, config/tls-file, sys/...
 */
export async function openBackend(
  spec: BackendSpec,
  { reactor, operations, repeats, rng, ask }: DataPlaneContext,
  expectedSizeBytes?: number,
  volume?: string,
): Promise<Backend> {
  if (spec.type === "file") {
    const { path, direct = false } = spec;
    return await whenFree(reactor, () => new FileBackend({ path, reactor, operations, direct }));
  }
  if (spec.type === "device") return new DeviceBackend({ path: spec.path, reactor, operations });
  return await withPlainUri(spec, ask, (way) =>
    openNbdBackend({
      ...way,
      reactor,
      operations,
      rng,
      onEvent: (event) => repeats.tell({ ...event, ...(volume === undefined ? {} : { volume }) }),
      ...(expectedSizeBytes === undefined ? {} : { expectedSizeBytes }),
    }), { patient: expectedSizeBytes !== undefined });
}
