/** A directory that only our user may enter, for sockets: who can open one is trusted by who answers there. */
import { PsmaError } from "../core/mod.ts";

const OTHERS_MAY = 0o077;

/**
 * Makes it when it is missing; else removes what a killed process left in it.
 * @returns the path. @throws {PsmaError} state/private-directory when somebody else made it or may enter it.
 */
export function makePrivateDirectory(path: string): string {
  try {
    Deno.mkdirSync(path, { mode: 0o700 });
    return path;
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
  const { isDirectory, uid, mode } = Deno.lstatSync(path);
  if (!isDirectory || uid !== Deno.uid() || ((mode ?? 0) & OTHERS_MAY) !== 0) {
    throw new PsmaError(
      "state/private-directory",
      `Cannot use ${path}: others may have made it or may enter it`,
      { hint: `Remove ${path}; it is made again.` },
    );
  }
  for (const { name, isSymlink } of Deno.readDirSync(path)) {
    if (!isSymlink && Deno.lstatSync(`${path}/${name}`).isSocket) {
      Deno.removeSync(`${path}/${name}`);
    }
  }
  return path;
}
