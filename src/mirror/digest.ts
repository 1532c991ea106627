/** Digests of extents: xxHash64, fast enough to take on the data-plane thread; against bit rot, not tampering. */
import { createXXHash64 } from "hash-wasm";

export const DIGEST_ALGORITHM = "xxh64";

/** @param bytes any length. @returns 16 lower-case hexadecimal digits. */
export type Digest = (bytes: Uint8Array) => string;

/** Compiles the hash once; call it before the thread begins to live in its ring. */
export async function loadDigest(): Promise<Digest> {
  const hasher = await createXXHash64();
  return (bytes) => hasher.init().update(bytes).digest("hex");
}

/** True when every byte is zero. @param bytes 8-byte aligned in their buffer. */
export function isZero(bytes: Uint8Array): boolean {
  const words = Math.floor(bytes.length / 8);
  const view = new Float64Array(bytes.buffer, bytes.byteOffset, words);
  // -0 and NaN patterns are not zero bytes: Object.is and a comparison that NaN fails tell them apart.
  for (let i = 0; i < words; i++) if (!Object.is(view[i], 0)) return false;
  for (let i = words * 8; i < bytes.length; i++) if (bytes[i] !== 0) return false;
  return true;
}
