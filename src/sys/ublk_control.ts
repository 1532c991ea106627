/**
 * Making, starting, finding and deleting ublk devices: commands to /dev/ublk-control on a small ring of their
 * own, whose entries have the 128 bytes that these commands need.
 *
 * A command returns when the driver has done it, and some wait for the device's I/O: starting reads its
 * partition table, stopping waits for requests in service, deleting for the server to close its end. So none of
 * them, but for asking, belongs into the process that serves the device: they are host tasks.
 *
 * Faults: an interrupted wait goes on; a refusal is an error with the driver's errno.
 */
import { PsmaError, systemClock } from "../core/mod.ts";
import {
  CQE_BYTES,
  decodeUblkDevice,
  encodeUblkControl,
  encodeUblkDevice,
  encodeUblkParameters,
  ENTER,
  OFFSET_SQ_RING,
  OFFSET_SQES,
  PARAMS_BYTES,
  PARAMS_U32,
  SECTOR_BYTES,
  SETUP,
  UBLK_ANY_DEVICE,
  UBLK_CONTROL,
  UBLK_CONTROL_AT,
  UBLK_DEVICE_BYTES,
  UBLK_FEATURE,
  UBLK_FEATURES_BYTES,
  UBLK_PARAMETERS_BYTES,
  type UblkControl,
  type UblkDevice,
  type UblkParameters,
  URING_OP,
} from "../codec/mod.ts";
import { mustSucceed } from "./attempt.ts";
import { type Descriptor, openDescriptor } from "./descriptor.ts";
import { errno, libc, sysError } from "./libc.ts";
import { allocateMemory, mapRing, type Memory, unmapMemory } from "./memory.ts";

/** There while the driver is loaded. */
export const UBLK_CONTROL_PATH = "/dev/ublk-control";
const SYS_IO_URING_SETUP = 425n, SYS_IO_URING_ENTER = 426n;
const ENTRIES = 2, SQE128_BYTES = 128;
const O_RDWR = 2;
const ENOENT = 2, EINTR = 4, EAGAIN = 11, EBUSY = 16, ENODEV = 19, EINVAL = 22, EOPNOTSUPP = 95;
/** What drivers that do not know a question answer. */
const NOT_KNOWN: readonly number[] = [EOPNOTSUPP, ENODEV, EINVAL];
/** The driver waits half a minute before it gives up a request that a dead server had in service. */
const RECOVERY_WITHIN_MS = 90_000, RECOVERY_EVERY_MS = 20;

/** Flags of every device of ours: without them a killed agent is an I/O error for its users. */
export const UBLK_DEVICE_FLAGS: bigint = UBLK_FEATURE.userRecovery | UBLK_FEATURE.recoveryReissue |
  UBLK_FEATURE.ioctlEncoding | UBLK_FEATURE.userCopy;

export interface AddUblk {
  readonly depth: number;
  readonly maxIoBytes: number;
  /** Kept by the driver: how a device is known as one's own. */
  readonly cookie: bigint;
}

export class UblkControlRing implements Disposable {
  readonly #control: Descriptor;
  readonly #ring: SmallRing;
  readonly #record: Memory;
  readonly #view: DataView;

  /** @throws {PsmaError} sys/permission, sys/errno-N without the driver or io_uring. */
  constructor() {
    this.#control = openDescriptor(UBLK_CONTROL_PATH, O_RDWR);
    this.#ring = new SmallRing();
    this.#record = allocateMemory(4096);
    this.#view = new DataView(this.#record.bytes.buffer);
  }

