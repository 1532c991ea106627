/**
 * What a FUSE export is made of, and the making of its connection. mount(2) returns before the kernel's first request is answered,
 * so that the serving thread itself may call it.
 */
import { type Clock, PsmaError } from "../core/mod.ts";
import {
  closeFile,
  cString,
  errno,
  fileSize,
  FUSE_TYPE,
  libc,
  mountsAt,
  openFile,
  type Reactor,
  sysError,
} from "../sys/mod.ts";
import type { Requests } from "../volume/mod.ts";

const O_RDWR = 2, O_NONBLOCK = 0o4000, O_CLOEXEC = 0o2000000;
const MS_NOSUID = 2n, MS_NODEV = 4n;

/** What an export needs of a volume. */
export interface FuseVolume {
  readonly name: string;
  readonly sizeBytes: number;
  submit(slot: number): void;
}

export interface FuseMount {
  readonly reactor: Reactor;
  readonly requests: Requests;
  readonly volume: FuseVolume;
  /** An empty regular file, made when absent; the volume appears in its place. */
  readonly path: string;
  /** Called once when the kernel, not `close`, ended the connection: without an error after an unmount. */
  readonly onEnd: (error?: PsmaError) => void;
  readonly clock?: Clock;
}

/** @returns the descriptor of the mounted connection. @throws {PsmaError} as FuseExport.mount says. */
export function mountFuseFile(path: string, maxIoBytes: number): number {
  makeEmptyFile(path);
  const fd = libc().open(cString("/dev/fuse"), O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
  if (fd < 0) throw sysError("open /dev/fuse", errno());
  const data = `fd=${fd},rootmode=100000,user_id=0,group_id=0,max_read=${maxIoBytes},` +
    "default_permissions,allow_other";
  const result = libc().mount(
    cString("psma"),
    cString(path),
    cString(FUSE_TYPE),
    MS_NOSUID | MS_NODEV,
    cString(data),
  );
  if (result < 0) {
    const code = errno();
    closeFile(fd);
    throw sysError(`mount a file system on ${path}`, code);
  }
  return fd;
}

/** Looks for mounts first: opening a file that this very thread serves would never return. */
function makeEmptyFile(path: string): void {
  if (mountsAt(path).length > 0) {
    throw new PsmaError("state/mounted", `Cannot mount on ${path}: something is mounted there`, {
      hint: "Detach the volume first.",
    });
  }
  const fd = openFile(path, { create: true });
  try {
    if (fileSize(fd) > 0) {
      throw new PsmaError("state/not-empty", `Cannot mount on ${path}: the file is not empty`, {
        hint: "Name an empty file, or one that does not exist.",
      });
    }
  } finally {
    closeFile(fd);
  }
}
