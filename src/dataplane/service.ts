/** The data plane's commands: finds the volume, does the work, answers or refuses. Runs on its own thread. */
import {
  type Clock,
  type MemorySource,
  PsmaError,
  type Rng,
  systemClock,
  systemRng,
  toPsmaError,
} from "../core/mod.ts";
import { BackendCalls, BatchClock, Operations } from "../backend/mod.ts";
import { createHeldArena, NbdServer } from "../frontend/mod.ts";
import type { Digest } from "../mirror/mod.ts";
import { mappedMemory, type Reactor } from "../sys/mod.ts";
import { Requests, slotBytes } from "../volume/mod.ts";
import type { DataPlaneContext } from "./context.ts";
import { Devices } from "./devices.ts";
import { DiskFiles } from "./disk_files.ts";
import type {
  CommandName,
  Commands,
  DataPlaneEvent,
  FromWorker,
  OpenVolume,
  ServeNbd,
  StartMirror,
} from "./messages.ts";
import type { Ask } from "./questioner.ts";
import { Repeats } from "./repeats.ts";
import { digestExtents } from "./digests.ts";
import { geometryOf } from "./geometry.ts";
import { restoreBackup } from "./restore.ts";
import { claimBack } from "./volume_claim.ts";
import { ServedVolume } from "./served_volume.ts";

/** Of copiers, digests and the like, all volumes together. */
const CALLS_MAX = 1024;
const HOUSEKEEPING_MS = 1000;
/** How long a store may take to answer what is in flight when its volume is let go. */
const LET_GO_WITHIN_MS = 5000;

export interface ServiceOptions {
  readonly reactor: Reactor;
  readonly digest: Digest;
  readonly slots: number;
  readonly maxIo: number;
  /** Requests are kept where the next process can replay them. */
  readonly replay: boolean;
  readonly post: (message: FromWorker) => void;
  readonly ask: Ask;
}

type Handlers = {
  [Name in CommandName]: (
    argument: Commands[Name]["argument"],
  ) => Promise<Commands[Name]["answer"]> | Commands[Name]["answer"];
};

export class Service implements DataPlaneContext {
  readonly reactor: Reactor;
  readonly operations: Operations;
  readonly requests: Requests;
  readonly arenaFd: number | undefined;
  readonly calls: BackendCalls;
  readonly clock: Clock = systemClock;
  readonly batchClock: BatchClock;
  readonly rng: Rng = systemRng;
  readonly memory: MemorySource = mappedMemory;
  readonly files: DiskFiles;
  readonly digest: Digest;
  readonly ask: Ask;
  readonly repeats: Repeats;
  readonly #volumes = new Map<string, ServedVolume>();
  readonly #opening = new Set<string>();
  readonly #devices: Devices;
  #nbd: NbdServer | undefined;
  #stopping = false;

  constructor(readonly options: ServiceOptions) {
    this.reactor = options.reactor;
    this.files = new DiskFiles(options.reactor);
    this.digest = options.digest;
    this.ask = options.ask;
    this.repeats = new Repeats(this.clock, (event) => this.emit(event));
    const { slots, maxIo } = options;
    this.batchClock = new BatchClock(this.clock, options.reactor);
    this.operations = new Operations(2 * slots + CALLS_MAX, this.batchClock);
    const held = options.replay ? createHeldArena(slots, maxIo) : undefined;
    this.arenaFd = held?.fd;
    const arena = held?.memory ?? this.memory.allocate(slots * slotBytes(maxIo));
    this.requests = new Requests(arena, slots, maxIo);
    this.calls = new BackendCalls(this.operations, this.reactor, CALLS_MAX);
    this.#devices = new Devices(this.reactor, this.operations, this.calls, this.ask);
    this.supervise("housekeeping", this.#keepHouse());
  }

  /** Lets a task run on its own; its failure becomes an event. */
  supervise(name: string, task: Promise<unknown>): void {
    task.catch((error) => {
      const { code, message } = toPsmaError(error);
      this.emit({
        type: "task.failed",
        severity: "error",
        message: `${name} failed: ${message}`,
        data: { code },
      });
    });
  }

  /** Starts a command; its outcome is posted when it ends. Never throws. */
  handle(seq: number, name: CommandName, argument: unknown): void {
    this.reactor.wake();
    this.#run(name, argument).then(
      (value) => this.options.post({ kind: "outcome", seq, outcome: { ok: true, value } }),
      (error) => {
        const failure = toPsmaError(error).toRecord();
        this.options.post({ kind: "outcome", seq, outcome: { ok: false, error: failure } });
      },
    );
  }

