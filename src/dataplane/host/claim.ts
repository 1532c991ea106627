/**
 * One host task at a time works on a volume. A killed agent leaves its tasks behind: the next agent's wait for
 * their end, after they have made sure that it comes.
 */

/** Waits for the others. The kernel takes the claim back when this process ends. @param path of the served file, or what stands for it. */
export async function aloneWith(path: string): Promise<Disposable> {
  const file = await Deno.open(`${path}.lock`, { write: true, create: true, mode: 0o600 });
  await file.lock(true);
  return file;
}
