/** Waits for an answer no longer than so. @returns false when it did not come in time. */
export async function within(
  answer: Promise<boolean> | undefined,
  within_ms: number,
): Promise<boolean> {
  if (answer === undefined) throw new Error("Cannot wait: nothing was begun");
  const { promise: late, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(false), within_ms);
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