  emit(event: Omit<DataPlaneEvent, "at_ms">): void {
    this.options.post({ kind: "event", event: { at_ms: this.clock.nowMs(), ...event } });
  }

  async #run(name: CommandName, argument: unknown): Promise<unknown> {
    if (this.#stopping) throw new PsmaError("unavailable/stopping", `Cannot ${name}: stopping`);
    const handler = this.#handlers[name] as (argument: unknown) => unknown;
    return await handler(argument);
  }

  readonly #handlers: Handlers = {
    openVolume: (open) => this.#openVolume(open),
    closeVolume: async ({ name }) => {
      const served = this.#volume(name);
      await this.#letGo(served, async () => {
        await this.#nbd?.removeExport(name);
        await served.close();
      });
      this.#volumes.delete(name);
      return null;
    },
    volumeStatus: ({ name }) => this.#volume(name).status(this.#nbdUri(name)),
    setMaxSize: ({ name, max_size_bytes }) => {
      this.#volume(name).maxSizeBytes = max_size_bytes;
      return null;
    },
    growVolume: async ({ name, size_bytes }) => {
      const served = this.#volume(name);
      await served.grow(size_bytes);
      return served.status(this.#nbdUri(name));
    },
    serveNbd: (serve) => this.#serveNbd(serve),
    exportNbd: ({ name, description, epoch = 0 }) => {
      const server = this.#nbd;
      if (!server) {
        throw new PsmaError("state/nbd", `Cannot export ${name}: no NBD server is listening`);
      }
      server.addExport({ name, description, volume: this.#volume(name).volume, epoch });
      return { uri: server.uri(name) };
    },
    nbdStatistics: () => this.#nbd?.statistics() ?? null,
    nbdSessions: ({ name }) => ({ sessions: this.#nbd?.sessionCount(name) ?? 0 }),
    unexportNbd: async ({ name }) => {
      const served = this.#volumes.get(name);
      const remove = async () => await this.#nbd?.removeExport(name);
      await (served ? this.#letGo(served, remove) : remove());
      return null;
    },
    exportFuse: async ({ name, path }) => {
      await this.#volume(name).mountFuse(path);
      return null;
    },
    takeOverFuse: async ({ name, path }) => ({
      taken: await this.#volume(name).takeOverFuse(path),
    }),
    unexportFuse: async ({ name }) => {
      await this.#volume(name).unmountFuse();
      return null;
    },
    volumeGeometry: ({ name }) => geometryOf(this.#volume(name), this),
    exportUblk: async ({ name, device, depth }) => {
      await this.#volume(name).serveUblk(device, depth);
      return null;
    },
    unexportUblk: async ({ name }) => {
      await this.#volume(name).closeUblk();
      return null;
    },
    startMirror: async (start: StartMirror) => {
      const served = this.#volume(start.volume);
      await served.startMirror(start);
      return served.mirrorStatusNow();
    },
    mirrorStatus: ({ volume }) => this.#volume(volume).mirrorStatus(),
    pauseMirror: async ({ volume }) => {
      const served = this.#volume(volume);
      await served.pauseMirror(true);
      return served.mirrorStatusNow();
    },
    resumeMirror: async ({ volume }) => {
      const served = this.#volume(volume);
      await served.pauseMirror(false);
      return served.mirrorStatusNow();
    },
    guideMirror: async (guidance) => {
      await this.#volume(guidance.volume).guideMirror(guidance);
      return null;
    },
    cancelMirror: async ({ volume }) => {
      await this.#volume(volume).cancelMirror();
      return null;
    },
    beginVerify: (start) => this.#volume(start.volume).beginVerify(start),
    verifyStatus: ({ volume, side }) => this.#volume(volume).verifyStatus(side),
    stopVerify: ({ volume }) => this.#volume(volume).stopVerify(),
    convergeMirror: async ({ volume, timeout_ms }) => {
      const served = this.#volume(volume);
      await served.converge(timeout_ms);
      return served.mirrorStatusNow();
    },
    switchVolume: ({ volume, timeout_ms, backup }) =>
      this.#volume(volume).switchOver(timeout_ms, backup),
    growBackup: async ({ volume, size_bytes }) => {
      await this.#volume(volume).growBackup(size_bytes);
      return null;
    },
    freezeBackup: async ({ volume, reason }) => {
      await this.#volume(volume).freezeBackup(reason);
      return null;
    },
    restoreBackup: ({ name, directory }) => {
      this.#needClosed(name, "go back to the backup of");
      return restoreBackup(directory, this);
    },
    claimVolume: ({ name, directory }) => {
      this.#needClosed(name, "claim");
      return claimBack(directory, this);
    },
    retireBackup: async ({ volume }) => {
      await this.#volume(volume).retireBackup();
      return null;
    },
    digestExtents: async ({ name, extents }) => {
      const { active } = this.#volume(name).volume;
      // What a writer that was cut has left behind lands before it is compared, not after.
      await this.#nbd?.drained(name);
      return await digestExtents(active, extents, this.calls, this.digest);
    },
    promote: async ({ name, epoch }) => {
      this.#volume(name);
      await this.#nbd?.promote(name, epoch);
      return { epoch };
    },
    openDevice: ({ uri, tls }) => this.#devices.open(uri, tls),
    readDevice: ({ device, at, length }) => this.#devices.read(device, at, length),
    writeDevice: async ({ device, at, bytes }) => {
      await this.#devices.write(device, at, new Uint8Array(bytes));
      return null;
    },
    flushDevice: async ({ device }) => {
      await this.#devices.flush(device);
      return null;
    },
    closeDevice: async ({ device }) => {
      await this.#devices.close(device);
      return null;
    },
    stop: () => this.#stop(),
  };

  #volume(name: string): ServedVolume {
    const served = this.#volumes.get(name);
    if (!served) {
      throw new PsmaError("not-found/volume", `Cannot find volume ${name}: it is not open`);
    }
    return served;
  }

  #needClosed(name: string, verb: string) {
    if (!this.#volumes.has(name) && !this.#opening.has(name)) return;
    throw new PsmaError("state/open", `Cannot ${verb} ${name}: it is open`);
  }

  async #openVolume(open: OpenVolume) {
    this.#needClosed(open.name, "open");
    this.#opening.add(open.name);
    try {
      const served = await ServedVolume.open(open, this);
      this.#volumes.set(open.name, served);
      // Whoever looks at the page right away sees its levels, not zeros.
      served.keepHouse();
      this.options.post({
        kind: "counters",
        volume: open.name,
        page: served.volume.counters.page,
      });
      return served.status(undefined);
    } finally {
      this.#opening.delete(open.name);
    }
  }

  /**
   * Ends the use of a volume without waiting for ever for a store, or a write-intent log's disk, that is away or
   * does not answer: what it has not acknowledged was not acknowledged to anybody, and who had asked is cut off
   * or gone.
   */
  async #letGo(served: ServedVolume, work: () => Promise<void>): Promise<void> {
    let done = false;
    const giveUp = () => {
      if (done) return;
      // Asked now, not before: a cutover may have come to its end meanwhile.
      const { active, link } = served.volume;
      for (const backend of [active, link?.target]) {
        backend?.setLossPolicy("fail");
        backend?.abort();
      }
      served.volume.refuseCold(true);
    };
    if (served.volume.active.connected) this.reactor.sleep(LET_GO_WITHIN_MS).then(giveUp);
    else giveUp();
    try {
      await work();
    } finally {
      done = true;
      served.volume.active.setLossPolicy("hold");
      served.volume.refuseCold(false);
    }
  }

  #serveNbd(serve: ServeNbd) {
    if (this.#nbd) throw new PsmaError("state/nbd", "Cannot listen: the NBD server is running");
    const { listen, ...rules } = serve;
    const server = new NbdServer({
      reactor: this.reactor,
      requests: this.requests,
      ...rules,
      onEvent: (event) => this.repeats.tell(event),
    });
    const address = server.listen(listen);
    this.#nbd = server;
    return { address };
  }

  #nbdUri(name: string): string | undefined {
    return this.#nbd?.hasExport(name) ? this.#nbd.uri(name) : undefined;
  }

  async #keepHouse() {
    while (!this.#stopping) {
      await this.reactor.sleep(HOUSEKEEPING_MS);
      for (const served of this.#volumes.values()) served.keepHouse();
      this.repeats.keepHouse();
    }
  }

  async #stop(): Promise<null> {
    this.#stopping = true;
    await this.#devices.closeAll();
    const unexported = this.#nbd?.close();
    const close = async (served: ServedVolume) => {
      await unexported;
      await served.close();
    };
    await Promise.all(
      [...this.#volumes.values()].map((served) => this.#letGo(served, () => close(served))),
    );
    await unexported;
    this.reactor.stop();
    return null;
  }
}
