/**
 * One open volume with all that belongs to it: manifest, backend, FUSE and ublk exports, mirror, backup. Composes
 * the rooms below; the rules of writing and copying are theirs. Works on one change of its shape at a time.
 *
 * Recovery: the manifest says which backend is active; a mirror that it names is gone on with; a cutover
 * that was prepared and not committed is void.
 */
import { PsmaError } from "../core/mod.ts";
import { HeldFuseExport, type HeldFuseMount, UblkExport } from "../frontend/mod.ts";
import type { CutoverReport, Volume } from "../volume/mod.ts";
import type { DataPlaneContext } from "./context.ts";
import { LatencyBaseline } from "./latency_baseline.ts";
import { BackupClaim } from "./backup_claim.ts";
import { BackupControl } from "./backup_control.ts";
import type {
  BackupOrder,
  GuideMirror,
  MirrorStatus,
  OpenVolume,
  StartMirror,
  StartVerify,
  VerifyStatus,
  VolumeStatus,
} from "./messages.ts";
import { MirrorControl } from "./mirror_control.ts";
import { Switching } from "./switching.ts";
import { Verifications } from "./verifications.ts";
import { openParts, type VolumeParts } from "./volume_opening.ts";

const CLOSE_WITHIN_MS = 5000, CLOSE_POLL_MS = 10;

export class ServedVolume {
  maxSizeBytes: number;
  readonly volume: Volume;
  readonly #parts: VolumeParts;
  readonly #baseline: LatencyBaseline;
  readonly #mirrors: MirrorControl;
  readonly #switching: Switching;
  readonly #verifications: Verifications;
  readonly #backups: BackupControl;
  #fuse: HeldFuseExport | undefined;
  #ublk: UblkExport | undefined;
  #busy: string | undefined;
  #exporting = false;
  #saidFenced = false;
  #closing = false;

