/** The demo's folder: made anew, and gone afterwards with all that was mounted in it. */
import { formatSize, PsmaError } from "../../core/mod.ts";
import { statfsSync } from "node:fs";

const NEEDED_BYTES = 1.6 * 1024 ** 3;

export class Workspace implements AsyncDisposable {
  readonly path: string;
  #keep: boolean;

  /** @throws {PsmaError} state/no-space where the temporary folder has no room for both volumes. */
  constructor({ keep }: { keep: boolean }) {
    this.path = Deno.makeTempDirSync({ prefix: "psma-demo-" });
    this.#keep = keep;
    const { bavail, bsize } = statfsSync(this.path);
    if (bavail * bsize >= NEEDED_BYTES) return;
    Deno.removeSync(this.path);
    const [free, needed] = [formatSize(bavail * bsize), formatSize(NEEDED_BYTES)];
    throw new PsmaError(
      "state/no-space",
      `Cannot run the demo: ${free} are free, ${needed} are needed`,
      {
        hint: "Name another folder: TMPDIR=/somewhere psma demo",
      },
    );
  }

  file(name: string): string {
    return `${this.path}/${name}`;
  }

  get kept(): boolean {
    return this.#keep;
  }

  /** The folder stays: there is something in it to look at. */
  keep(): void {
    this.#keep = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await letGo(this.path);
    if (!this.#keep) Deno.removeSync(this.path, { recursive: true });
  }
}

/**
 * Unmounts what an agent left that could not stop in order, and frees its loop devices.
 * Where nothing is mounted it runs nothing.
 */
async function letGo(folder: string): Promise<void> {
  const mounts = mountsOn(folder);
  for (const { source, target } of mounts.reverse()) {
    await quietly("umount", ["-l", target]);
    if (source.startsWith("/dev/loop")) await quietly("losetup", ["-d", source]);
  }
}

function mountsOn(folder: string): { source: string; target: string }[] {
  return Deno.readTextFileSync("/proc/self/mounts").split("\n").map((line) => {
    const [source = "", target = ""] = line.split(" ");
    return { source, target };
  }).filter(({ target }) => target.startsWith(`${folder}/`));
}

async function quietly(command: string, args: readonly string[]): Promise<void> {
  const child = new Deno.Command(command, {
    args: [...args],
    stdin: "null",
    stdout: "null",
    stderr: "null",
  });
  await child.output();
}