  /** @returns UBLK_FEATURE bits that the driver knows; none where it is older than the question (Linux 6.5). */
  features(): bigint {
    const result = this.#run(UBLK_CONTROL.getFeatures, {
      device: UBLK_ANY_DEVICE,
      address: this.#record.address,
      length: UBLK_FEATURES_BYTES,
    });
    if (NOT_KNOWN.includes(-result)) return 0n;
    if (result < 0) throw sysError("ask the ublk driver for its features", result);
    return this.#view.getBigUint64(0, true);
  }

  /** Makes a device that cannot be used before it is started. @returns what the driver made of it. */
  add({ depth, maxIoBytes, cookie }: AddUblk): UblkDevice {
    encodeUblkDevice(this.#view, 0, {
      queues: 1,
      depth,
      state: 0,
      maxIoBytes,
      device: UBLK_ANY_DEVICE,
      pid: -1,
      flags: UBLK_DEVICE_FLAGS,
      cookie,
    });
    this.#must("add a ublk device", UBLK_CONTROL.addDevice, {
      device: UBLK_ANY_DEVICE,
      address: this.#record.address,
      length: UBLK_DEVICE_BYTES,
    });
    return decodeUblkDevice(this.#view, 0);
  }

  setParameters(device: number, parameters: UblkParameters): void {
    encodeUblkParameters(this.#view, 0, parameters);
    this.#must(`set up ublk device ${device}`, UBLK_CONTROL.setParameters, {
      device,
      address: this.#record.address,
      length: UBLK_PARAMETERS_BYTES,
    });
  }

  /** Waits until the server has fetched every tag. @param pid the server's process. */
  start(device: number, pid: number): void {
    const doing = `start ublk device ${device}`;
    this.#must(doing, UBLK_CONTROL.startDevice, { device, data: pid });
  }

  /** Ends the block device; its requests fail from here on. Nothing when it was not started. */
  stop(device: number): void {
    this.#check(`stop ublk device ${device}`, this.#run(UBLK_CONTROL.stopDevice, { device }));
  }

  /**
   * Stops it where it runs, and deletes it when its last user has let go, be that its server or a program that
   * has it open: waits for neither where the driver can leave it at that (Linux 6.8).
   */
  delete(device: number): void {
    const doing = `delete ublk device ${device}`;
    const result = this.#run(UBLK_CONTROL.deleteDeviceLater, { device });
    if (!NOT_KNOWN.includes(-result)) return this.#check(doing, result);
    this.#check(doing, this.#run(UBLK_CONTROL.deleteDevice, { device }));
  }

  /** @returns undefined when there is no such device, or none that /dev shows to this process. */
  info(device: number): UblkDevice | undefined {
    const path = new TextEncoder().encode(`${ublkServerPath(device)}\0`);
    this.#record.bytes.set(path);
    const result = this.#run(UBLK_CONTROL.getDeviceInfo, {
      device,
      address: this.#record.address,
      length: path.length + UBLK_DEVICE_BYTES,
      pathLength: path.length,
    });
    if (result === -ENODEV || result === -ENOENT) return undefined;
    if (result < 0) throw sysError(`look at ublk device ${device}`, result);
    return decodeUblkDevice(this.#view, path.length);
  }

  /** @throws {PsmaError} where the driver is older than Linux 6.16. */
  updateSize(device: number, sizeBytes: number): void {
    this.#must(`resize ublk device ${device}`, UBLK_CONTROL.updateSize, {
      device,
      data: sizeBytes / SECTOR_BYTES,
    });
  }

  /**
   * Begins to take over a device whose server has died. Waits until the driver has noticed.
   * @throws {PsmaError} state/served when its server goes on living.
   */
  async startRecovery(device: number): Promise<void> {
    const deadlineMs = systemClock.monotonicMs() + RECOVERY_WITHIN_MS;
    for (;;) {
      const result = this.#run(UBLK_CONTROL.startRecovery, { device });
      // EINVAL: a server that was killed in its turn has begun the take-over, and fetched nothing since.
      if (result >= 0 || result === -EINVAL) return;
      if (result !== -EBUSY) throw sysError(`take over ublk device ${device}`, result);
      if (systemClock.monotonicMs() > deadlineMs) {
        throw new PsmaError(
          "state/served",
          `Cannot take over ublk device ${device}: it is served`,
          {
            hint:
              "Another process serves it; end that one, or attach with a state_dir of your own.",
          },
        );
      }
      await systemClock.sleep(RECOVERY_EVERY_MS);
    }
  }

  /** Lets requests go to the new server, which has fetched every tag. @param pid its process. */
  endRecovery(device: number, pid: number): void {
    const doing = `go on with ublk device ${device}`;
    this.#must(doing, UBLK_CONTROL.endRecovery, { device, data: pid });
  }

  [Symbol.dispose](): void {
    this.#ring.close();
    unmapMemory(this.#record);
    this.#control[Symbol.dispose]();
  }

  #must(doing: string, command: number, argument: UblkControl): void {
    const result = this.#run(command, argument);
    if (result < 0) throw sysError(doing, result);
  }

  /** A device that is gone already is as it should be. */
  #check(doing: string, result: number): void {
    if (result < 0 && result !== -ENODEV) throw sysError(doing, result);
  }

  #run(command: number, argument: UblkControl): number {
    return this.#ring.run(this.#control.fd, command, argument);
  }
}

/** The server's end of a device. */
export function ublkServerPath(device: number): string {
  return `/dev/ublkc${device}`;
}

/** The block device itself. */
export function ublkBlockPath(device: number): string {
  return `/dev/ublkb${device}`;
}

/**
 * Finds a device by its cookie, among all there are. @returns undefined when there is none.
 * @throws {PsmaError} sys/permission, sys/errno-N.
 */
