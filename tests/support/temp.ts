/** Temporary folders that go away with the block that made them: `using temp = tempDir();`. */

export interface TempDir extends Disposable {
  readonly path: string;
  /** A path inside the folder. */
  file(name: string): string;
}

/**
 * Makes an empty folder under TMPDIR. Its path is short, so that a Unix socket fits in it.
 * What is mounted below must be unmounted before the block ends: removal never crosses a mount.
 */
export function tempDir(prefix = "t"): TempDir {
  const path = Deno.makeTempDirSync({ prefix });
  return {
    path,
    file: (name) => `${path}/${name}`,
    [Symbol.dispose]() {
      refuseMounts(path);
      Deno.removeSync(path, { recursive: true });
    },
  };
}

function refuseMounts(path: string): void {
  const inside = Deno.readTextFileSync("/proc/self/mounts").split("\n")
    .map((line) => line.split(" ")[1] ?? "")
    .filter((target) => target === path || target.startsWith(`${path}/`));
  if (inside.length > 0) throw new Error(`Cannot remove ${path}: still mounted: ${inside}`);
}
