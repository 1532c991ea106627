/**
 * What a volume needs of a file system for its own files: manifest, change map, write-intent log and the like.
 * Whoever composes the data plane brings it: real files, or a simulated disk that can lose power.
 */
import type { Memory } from "../core/mod.ts";

/** A file's bytes as memory: a store there is in the file at once, and outlives this process. */
export interface MappedFile extends Memory {
  /** The bytes must not be touched afterwards. */
  close(): void;
  /** Makes durable what the bytes were when it was called, or later ones. @throws {PsmaError} sys/... */
  sync(): Promise<void>;
}

/** A small file that is written in place, block by block. */
export interface DurableBlocks {
  /**
   * Resolves when the bytes are durable. A power loss before leaves any mixture of old and new sectors; so may
   * a failure. @throws {PsmaError} sys/...
   */
  write(at: number, bytes: Uint8Array): Promise<void>;
  /** Nothing may be under way. */
  close(): void;
}

export interface VolumeFiles {
  /** Changes with every boot of the kernel that keeps the mapped files' pages. */
  readonly bootId: string;
  /** @returns the file's bytes; undefined when there is no such file. @throws {PsmaError} sys/... */
  read(path: string): Uint8Array | undefined;
  /**
   * Replaces a file durably: a crash leaves the old bytes or the new ones, never a mixture.
   * @throws {PsmaError} sys/... when a step fails; the disk may then have either.
   */
  replace(path: string, bytes: Uint8Array): Promise<void>;
  /**
   * Makes durable that the file is there as it is read: who replaced it may have been killed just before it was,
   * and what is believed now must not be gone after a power loss. @throws {PsmaError} sys/...
   */
  settle(path: string): Promise<void>;
  /** Maps a whole file that exists. @throws {PsmaError} sys/..., state/empty */
  map(path: string): MappedFile;
  /**
   * Opens a file that exists for writing in place, alone: nothing of another process is under way there.
   * @throws {PsmaError} state/in-use, sys/...
   */
  openBlocks(path: string): DurableBlocks;
}