export function findUblk(control: UblkControlRing, cookie: bigint): UblkDevice | undefined {
  for (const device of ublkNumbers()) {
    const info = control.info(device);
    if (info?.cookie === cookie) return info;
  }
  return undefined;
}

/** Numbers of all devices that the driver has, ascending. */
function ublkNumbers(): number[] {
  try {
    return [...Deno.readDirSync("/sys/class/ublk-char")]
      .flatMap(({ name }) => /^ublkc(\d+)$/.exec(name)?.[1] ?? [])
      .map(Number)
      .sort((a, b) => a - b);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** A ring for one command at a time. */
class SmallRing {
  readonly #fd: number;
  readonly #ring: Memory;
  readonly #sqes: Memory;
  readonly #sqe: DataView;
  readonly #sqTail: Uint32Array;
  readonly #sqMask: number;
  readonly #cqHead: Uint32Array;
  readonly #cqTail: Uint32Array;
  readonly #cqMask: number;
  readonly #cqesAt: number;

  constructor() {
    const params = new Uint32Array(PARAMS_BYTES / 4);
    params[PARAMS_U32.flags] = SETUP.sqe128;
    const bytes = new Uint8Array(params.buffer as ArrayBuffer);
    this.#fd = mustSucceed(
      "set up io_uring",
      () => Number(libc().syscall2(SYS_IO_URING_SETUP, BigInt(ENTRIES), bytes)),
    );
    const at = (field: keyof typeof PARAMS_U32) => params[PARAMS_U32[field]] as number;
    const sqEntries = at("sqEntries"), cqEntries = at("cqEntries");
    this.#cqesAt = at("cqOffCqes");
    const arrayEnd = at("sqOffArray") + sqEntries * 4;
    const ringBytes = Math.max(arrayEnd, this.#cqesAt + cqEntries * CQE_BYTES);
    this.#ring = mapRing(this.#fd, ringBytes, OFFSET_SQ_RING);
    this.#sqes = mapRing(this.#fd, sqEntries * SQE128_BYTES, OFFSET_SQES);
    this.#sqe = new DataView(this.#sqes.bytes.buffer);
    const word = (offset: number) => new Uint32Array(this.#ring.bytes.buffer, offset, 1);
    this.#sqTail = word(at("sqOffTail"));
    this.#sqMask = word(at("sqOffMask"))[0] as number;
    this.#cqHead = word(at("cqOffHead"));
    this.#cqTail = word(at("cqOffTail"));
    this.#cqMask = word(at("cqOffMask"))[0] as number;
    const array = new Uint32Array(this.#ring.bytes.buffer, at("sqOffArray"), sqEntries);
    for (let i = 0; i < sqEntries; i++) array[i] = i;
  }

  /** @returns what the driver answered: a negative errno when it refused. */
  run(fd: number, command: number, argument: UblkControl): number {
    const tail = Atomics.load(this.#sqTail, 0);
    const at = (tail & this.#sqMask) * SQE128_BYTES;
    for (let i = 0; i < SQE128_BYTES; i += 4) this.#sqe.setUint32(at + i, 0, true);
    this.#sqe.setUint8(at, URING_OP.driverCommand);
    this.#sqe.setInt32(at + 4, fd, true);
    this.#sqe.setUint32(at + 8, command, true);
    encodeUblkControl(this.#sqe, at + UBLK_CONTROL_AT, argument);
    Atomics.store(this.#sqTail, 0, (tail + 1) >>> 0);
    this.#enter(1);
    const head = Atomics.load(this.#cqHead, 0);
    while (Atomics.load(this.#cqTail, 0) === head) this.#enter(0);
    const cqe = this.#cqesAt + (head & this.#cqMask) * CQE_BYTES;
    const result = new DataView(this.#ring.bytes.buffer).getInt32(cqe + 8, true);
    Atomics.store(this.#cqHead, 0, (head + 1) >>> 0);
    return result;
  }

  /** What was submitted is answered with its count, so a call that failed has submitted nothing: it is repeated. */
  #enter(submit: number): void {
    const enter = libc().ioUringEnter;
    for (;;) {
      const result = enter(SYS_IO_URING_ENTER, this.#fd, submit, 1, ENTER.getEvents, 0n, 0n);
      if (result >= 0) return;
      const code = errno();
      if (code !== EINTR && code !== EAGAIN) throw sysError("wait for a ublk command", code);
    }
  }

  close(): void {
    libc().close(this.#fd);
    unmapMemory(this.#ring);
    unmapMemory(this.#sqes);
  }
}
