/**
 * One open volume with all that belongs to it: manifest, backends, FUSE export, mirror. Composes the rooms
 * below; the rules of writing and copying are theirs.
 *
 * Recovery: the manifest says which backend is active; a mirror that it names is gone on with from its
 * change map, which is exact after a kill; a cutover that was prepared and not committed is void.
 */
import { PsmaError } from "../core/mod.ts";
import {
  type BackendSpec,
  COUNTER,
  type CutoverReport,
  type Manifest,
  type MirrorRecord,
  type Placement,
} from "../codec/mod.ts";
import { type Backend, FileBackend, openNbdBackend } from "../backend/mod.ts";
import { FuseExport } from "../frontend/mod.ts";
import { cutOver, CutoverWindow, Mirror, type TargetControl } from "../mirror/mod.ts";
import { ChangeMap, ManifestFile, MirrorLink, Volume } from "../volume/mod.ts";
import { digestExtents } from "./digests.ts";
import type { MirrorStatus, OpenVolume, StartMirror, VolumeStatus } from "./messages.ts";
import type { Service } from "./service.ts";

/** Latency snapshots, one a second, that the baseline before a cutover is taken from. */
const BASELINE_SECONDS = 60;
const WINDOW_AFTER_COMMIT_MS = 1000;

export class ServedVolume {
  maxSizeBytes: number;
  #mirror: Mirror | undefined;
  #fuse: FuseExport | undefined;
  #backup: Backend | undefined;
  #busy: string | undefined;
  #closing = false;
  #baselineP99 = 0;
  readonly #snapshots: Float64Array[] = [];

  private constructor(
    readonly service: Service,
    readonly directory: string,
    readonly volume: Volume,
    readonly manifest: ManifestFile,
    maxSizeBytes: number,
  ) {
    this.maxSizeBytes = maxSizeBytes;
  }

  /** @throws {PsmaError} state/manifest, state/short, store/unreachable, sys/... */
  static async open(open: OpenVolume, service: Service): Promise<ServedVolume> {
    const { reactor, operations, requests, clock } = service;
    Deno.mkdirSync(open.directory, { recursive: true, mode: 0o700 });
    const path = `${open.directory}/manifest`;
    const manifest = ManifestFile.load(path, reactor) ?? await firstManifest(open, path, service);
    const { active, size_bytes, name } = manifest.current;
    const backend = await openBackend(active.backend, size_bytes, service, false);
    if (backend.sizeBytes < size_bytes) {
      await backend.close();
      throw new PsmaError(
        "state/short",
        `Cannot open volume ${name}: ${backend.description} has ${backend.sizeBytes} bytes, ` +
          `${size_bytes} are needed`,
        { hint: "Something outside PSMA has shortened it; restore it before going on." },
      );
    }
    backend.setLossPolicy("hold");
    const volume = new Volume({
      name,
      sizeBytes: size_bytes,
      active: backend,
      operations,
      requests,
      reactor,
      clock,
    });
    const served = new ServedVolume(service, open.directory, volume, manifest, open.max_size_bytes);
    await served.#recover();
    return served;
  }

