/**
 * File access of DuckDB-wasm for one database file, with durability at checkpoints only.
 *
 * The stock runtime of duckdb-wasm 1.32 loses data: it answers "no such file" to every optional open,
 * so that the write-ahead log is never replayed, and its syncs do nothing. Here the write-ahead log is a
 * sink on purpose and the database file is the only file there is. DuckDB writes the blocks of a
 * checkpoint first and then flips one of two header blocks; a data sync before and after each header
 * write makes that flip atomic. What was committed after the last CHECKPOINT is lost when the process
 * dies: the sample journal holds it.
 *
 * Faults expected: a process killed at any instruction, a full disk, a damaged file. Not defended
 * against: two processes on one file (the forecaster takes a lock first) and a disk that lies about syncs.
 */
import fs from "node:fs";
import {
  type DuckDBModule,
  type DuckDBRuntime,
  failWith,
  FileFlags,
  NODE_RUNTIME,
  readString,
} from "@duckdb/duckdb-wasm/blocking";

/** The part of the emscripten module that the package's own types leave to a package we do not have. */
interface Heap {
  readonly HEAPU8: Uint8Array;
  readonly HEAPF64: Float64Array;
  _malloc(bytes: number): number;
}
const heapOf = (mod: DuckDBModule) => mod as unknown as Heap;

/** Main header and the two database headers, 4 KiB each, precede the first block. */
const HEADERS_END = 3 * 4096;

/** @param databasePath absolute path of the only file that really exists for the database. */
export function checkpointRuntime(databasePath: string): DuckDBRuntime {
  const descriptors = new Map<number, number>();

  const guard = <T>(mod: DuckDBModule, fallback: T, work: () => T): T => {
    try {
      return work();
    } catch (error) {
      failWith(mod, error instanceof Error ? error.message : String(error));
      return fallback;
    }
  };
  const exists = (mod: DuckDBModule, at: number, length: number) =>
    readString(mod, at, length) === databasePath && fs.existsSync(databasePath);

  return {
    ...NODE_RUNTIME,
    openFile: (mod, fileId, flags) =>
      guard(mod, 0, () => {
        NODE_RUNTIME._fileInfoCache.delete(fileId);
        const path = NODE_RUNTIME.resolveFileInfo(mod, fileId)?.dataUrl;
        const optional = (flags & FileFlags.FILE_FLAGS_NULL_IF_NOT_EXISTS) !== 0;
        if (path !== databasePath) return optional ? 0 : fileHandle(mod, 0);
        if (optional && !fs.existsSync(path)) return 0;
        const descriptor = fs.openSync(path, fs.constants.O_CREAT | fs.constants.O_RDWR, 0o600);
        descriptors.set(fileId, descriptor);
        return fileHandle(mod, fs.fstatSync(descriptor).size);
      }),
    closeFile: (mod, fileId) =>
      guard(mod, 0, () => {
        NODE_RUNTIME._fileInfoCache.delete(fileId);
        const descriptor = descriptors.get(fileId);
        descriptors.delete(fileId);
        if (descriptor !== undefined) fs.closeSync(descriptor);
        return 0;
      }),
    readFile: (mod, fileId, buffer, bytes, location) =>
      guard(mod, 0, () => {
        const descriptor = descriptors.get(fileId);
        return descriptor === undefined
          ? 0
          : readFully(descriptor, heapOf(mod).HEAPU8, buffer, bytes, location);
      }),
    writeFile: (mod, fileId, buffer, bytes, location) =>
      guard(mod, 0, () => {
        const descriptor = descriptors.get(fileId);
        if (descriptor === undefined) return bytes;
        const header = location < HEADERS_END;
        if (header) fs.fdatasyncSync(descriptor);
        writeFully(descriptor, heapOf(mod).HEAPU8, buffer, bytes, location);
        if (header) fs.fdatasyncSync(descriptor);
        return bytes;
      }),
    truncateFile: (mod, fileId, size) =>
      guard(mod, 0, () => {
        const descriptor = descriptors.get(fileId);
        if (descriptor !== undefined) fs.ftruncateSync(descriptor, size);
        return 0;
      }),
    getLastFileModificationTime: (mod, fileId) =>
      guard(mod, 0, () => {
        const descriptor = descriptors.get(fileId);
        return descriptor === undefined ? 0 : fs.fstatSync(descriptor).mtimeMs / 1000;
      }),
    checkFile: exists,
    checkDirectory: () => false,
    createDirectory: () => 0,
    removeDirectory: () => 0,
    removeFile: () => 0,
    moveFile: () => true,
    glob: () => 0,
  };
}

/** The pair DuckDB-wasm expects for an opened file: size, and the address of its contents (none). */
function fileHandle(mod: DuckDBModule, size: number): number {
  const heap = heapOf(mod);
  const at = heap._malloc(16);
  heap.HEAPF64[at >> 3] = size;
  heap.HEAPF64[(at >> 3) + 1] = 0;
  return at;
}

function readFully(
  descriptor: number,
  heap: Uint8Array,
  at: number,
  bytes: number,
  location: number,
): number {
  let done = 0;
  while (done < bytes) {
    const got = fs.readSync(descriptor, heap, at + done, bytes - done, location + done);
    if (got === 0) break;
    done += got;
  }
  return done;
}

function writeFully(
  descriptor: number,
  heap: Uint8Array,
  at: number,
  bytes: number,
  location: number,
): void {
  for (let done = 0; done < bytes;) {
    done += fs.writeSync(descriptor, heap, at + done, bytes - done, location + done);
  }
}
