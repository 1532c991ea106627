/**
 * A volume's mirror as commands see it: started, paused, cancelled, converged, and gone on with after a
 * restart from its change map, which is exact after a kill. At most one at a time.
 */
import { isDeepStrictEqual } from "node:util";
import { PsmaError, toPsmaError } from "../core/mod.ts";
import { AwaitedBackend, type Backend } from "../backend/mod.ts";
import { DIGEST_ALGORITHM, Mirror, type MirrorEventSink } from "../mirror/mod.ts";
import { atEpoch, type ChangeMap, epochOf, MirrorLink, type MirrorRecord } from "../volume/mod.ts";
import type { BackupClaim } from "./backup_claim.ts";
import type { LatencyBaseline } from "./latency_baseline.ts";
import type { GuideMirror, MirrorStatus, StartMirror } from "./messages.ts";
import { targetControl } from "./target_control.ts";
import type { MirrorMaps } from "./volume_directory.ts";
import { openBackend, type VolumeParts } from "./volume_opening.ts";

/** How long a target may take to answer what is in flight when its mirror ends. */
const TARGET_ANSWERS_WITHIN_MS = 3000;

export class MirrorControl {
  #mirror: Mirror | undefined;

  constructor(
    readonly parts: VolumeParts,
    readonly baseline: LatencyBaseline,
    readonly claim: BackupClaim,
  ) {}

  /** @throws {PsmaError} state/no-mirror */
  get mirror(): Mirror {
    if (!this.#mirror) throw this.noMirror();
    return this.#mirror;
  }

  get exists(): boolean {
    return this.#mirror !== undefined;
  }

  /** Goes on with the mirror that the manifest names, if it names one. */
  async recover(): Promise<void> {
    const { directory, manifest, volume } = this.parts;
    const record = manifest.current.mirror;
    await directory.removeOtherMaps(record?.id);
    if (!record) return;
    const { map, unverified, log } = await directory.openMaps(record, await this.#openMap(record));
    const target = await this.#openTarget(record, { map, log });
    const link = new MirrorLink(target, map, unverified, log);
    link.forgetBeyond(volume.sizeBytes);
    volume.attachLink(link);
    this.#run(manifest.current.mirror ?? record);
  }

  /** @throws {PsmaError} state/mirror, usage/size, store/unreachable, sys/...; nothing is left then. */
  async start(start: StartMirror): Promise<void> {
    const { context, directory, emit, manifest, volume } = this.parts;
    if (this.#mirror) {
      if (this.#mirror.record.id === start.id) return;
      throw new PsmaError("state/mirror", `Cannot mirror ${volume.name}: it is mirrored`);
    }
    const { volume: _, ...rest } = start;
    const ordered: MirrorRecord = {
      ...rest,
      role: "scale",
      digest_algorithm: DIGEST_ALGORITHM,
      paused: false,
    };
    if (start.target.size_bytes < volume.sizeBytes) {
      throw new PsmaError("usage/size", "Cannot mirror: the target is smaller than the volume");
    }
    const target = await openBackend(start.target.backend, context, undefined, volume.name);
    const { map, unverified, log } = await this.#createMaps(ordered, target);
    // Changes are tracked from here on; only then is it looked up what else there is to copy.
    const link = new MirrorLink(target, map, unverified, log);
    volume.attachLink(link);
    let record: MirrorRecord;
    try {
      // In a target that held data before, a hole of the source is to be one, too.
      if (start.compare) map.markDoubtful(0, volume.sizeBytes);
      else {
        const extents = await volume.active.dataExtents(0, volume.sizeBytes);
        for (const { at, length } of extents) map.markDirty(at, length);
      }
      record = { ...ordered, first_sync: { total_bytes: map.dirtyBytes, percent: 0 } };
      await manifest.commit((now) => ({ ...now, mirror: record }));
    } catch (error) {
      await volume.detachLink();
      await link.close();
      await target.close();
      // The disk may name the mirror all the same: after a restart everything is then copied.
      await directory.removeMap(start.id);
      throw error;
    }
    this.#run(record);
    emit("mirror.started", "info", `Mirroring to ${target.description}`, {
      dirty_bytes: map.dirtyBytes,
      target_size_bytes: start.target.size_bytes,
    });
  }

  /** One that cannot be opened is waited for: the volume serves without it, and tracks what it lacks. */
  async #openTarget(
    record: MirrorRecord,
    { map, log }: Pick<MirrorLink, "map" | "log">,
  ): Promise<Backend> {
    const { context, emit, volume } = this.parts, { store_volume, size_bytes } = record.target;
    const open = () => this.#openOwn(record);
    try {
      return await open();
    } catch (error) {
      const fault = toPsmaError(error);
      emit("mirror.target-away", "warning", `The mirror waits for its target: ${fault.message}`);
      // Whatever becomes of it meanwhile, only a comparison tells.
      const whole = { at: 0, length: volume.sizeBytes };
      await log?.prepare([whole]);
      map.markDoubtful(whole.at, whole.length);
      return new AwaitedBackend({
        description: store_volume,
        sizeBytes: size_bytes,
        operations: context.operations,
        turns: context.reactor,
        fault,
        open,
        onOpened: (backend) => {
          // The mirror has ended, and its map is closed.
          if (volume.link?.map !== map) return;
          emit("mirror.target-back", "info", `${backend.description} is open, and compared`);
        },
      });
    }
  }

  /** Under an epoch that no older agent with this volume has. @throws {PsmaError} state/short, as openBackend */
  async #openOwn(record: MirrorRecord): Promise<Backend> {
    const { context, manifest, volume } = this.parts, now = manifest.current.mirror;
    const isBackup = record.role === "backup";
    const known = now?.id === record.id ? now.target : record.target;
    // One that is being filled belongs to who has the volume; the next cutover promotes it to this epoch.
    const filling = Math.max(manifest.current.epoch + 1, epochOf(known) ?? 0);
    const target = isBackup ? known : atEpoch(known, filling);
    const backend = await openBackend(target.backend, context, known.size_bytes, volume.name);
    if (backend.sizeBytes >= volume.sizeBytes) {
      if (isBackup) await this.claim.follow(record, backend);
      return backend;
    }
    await backend.close();
    throw new PsmaError(
      "state/short",
      `Cannot mirror to ${backend.description}: it has ${backend.sizeBytes} bytes, ` +
        `${volume.sizeBytes} are needed`,
    );
  }

  /** A map that cannot be read costs a full resync, never the volume. */
  async #openMap(record: MirrorRecord): Promise<ChangeMap> {
    const { directory, emit, manifest, volume } = this.parts;
    try {
      return directory.openMap(record);
    } catch (error) {
      const { message } = toPsmaError(error);
      emit("mirror.map-lost", "warning", `Everything is compared again: ${message}`);
      // With a backup that is followed the volume may grow as far as its active place reaches.
      const { active } = manifest.current;
      return await directory.replaceMap(record.id, Math.max(volume.sizeBytes, active.size_bytes));
    }
  }

