/** Zeros to send or to copy from: one mapping for the whole thread, which nobody writes to. */
import { allocateMemory, copyMemory, type Memory } from "../sys/mod.ts";

export const ZERO_BYTES = 1 << 20;

let memory: Memory | undefined;

/** ZERO_BYTES of zeros. */
export function zeros(): Memory {
  return memory ??= allocateMemory(ZERO_BYTES);
}

/** Makes memory zeros where only its address is known. */
export function zeroMemory(address: number, length: number): void {
  const { address: from } = zeros();
  for (let done = 0; done < length; done += ZERO_BYTES) {
    copyMemory(address + done, from, Math.min(ZERO_BYTES, length - done));
  }
}
