/** The kernel's end of a FUSE export: mounting a connection and taking requests from it. */
import { attempt, mustSucceed } from "./attempt.ts";
import { closeFile } from "./files.ts";
import { cString, errno, libc, sysError } from "./libc.ts";
import { FUSE_TYPE } from "./mountinfo.ts";

const O_RDWR = 2, O_NONBLOCK = 0o4000, O_CLOEXEC = 0o2000000;
const POLLIN = 1, POLLERR = 8;
const MS_NOSUID = 2n, MS_NODEV = 4n;

/**
 * Mounts a one-file file system on an empty regular file. Returns before the kernel's first request is
 * answered, so that the serving thread itself may call it.
 * @returns the connection's descriptor, which does not block. @throws {PsmaError} sys/permission, sys/errno-N.
 */
export function mountFuse(path: string, maxIoBytes: number): number {
  const device = cString("/dev/fuse"), flags = O_RDWR | O_NONBLOCK | O_CLOEXEC;
  const fd = mustSucceed("open /dev/fuse", () => libc().open(device, flags, 0));
  const data = cString(
    `fd=${fd},rootmode=100000,user_id=0,group_id=0,max_read=${maxIoBytes},` +
      "default_permissions,allow_other",
  );
  const source = cString("psma"), at = cString(path), type = cString(FUSE_TYPE);
  const result = attempt(() => libc().mount(source, at, type, MS_NOSUID | MS_NODEV, data));
  if (result >= 0) return fd;
  closeFile(fd);
  throw sysError(`mount a file system on ${path}`, result);
}

/** Hot path. Takes one request. @returns its bytes, 0 at the end, or a negative errno. */
export function readFuse(fd: number, into: Uint8Array<ArrayBuffer>, length: number): number {
  const result = libc().readInto(fd, into, length);
  return result < 0 ? -errno() : result;
}

/** Gives the kernel an answer or a notice at once. @returns 0, or a negative errno. */
export function writeFuse(fd: number, message: Uint8Array<ArrayBuffer>): number {
  const result = libc().write(fd, message, BigInt(message.length));
  return result < 0 ? -errno() : 0;
}

/** Hot path. Answers a request from `address`. @returns 0, or a negative errno. */
export function replyFuse(fd: number, address: number, length: number): number {
  return libc().writeNow(fd, BigInt(address), length) < 0 ? -errno() : 0;
}

/** Whether the connection still stands: neither unmounted for good nor aborted. */
export function isFuseConnected(fd: number): boolean {
  const poll = new Uint8Array(8), view = new DataView(poll.buffer);
  view.setInt32(0, fd, true);
  view.setInt16(4, POLLIN, true);
  libc().poll(poll, 1n, 0);
  return (view.getInt16(6, true) & POLLERR) === 0;
}