  private constructor(parts: VolumeParts, maxSizeBytes: number) {
    this.maxSizeBytes = maxSizeBytes;
    this.volume = parts.volume;
    this.#parts = parts;
    this.#baseline = new LatencyBaseline(parts.volume.counters, parts.context.clock);
    const claim = new BackupClaim(parts);
    this.#mirrors = new MirrorControl(parts, this.#baseline, claim);
    this.#switching = new Switching(parts, this.#mirrors, this.#baseline);
    this.#verifications = new Verifications(parts, this.#mirrors);
    this.#backups = new BackupControl(
      parts,
      this.#mirrors,
      this.#switching,
      (what, work) => this.#exclusively(what, work),
      claim,
    );
  }

  /** @throws {PsmaError} state/manifest, state/short, state/change-map, store/unreachable, sys/... */
  static async open(open: OpenVolume, context: DataPlaneContext): Promise<ServedVolume> {
    const parts = await openParts(open, context);
    const served = new ServedVolume(parts, open.max_size_bytes);
    try {
      await served.#mirrors.recover();
      await served.#verifications.recover();
    } catch (error) {
      await parts.volume.close();
      await parts.volume.active.close();
      await parts.manifest.close();
      parts.claim[Symbol.dispose]();
      throw error;
    }
    context.supervise("watching over a backup", served.#backups.watch());
    return served;
  }

  status(nbdUri: string | undefined): VolumeStatus {
    const { name, epoch, active, backup, last_cutover } = this.#parts.manifest.current;
    const mirror = this.mirrorStatus();
    return {
      name,
      size_bytes: this.volume.sizeBytes,
      max_size_bytes: this.maxSizeBytes,
      epoch,
      active,
      backup,
      backup_status: this.#backups.status(mirror, this.#verifications.statusOfThis("backup")),
      allocated_bytes: this.volume.active.allocatedBytes() ?? null,
      connected: this.volume.active.connected,
      fenced: this.volume.active.fenced === true,
      operations: this.volume.active.meter.report(),
      exports: nbdUri === undefined ? [] : [{ frontend: "nbd", uri: nbdUri }],
      mirror: mirror?.role === "scale" ? mirror : null,
      last_cutover,
    };
  }

  /** What is due once a second: levels, and a snapshot for the baseline. */
  keepHouse(): void {
    const { active, counters, inFlight, sizeBytes } = this.volume;
    counters.setLevels({ allocatedBytes: active.allocatedBytes() ?? sizeBytes, inFlight });
    this.#mirrors.updateCounters();
    this.#baseline.keepSnapshot();
    if (active.fenced === true && !this.#saidFenced) this.#stopForAnother();
  }

  /** Another has the volume, and goes on with its mirror too: nothing more is written from here, to no side. */
  #stopForAnother() {
    this.#saidFenced = true;
    const { epoch, active } = this.#parts.manifest.current, { name } = this.volume;
    const { context, emit } = this.#parts;
    emit(
      "volume.fenced",
      "error",
      `${name} is held by another agent since store ${active.store} refuses epoch ${epoch}: all I/O fails here, ` +
        `for good. Stop this agent, or remove ${name} from its configuration; go on with the other one`,
      { epoch, store: active.store },
    );
    const target = this.volume.link?.target;
    target?.setLossPolicy("fail");
    target?.abort();
    const stop = this.#mirrors.drop().then(() => target?.close());
    context.supervise("ending a mirror of a volume that another holds", stop);
  }

  /** @throws {PsmaError} state/mirror while there is a mirror, usage/size when smaller or above the maximum. */
  async grow(sizeBytes: number): Promise<void> {
    const { name } = this.volume;
    const most = Math.max(this.maxSizeBytes, this.#parts.manifest.current.active.size_bytes);
    if (sizeBytes < this.volume.sizeBytes || sizeBytes > most) {
      throw new PsmaError(
        "usage/size",
        `Cannot grow ${name}: ${sizeBytes} is not between its size ` +
          `${this.volume.sizeBytes} and its maximum ${this.maxSizeBytes}`,
      );
    }
    await this.#exclusively("grow", async () => {
      this.#backups.needRoom(sizeBytes);
      if (this.#isScaling) {
        throw new PsmaError("state/mirror", `Cannot grow ${name}: it is mirrored`, {
          hint: "Switch to the mirror, which is larger, or cancel it first.",
        });
      }
      await this.volume.active.grow(sizeBytes);
      await this.#parts.manifest.commit((now) => ({
        ...now,
        size_bytes: sizeBytes,
        active: { ...now.active, size_bytes: sizeBytes },
      }));
      this.volume.setSize(sizeBytes);
    });
  }

  /** @throws {PsmaError} state/exported, and what HeldFuseExport.mount throws. */
  async mountFuse(path: string): Promise<void> {
    await this.#exportFuse(async () => await HeldFuseExport.mount(this.#fuseMount(path)));
  }

  /** Goes on with what a killed server left there. @returns whether there was something, or it is done already. */
  async takeOverFuse(path: string): Promise<boolean> {
    if (this.#fuse) return true;
    await this.#exportFuse(() => HeldFuseExport.takeOver(this.#fuseMount(path)));
    return this.#fuse !== undefined;
  }

  async #exportFuse(open: () => Promise<HeldFuseExport | undefined>): Promise<void> {
    if (this.#fuse || this.#exporting) {
      throw new PsmaError("state/exported", `Cannot export ${this.volume.name}: it is already`);
    }
    this.#exporting = true;
    try {
      this.#fuse = await open();
    } finally {
      this.#exporting = false;
    }
  }

  #fuseMount(path: string): HeldFuseMount {
    const { context: { reactor, requests, arenaFd, repeats }, emit } = this.#parts;
    const volume = this.volume;
    return {
      reactor,
      requests,
      arenaFd,
      volume,
      path,
      onEnd: (error) => {
        if (this.#closing || !error) return;
        emit("export.ended", "error", `The FUSE export ended: ${error.message}`);
      },
      onEvent: (type, message) =>
        repeats.tell({ type, severity: "warning", volume: volume.name, message }),
    };
  }

  async unmountFuse(): Promise<void> {
    await this.#fuse?.close();
    this.#fuse = undefined;
  }

  /** @throws {PsmaError} state/exported, io/ublk, sys/... */
  async serveUblk(device: number, depth: number): Promise<void> {
    if (this.#ublk?.device === device) return;
    if (this.#ublk) {
      throw new PsmaError("state/exported", `Cannot export ${this.volume.name}: it is already`);
    }
    const { context: { reactor, requests }, emit } = this.#parts;
    this.#ublk = UblkExport.serve({
      reactor,
      requests,
      volume: this.volume,
      device,
      depth,
      onEnd: (error) => emit("export.ended", "error", `The ublk export ended: ${error.message}`),
    });
    await this.#ublk.begun();
  }

  /** The device has been stopped. */
  async closeUblk(): Promise<void> {
    await this.#ublk?.close();
    this.#ublk = undefined;
  }

  mirrorStatus(): MirrorStatus | null {
    const status = this.#mirrors.status();
    if (!status) return null;
    const verify = this.#verifications.status("mirror");
    return { ...status, verify: verify?.of === status.id ? verify : null };
  }

  /** There is a mirror to a larger place. */
  get #isScaling(): boolean {
    return this.#mirrors.status()?.role === "scale";
  }

  /** @throws {PsmaError} state/no-mirror */
  mirrorStatusNow(): MirrorStatus {
    const status = this.mirrorStatus();
    if (!status) throw this.#mirrors.noMirror();
    return status;
  }

  /** @throws {PsmaError} state/verify, state/no-mirror, sys/... */
  async beginVerify(start: StartVerify): Promise<VerifyStatus> {
    return await this.#verifications.begin(start);
  }

  /** @throws {PsmaError} state/no-verify */
  async stopVerify(): Promise<VerifyStatus> {
    return await this.#verifications.stop();
  }

  verifyStatus(side: StartVerify["side"]): VerifyStatus | null {
    return this.#verifications.status(side);
  }

  async startMirror(start: StartMirror): Promise<void> {
    await this.#exclusively("mirror", async () => {
      await this.#backups.freeze("the volume is mirrored to a larger place, and has one mirror");
      await this.#mirrors.start(start);
    });
  }

  async guideMirror(guidance: GuideMirror): Promise<void> {
    await this.#mirrors.guide(guidance);
  }

  async pauseMirror(paused: boolean): Promise<void> {
    await this.#mirrors.pause(paused);
  }

  async cancelMirror(): Promise<void> {
    await this.#exclusively("cancel", async () => {
      if (this.#isScaling) await this.#mirrors.cancel();
      else await this.#backups.freeze("its mirror was cancelled");
    });
  }

  async converge(timeoutMs: number): Promise<void> {
    await this.#mirrors.converge(timeoutMs);
  }

  async switchOver(timeoutMs: number, backup?: BackupOrder): Promise<CutoverReport> {
    return await this.#exclusively("switch", async () => {
      const report = await this.#switching.switchOver(timeoutMs, backup);
      this.#backups.beginsToDiffer();
      return report;
    });
  }

  async growBackup(sizeBytes: number): Promise<void> {
    await this.#exclusively("grow the backup of", () => this.#backups.grow(sizeBytes));
  }

  async freezeBackup(reason: string): Promise<void> {
    await this.#exclusively("freeze the backup of", () => this.#backups.freeze(reason));
  }

  async retireBackup(): Promise<void> {
    await this.#exclusively("retire", async () => {
      await this.#verifications.leaveBackup();
      await this.#backups.retire();
    });
  }

  /** Stops serving, flushes, and leaves everything as a restart wants to find it. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#backups.end();
    await this.unmountFuse();
    // One that was not stopped waits for the next process.
    this.#ublk?.abandon();
    await this.volume.close();
    this.#switching.beginClose();
    const targets = [this.volume.link?.target];
    await this.#verifications.close();
    await this.#mirrors.drop();
    await this.#idle();
    // A change that came to its end meanwhile may have begun another.
    targets.push(this.volume.link?.target);
    await this.#mirrors.drop();
    await this.#parts.context.calls.flush(this.volume.active);
    await this.#switching.close();
    await this.#parts.manifest.close();
    for (const target of new Set(targets)) {
      if (target !== this.volume.active) await target?.close();
    }
    await this.volume.active.close();
    this.#parts.claim[Symbol.dispose]();
  }

  /** Waits for a change that is under way: without its mirror, and with its commit given up, it ends soon. */
  async #idle() {
    const { reactor, clock } = this.#parts.context;
    const deadlineMs = clock.monotonicMs() + CLOSE_WITHIN_MS;
    while (this.#busy !== undefined && clock.monotonicMs() < deadlineMs) {
      await reactor.sleep(CLOSE_POLL_MS);
    }
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
}
