/** What a FUSE export is made of, and the making of its connection. */
import { type Clock, PsmaError } from "../../core/mod.ts";
import { closeFile, fileSize, mountFuse, mountsAt, openFile, type Reactor } from "../../sys/mod.ts";
import type { Requests } from "../../volume/mod.ts";

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
  return mountFuse(path, maxIoBytes);
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
