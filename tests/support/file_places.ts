/** Where a text stands in a large, mostly empty file, without having all of it in memory. */
import { Buffer } from "node:buffer";

const PIECE_BYTES = 2 ** 20;

/** @returns the first place. @throws {Error} when it is nowhere. */
export function placeOf(path: string, text: string): number {
  using file = Deno.openSync(path);
  const piece = Buffer.alloc(PIECE_BYTES + text.length);
  const { size } = file.statSync();
  for (let at = 0; at < size; at += PIECE_BYTES) {
    file.seekSync(at, Deno.SeekMode.Start);
    const read = file.readSync(piece) ?? 0;
    const found = piece.subarray(0, read).indexOf(text);
    if (found >= 0) return at + found;
  }
  throw new Error(`"${text}" is not in ${path}`);
}