  async #recover() {
    const { mirror, prepare } = this.manifest.current;
    if (prepare) {
      this.#emit("cutover.void", "warning", "A cutover that was not committed is void", {
        epoch: prepare.epoch,
      });
    }
    if (!mirror) return;
    const map = ChangeMap.open(this.#mapPath(mirror.id));
    const { backend } = mirror.target;
    const target = await openBackend(backend, mirror.target.size_bytes, this.service, true);
    this.volume.attachLink(new MirrorLink(target, map));
    this.#runMirror(mirror, true);
  }

  status(nbdUri: string | undefined): VolumeStatus {
    const { name, epoch, active, backup, last_cutover } = this.manifest.current;
    return {
      name,
      size_bytes: this.volume.sizeBytes,
      max_size_bytes: this.maxSizeBytes,
      epoch,
      active,
      backup,
      allocated_bytes: this.volume.active.allocatedBytes() ?? null,
      connected: this.volume.active.connected,
      exports: nbdUri === undefined ? [] : [{ frontend: "nbd", uri: nbdUri }],
      mirror: this.mirrorStatus(),
      last_cutover,
    };
  }

  mirrorStatus(): MirrorStatus | null {
    const mirror = this.#mirror;
    if (!mirror || mirror.state === "switched") return null;
    const now = mirror.progress();
    return {
      id: mirror.record.id,
      state: mirror.state as MirrorStatus["state"],
      ...(now.reason === undefined ? {} : { reason: now.reason }),
      target: mirror.record.target,
      total_bytes: now.copiedBytes + now.dirtyBytes,
      copied_bytes: now.copiedBytes,
      changed_bytes: now.changedBytes,
      dirty_bytes: now.dirtyBytes,
      rate_bytes_per_s: now.rateBytesPerSecond,
      lag_ms: now.lagMs,
      eta_s: now.etaSeconds,
      rounds: now.rounds,
      write_through: now.writeThrough,
      digests: now.digests,
    };
  }

  mirrorStatusNow(): MirrorStatus {
    const status = this.mirrorStatus();
    if (!status) throw this.#noMirror();
    return status;
  }

  keepHouse(): void {
    const { volume } = this, counters = volume.counters;
    counters.set(COUNTER.allocatedBytes, volume.active.allocatedBytes() ?? volume.sizeBytes);
    counters.set(COUNTER.inFlight, volume.inFlight);
    if (volume.link) {
      counters.set(COUNTER.dirtyBytes, volume.link.map.dirtyBytes);
      counters.set(COUNTER.mirrorCopiedBytes, this.#mirror?.copier.copiedBytes ?? 0);
      counters.set(COUNTER.mirrorChangedBytes, volume.link.changedBytes);
    }
    this.#snapshots.push(counters.latencySnapshot());
    if (this.#snapshots.length > BASELINE_SECONDS) this.#snapshots.shift();
  }

  /** @throws {PsmaError} state/mirror while there is a mirror, usage/size when smaller or above the maximum. */
  async grow(sizeBytes: number): Promise<void> {
    if (sizeBytes < this.volume.sizeBytes || sizeBytes > this.maxSizeBytes) {
      throw new PsmaError(
        "usage/size",
        `Cannot grow ${this.volume.name}: ${sizeBytes} is not between its size ` +
          `${this.volume.sizeBytes} and its maximum ${this.maxSizeBytes}`,
      );
    }
    await this.#exclusively("grow", async () => {
      if (this.#mirror) {
        throw new PsmaError("state/mirror", `Cannot grow ${this.volume.name}: it is mirrored`, {
          hint: "Switch to the mirror, which is larger, or cancel it first.",
        });
      }
      await this.volume.active.grow(sizeBytes);
      await this.manifest.commit((now) => ({
        ...now,
        size_bytes: sizeBytes,
        active: { ...now.active, size_bytes: sizeBytes },
      }));
      this.volume.setSize(sizeBytes);
    });
  }

  mountFuse(path: string): void {
    if (this.#fuse) {
      throw new PsmaError("state/exported", `Cannot export ${this.volume.name}: it is already`);
    }
    const { reactor, requests } = this.service;
    this.#fuse = FuseExport.mount({
      reactor,
      requests,
      volume: this.volume,
      path,
      onEnd: (error) => {
        if (this.#closing || !error) return;
        this.#emit("export.ended", "error", `The FUSE export ended: ${error.message}`);
      },
    });
  }

  async unmountFuse(): Promise<void> {
    await this.#fuse?.close();
    this.#fuse = undefined;
  }

  async startMirror(start: StartMirror): Promise<void> {
    await this.#exclusively("mirror", async () => {
      if (this.#mirror) {
        if (this.#mirror.record.id === start.id) return;
        throw new PsmaError("state/mirror", `Cannot mirror ${this.volume.name}: it is mirrored`);
      }
      const { volume: _, ...rest } = start;
      const record: MirrorRecord = { ...rest, paused: false };
      if (start.target.size_bytes < this.volume.sizeBytes) {
        throw new PsmaError("usage/size", "Cannot mirror: the target is smaller than the volume");
      }
      const target = await openBackend(
        start.target.backend,
        start.target.size_bytes,
        this.service,
        false,
      );
      const map = await ChangeMap.create(
        this.#mapPath(start.id),
        this.volume.sizeBytes,
        this.service.reactor,
      );
      // Changes are tracked from here on; only then is it looked up what else there is to copy.
      const link = new MirrorLink(target, map);
      this.volume.attachLink(link);
      try {
        const extents = await this.volume.active.dataExtents(0, this.volume.sizeBytes);
        for (const { at, length } of extents) map.markDirty(at, length);
        await this.manifest.commit((now) => ({ ...now, mirror: record }));
      } catch (error) {
        await this.volume.detachLink();
        map.close();
        await target.close();
        throw error;
      }
      this.#runMirror(record, false);
      this.#emit("mirror.started", "info", `Mirroring to ${target.description}`, {
        dirty_bytes: map.dirtyBytes,
        target_size_bytes: start.target.size_bytes,
      });
    });
  }

  async pauseMirror(paused: boolean): Promise<void> {
    const mirror = this.#needMirror();
    await this.manifest.commit((now) => ({
      ...now,
      mirror: now.mirror ? { ...now.mirror, paused } : null,
    }));
    if (paused) mirror.pause();
    else mirror.resume();
    this.#emit(paused ? "mirror.paused" : "mirror.resumed", "info", "As asked for");
  }

  async cancelMirror(): Promise<void> {
    await this.#exclusively("cancel", async () => {
      this.#needMirror();
      await this.manifest.commit((now) => ({ ...now, mirror: null, prepare: null }));
      const target = this.volume.link?.target;
      const id = this.#needMirror().record.id;
      await this.#dropMirror();
      await target?.close();
      this.#removeMap(id);
      this.#emit("mirror.cancelled", "info", "The mirror is forgotten");
    });
  }

  async converge(timeoutMs: number): Promise<void> {
    const mirror = this.#needMirror();
    if (mirror.state !== "ready" && mirror.state !== "converging") this.#takeBaseline();
    await mirror.converge(timeoutMs);
  }

  async switchOver(timeoutMs: number): Promise<CutoverReport> {
    return await this.#exclusively("switch", async () => {
      const mirror = this.#needMirror(), volume = this.volume;
      if (mirror.state !== "ready" && mirror.state !== "converging") this.#takeBaseline();
      const window = new CutoverWindow(volume.counters, this.#baselineP99);
      volume.takeHeldMax();
      await mirror.converge(timeoutMs);
      const { reactor, clock } = this.service;
      const link = volume.link;
      const { former, report } = await cutOver({
        volume,
        mirror,
        manifest: this.manifest,
        control: this.#control(mirror.record.target),
        reactor,
        clock,
        window,
        onRetry: (reason) =>
          this.#emit("cutover.retry", "error", `The commit is tried again: ${reason}`),
      });
      this.#mirror = undefined;
      if (link) link.target.onLost = undefined;
      this.#backup = former;
      this.#emit(
        "cutover.committed",
        "info",
        `${volume.name} moved to ${volume.active.description}`,
        {
          epoch: report.epoch,
          size_before_bytes: report.size_before_bytes,
          size_after_bytes: report.size_after_bytes,
        },
      );
      this.service.supervise("cutover", this.#finishSwitch(mirror, link, former, report, window));
      return report;
    });
  }

  async retireBackup(): Promise<void> {
    await this.#exclusively("retire", async () => {
      if (!this.manifest.current.backup) {
        throw new PsmaError("state/no-backup", `Cannot retire: ${this.volume.name} has no backup`);
      }
      await this.manifest.commit((now) => ({ ...now, backup: null }));
    });
  }

  /** Stops serving, flushes, and leaves everything as a restart wants to find it. */
  async close(): Promise<void> {
    this.#closing = true;
    await this.unmountFuse();
    await this.volume.close();
    const target = this.volume.link?.target;
    if (this.#mirror) await this.#dropMirror();
    await this.service.calls.flush(this.volume.active);
    if (target) await target.close();
    await this.volume.active.close();
    await this.#backup?.close();
  }

  #runMirror(record: MirrorRecord, resumed: boolean) {
    const link = this.volume.link;
    if (!link) return;
    const { calls, reactor, clock, options } = this.service;
    this.#mirror = new Mirror({
      record,
      volume: this.volume,
      link,
      calls,
      reactor,
      clock,
      control: this.#control(record.target),
      digest: options.digest,
      emit: (type, severity, message, data) => this.#emit(type, severity, message, data),
      resumed,
    });
    this.#mirror.start();
  }

  /** A file target lives in this very process, so it is read back here; others are asked. */
  #control(target: Placement): TargetControl {
    const { calls, options } = this.service;
    return {
      digests: async (extents) => {
        const backend = this.volume.link?.target;
        if (target.backend.type === "file" && backend) {
          return (await digestExtents(backend, extents, calls, options.digest)).digests;
        }
        return await options.ask("digests", { target, extents: [...extents] });
      },
      promote: async (epoch) => {
        await options.ask("promote", { target, epoch });
      },
    };
  }

  async #dropMirror() {
    const link = this.volume.link;
    await this.#mirror?.end();
    this.#mirror = undefined;
    await this.volume.detachLink();
    link?.map.close();
  }

  /** After the commit: lets the window run out, writes the final report, gives up what the mirror had. */
  async #finishSwitch(
    mirror: Mirror,
    link: MirrorLink | undefined,
    former: Backend,
    report: CutoverReport,
    window: CutoverWindow,
  ) {
    const { reactor } = this.service;
    await mirror.end();
    await reactor.sleep(WINDOW_AFTER_COMMIT_MS);
    const final: CutoverReport = {
      ...report,
      io_errors: window.ioErrors,
      latency_us: window.latency(),
    };
    await this.manifest.commit((now) => ({ ...now, last_cutover: final }));
    link?.map.close();
    this.#removeMap(mirror.record.id);
    if (this.#backup === former) this.#backup = undefined;
    await former.close();
    this.#emit("cutover.measured", "info", "The cutover's latencies are measured", {
      window_p99_us: final.latency_us.window_p99,
      window_max_us: final.latency_us.window_max,
      baseline_p99_us: final.latency_us.baseline_p99,
      io_errors: final.io_errors,
    });
  }

  /** The 99th percentile before any write-through, over the last minute. */
  #takeBaseline() {
    const oldest = this.#snapshots[0];
    const { counters } = this.volume;
    this.#baselineP99 = oldest
      ? counters.quantileSince(oldest, 0.99)
      : counters.quantileSince(new Float64Array(counters.latencySnapshot().length), 0.99);
  }

  async #exclusively<T>(what: string, work: () => Promise<T>): Promise<T> {
    if (this.#busy !== undefined) {
      throw new PsmaError(
        "state/busy",
        `Cannot ${what} ${this.volume.name}: a ${this.#busy} is under way`,
        { hint: "Try again when it has ended." },
      );
    }
    this.#busy = what;
    try {
      return await work();
    } finally {
      this.#busy = undefined;
    }
  }

  #needMirror(): Mirror {
    if (!this.#mirror) throw this.#noMirror();
    return this.#mirror;
  }

  #noMirror(): PsmaError {
    return new PsmaError("state/no-mirror", `Cannot do that: ${this.volume.name} has no mirror`, {
      hint: "Start one: psma mirror start " + this.volume.name,
    });
  }

  #mapPath(id: string): string {
    return `${this.directory}/${id}.map`;
  }

  #removeMap(id: string) {
    try {
      Deno.removeSync(this.#mapPath(id));
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  #emit(
    type: string,
    severity: "info" | "warning" | "error",
    message: string,
    data: Record<string, string | number | boolean | null> = {},
  ) {
    this.service.emit({ type, severity, volume: this.volume.name, message, data });
  }
}

async function firstManifest(
  open: OpenVolume,
  path: string,
  service: Service,
): Promise<ManifestFile> {
  if (!open.initial) {
    throw new PsmaError(
      "not-found/manifest",
      `Cannot open volume ${open.name}: it was never made`,
      {
        hint: `Make it: psma volume create ${open.name} --size SIZE`,
      },
    );
  }
  const manifest: Manifest = {
    name: open.name,
    size_bytes: open.initial.size_bytes,
    epoch: 1,
    active: open.initial,
    mirror: null,
    prepare: null,
    backup: null,
    last_cutover: null,
  };
  return await ManifestFile.create(path, manifest, service.reactor);
}

/** @param mayBeAway a target that cannot be reached now is waited for, not refused. */
async function openBackend(
  spec: BackendSpec,
  sizeBytes: number,
  service: Service,
  mayBeAway: boolean,
): Promise<Backend> {
  const { reactor, operations } = service;
  if (spec.type === "file") {
    return new FileBackend({ path: spec.path, reactor, operations, direct: spec.direct ?? false });
  }
  return await openNbdBackend({
    uri: spec.uri,
    reactor,
    operations,
    ...(mayBeAway ? { expectedSizeBytes: sizeBytes } : {}),
  });
}
