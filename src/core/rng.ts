/** Chance comes in as an Rng; only this file knows Math.random and crypto. */
export interface Rng {
  /** A float in [0, 1). */
  float(): number;
  /** A whole number in [0, below). */
  below(below: number): number;
  /** Lower-case hexadecimal digits, `bytes * 2` of them. */
  hex(bytes: number): string;
}

/** Mulberry32: small, fast and replayable; for tests and jitter, never for secrets. */
export function seededRng(seed: number): Rng {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
  return {
    float: () => next() / 4294967296,
    below: (below) => Math.floor(next() / 4294967296 * below),
    hex: (bytes) =>
      Array.from({ length: bytes }, () => (next() & 255).toString(16).padStart(2, "0")).join(""),
  };
}

/** The operating system's randomness: fit for tokens and identifiers. */
export const systemRng: Rng = {
  float: () => Math.random(),
  below: (below) => Math.floor(Math.random() * below),
  hex: (bytes) =>
    Array.from(
      crypto.getRandomValues(new Uint8Array(bytes)),
      (byte) => byte.toString(16).padStart(2, "0"),
    ).join(""),
};
