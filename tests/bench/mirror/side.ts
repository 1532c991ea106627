/** What a mirroring program must do to be measured: all sides are driven by the same steps. */
import type { Storage } from "../dataplane/storage.ts";

export interface SideOptions {
  /** What is mirrored, filled already. */
  readonly image: string;
  /** Empty, short enough for sockets' paths; the target's file goes into it. */
  readonly directory: string;
  readonly storage: Storage;
  /** Whether what goes to the target is counted. */
  readonly counted: boolean;
}

/** A program that serves the image over NBD and can mirror it to another server. */
export interface Side extends AsyncDisposable {
  /** Where the application writes. */
  readonly uri: string;
  /** Bytes that went to the target so far, of all kinds; 0 where they are not counted. */
  sentBytes(): number;
  /** Begins to mirror everything. */
  begin(): Promise<void>;
  /** @returns whether the target has everything within that time. */
  ready(within_ms: number): Promise<boolean>;
  /** Copies no more; what is written meanwhile is remembered. False where writes go to both all the same. */
  pause(): Promise<boolean>;
  /** Goes on; {@linkcode Side.ready} tells when the target has everything again. */
  resume(): Promise<void>;
  /** Moves the application over to the target. @returns whether that was done within that time. */
  switchOver(within_ms: number): Promise<boolean>;
}

export interface SideKind {
  readonly name: string;
  start(options: SideOptions): Promise<Side>;
}