  async #createMaps(record: MirrorRecord, target: Backend): Promise<MirrorMaps> {
    const { directory, volume } = this.parts;
    try {
      return await directory.createMaps(record, volume.sizeBytes);
    } catch (error) {
      await target.close();
      throw error;
    }
  }

  async pause(paused: boolean): Promise<void> {
    const { emit } = this.parts, { mirror } = this;
    await this.#keep(mirror.record.id, { paused });
    if (paused) mirror.pause();
    else mirror.resume();
    emit(paused ? "mirror.paused" : "mirror.resumed", "info", "As asked for");
  }

  /** Passes on what is predicted; terms that differ are kept, too. Does nothing where there is no mirror. */
  async guide({ volume: _, terms, ...guidance }: GuideMirror): Promise<void> {
    const mirror = this.#mirror;
    if (!mirror) return;
    const { durability } = mirror.record.terms, next = { ...terms, durability };
    if (!isDeepStrictEqual(next, mirror.record.terms)) {
      mirror.setTerms(next);
      await this.#keep(mirror.record.id, { terms: next });
    }
    mirror.guide(guidance);
  }

  /** Changes the record of this very mirror in the manifest. */
  async #keep(id: string, change: Partial<MirrorRecord>): Promise<void> {
    await this.parts.manifest.commit((now) =>
      now.mirror?.id === id ? { ...now, mirror: { ...now.mirror, ...change } } : now
    );
  }

  async cancel(): Promise<void> {
    const { directory, emit, manifest, volume } = this.parts;
    const { id } = this.mirror.record;
    await manifest.commit((now) => ({ ...now, mirror: null, prepare: null }));
    const target = volume.link?.target;
    await this.drop();
    await target?.close();
    await directory.removeMap(id);
    emit("mirror.cancelled", "info", "The mirror is forgotten");
  }

  async converge(timeoutMs: number): Promise<void> {
    const mirror = this.mirror;
    this.baseline.takeBefore(mirror);
    await mirror.converge(timeoutMs);
  }

  /** The mirror's target is the active backend now: this mirror has ended. */
  letGo(): void {
    this.#mirror = undefined;
  }

  /** The same, and its source is followed by the link that stands at the volume since the commit. */
  follow(record: MirrorRecord): void {
    this.#run(record);
  }

  /** Ends the mirror in this process; the manifest still names it. Does nothing when there is none. */
  async drop(): Promise<void> {
    if (!this.#mirror) return;
    const { context: { reactor }, volume } = this.parts;
    const link = volume.link;
    let ended = false;
    reactor.sleep(TARGET_ANSWERS_WITHIN_MS).then(() => {
      if (!ended && link && link.target !== volume.active) link.target.abort();
    });
    await this.#mirror.end();
    this.#mirror = undefined;
    await volume.detachLink();
    ended = true;
    if (!link) return;
    link.target.onLost = undefined;
    await link.close();
  }

  updateCounters(): void {
    const { link, counters } = this.parts.volume;
    if (!link) return;
    counters.setMirror({
      dirty: link.map.dirtyBytes,
      copied: this.#mirror?.copier.copiedBytes ?? 0,
      changed: link.changedBytes,
    });
  }

  status(): Omit<MirrorStatus, "verify"> | null {
    const mirror = this.#mirror;
    if (!mirror || mirror.state === "switched") return null;
    const now = mirror.progress(), { scheduled } = now;
    return {
      id: mirror.record.id,
      role: mirror.record.role,
      state: mirror.state,
      ...(now.reason === undefined ? {} : { reason: now.reason }),
      target: mirror.record.target,
      total_bytes: now.copiedBytes + now.dirtyBytes,
      compared_bytes: mirror.verification.doubts.comparedBytes,
      equal_bytes: mirror.verification.doubts.equalBytes,
      copied_bytes: now.copiedBytes,
      changed_bytes: now.changedBytes,
      dirty_bytes: now.dirtyBytes,
      percent: now.percent,
      rate_bytes_per_s: now.rateBytesPerSecond,
      dirty_rate_bytes_per_s: now.dirtyBytesPerSecond,
      lag_ms: now.lagMs,
      eta_s: now.etaSeconds,
      eta_low_s: now.etaLowSeconds,
      eta_high_s: now.etaHighSeconds,
      eta_reason: now.etaReason,
      scheduled: {
        next_round_at: scheduled.nextRoundMs === null
          ? null
          : new Date(scheduled.nextRoundMs).toISOString(),
        ...scheduled.limits,
        because: scheduled.because,
      },
      rounds: now.rounds,
      write_through: now.writeThrough,
      digests: {
        algorithm: now.digests.algorithm,
        checked: now.digests.checked,
        mismatched: now.digests.mismatched,
        unverified_bytes: now.digests.unverifiedBytes,
      },
    };
  }

  noMirror(): PsmaError {
    const { name } = this.parts.volume;
    return new PsmaError("state/no-mirror", `Cannot find a mirror of ${name}: it has none`, {
      hint: `Start one: psma mirror start ${name}`,
    });
  }

  #run(record: MirrorRecord) {
    const { context, manifest, volume } = this.parts;
    const { calls, reactor, clock, memory, digest, coolEveryMs } = context;
    const link = volume.link;
    if (!link) return;
    const isBackup = record.role === "backup";
    const emit: MirrorEventSink = (type, ...rest) =>
      this.parts.emit(isBackup ? type.replace(/^mirror\./, "backup.") : type, ...rest);
    this.#mirror = new Mirror({
      record,
      volume,
      link,
      calls,
      turns: reactor,
      memory,
      clock,
      control: targetControl(this.parts, record.target),
      digest,
      emit,
      onFirstSync: (first_sync) =>
        this.parts.context.supervise("first sync", this.#keep(record.id, { first_sync })),
      undisturbed: this.baseline.load(),
      coolEveryMs,
      keepsReady: isBackup && manifest.current.backup_mode === "sync",
    });
    this.#mirror.start();
  }
}
