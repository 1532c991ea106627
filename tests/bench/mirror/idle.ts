/** Mirrors without an application beside them: how fast, and how many bytes for what has changed. */
import { seededRng, silentLog } from "../../../src/core/mod.ts";
import { DataPlane } from "../../../src/dataplane/mod.ts";
import { run } from "../../support/process.ts";
import { startStoreProcess, uriOf } from "../../support/store_process.ts";
import { startTarget } from "./nbdkit.ts";
import type { SideKind, SideOptions } from "./side.ts";

const CHUNK_BYTES = 65_536, BLOCK_BYTES = 4096;
const WITHIN_MS = 120_000;

/** @returns bytes per second from the order to mirror to a complete, flushed target. */
export async function mirrorRate(kind: SideKind, options: SideOptions): Promise<number> {
  const { size } = Deno.statSync(options.image);
  await using side = await kind.start(options);
  const began_ms = performance.now();
  await side.begin();
  if (!await side.ready(WITHIN_MS)) throw new Error(`${kind.name} is not ready`);
  return size / (performance.now() - began_ms) * 1000;
}

/** The same of nbdcopy, from the start of the program to its end, onto nbdkit's file. */
export async function copyRateToNbdkit({ image, directory }: SideOptions): Promise<number> {
  const { size } = Deno.statSync(image);
  await using server = await startTarget(directory, size);
  return await copyRate(image, `nbd+unix:///?socket=${server.socket}`);
}

/** The same onto a volume of PSMA's own store server. */
export async function copyRateToStore({ image, directory }: SideOptions): Promise<number> {
  const { size } = Deno.statSync(image);
  await using server = await startStoreProcess({
    directories: [`${directory}/store`],
    listen: `unix:${directory}/http.sock`,
    nbd: `unix:${directory}/store.sock`,
  });
  const placement = await server.store.createVolume({ name: "bench", size_bytes: size });
  return await copyRate(image, uriOf(placement));
}

async function copyRate(image: string, uri: string): Promise<number> {
  const { size } = Deno.statSync(image);
  const began_ms = performance.now();
  await run("nbdcopy", ["--flush", image, uri], { within_ms: WITHIN_MS });
  return size / (performance.now() - began_ms) * 1000;
}

/** What a resync cost. */
export interface Resync {
  /** Bytes that went to the target, per byte of the chunks that were written to. */
  readonly sent_per_dirty: number;
  /** The same per byte that was written. */
  readonly sent_per_changed: number;
  /** From going on to a complete target. */
  readonly seconds: number;
  readonly dirty_bytes_per_s: number;
}

export interface ResyncOptions extends SideOptions {
  /** The share of the chunks that is written to while the mirror pauses, one block of 4 KiB each. */
  readonly share: number;
}

/** @returns undefined for a side that copies also while it pauses. */
export async function resync(kind: SideKind, options: ResyncOptions): Promise<Resync | undefined> {
  const { size } = Deno.statSync(options.image);
  await using side = await kind.start(options);
  await side.begin();
  if (!await side.ready(WITHIN_MS)) throw new Error(`${kind.name} is not ready`);
  if (!await side.pause()) return undefined;
  const chunks = Math.round(size / CHUNK_BYTES * options.share);
  await writeChunks(side.uri, size, chunks);
  const sent = side.sentBytes(), began_ms = performance.now();
  await side.resume();
  if (!await side.ready(WITHIN_MS)) throw new Error(`${kind.name} is not in step again`);
  const seconds = (performance.now() - began_ms) / 1000;
  const bytes = side.sentBytes() - sent;
  return {
    sent_per_dirty: bytes / (chunks * CHUNK_BYTES),
    sent_per_changed: bytes / (chunks * BLOCK_BYTES),
    seconds,
    dirty_bytes_per_s: chunks * CHUNK_BYTES / seconds,
  };
}

/** One random block in each of so many chunks, chosen at random. */
async function writeChunks(uri: string, size: number, count: number): Promise<void> {
  const plane = await DataPlane.start({ log: silentLog });
  try {
    const { device } = await plane.command("openDevice", { uri });
    const rng = seededRng(1);
    const order = Array.from({ length: Math.floor(size / CHUNK_BYTES) }, (_, chunk) => chunk);
    for (let drawn = 0; drawn < count; drawn++) {
      const other = drawn + rng.below(order.length - drawn);
      const chunk = order[other] ?? 0;
      order[other] = order[drawn] ?? 0;
      const block = rng.below(CHUNK_BYTES / BLOCK_BYTES);
      const bytes = crypto.getRandomValues(new Uint8Array(BLOCK_BYTES));
      const at = chunk * CHUNK_BYTES + block * BLOCK_BYTES;
      await plane.command("writeDevice", { device, at, bytes });
    }
    await plane.command("flushDevice", { device });
    await plane.command("closeDevice", { device });
  } finally {
    await plane.stop();
  }
}
