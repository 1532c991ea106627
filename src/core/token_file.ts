/**
 * Bearer tokens: one line in a file that only its owner may read.
 *
 * Threat model: other users of this machine may reach the port but not the file; a web page in a local
 * browser may send requests but does not know the token.
 *
 * Faults: a crash while the file is made leaves no file of that name, or a whole one; what it was written
 * under before may stay behind, and is as private.
 */
import { createFileSync } from "./durable_file.ts";
import { PsmaError } from "./errors.ts";
import type { Rng } from "./rng.ts";

const OTHERS_MAY = 0o077;
const TOKEN_BYTES = 32;
const TOKEN_LENGTH_MIN = 16;
const FILE_BYTES_MAX = 4096;

/**
 * Reads the token; mode and content are of the same file, even when its name is replaced meanwhile.
 * @throws {PsmaError} config/token-file when it is missing, holds no token, or others may read it;
 * forbidden/token-file, io/token-file
 */
export function readToken(path: string): string {
  const { mode, text } = readOpened(path);
  if ((mode & OTHERS_MAY) !== 0) {
    throw unusable(path, "others may read it", `Run: chmod 600 ${path}`);
  }
  const token = text.trim();
  if (token.length < TOKEN_LENGTH_MIN || /\s/.test(token)) {
    throw unusable(
      path,
      "it holds no token",
      `Put one line of at least ${TOKEN_LENGTH_MIN} characters in it; or remove the file and start the server that it belongs to, which makes a new one.`,
    );
  }
  return token;
}

/**
 * Reads the token, making one first where there is no file. Of many that make one at once, all get the same.
 * @throws {PsmaError} as {@linkcode readToken}
 */
export function ensureToken(path: string, rng: Rng): string {
  try {
    if (isMissing(path)) createFileSync(path, rng.hex(TOKEN_BYTES) + "\n", rng);
  } catch (cause) {
    throw fault("make", path, cause);
  }
  return readToken(path);
}

/** Whether an Authorization header carries the token. */
export function carriesToken(header: string | undefined, token: string): boolean {
  const given = /^Bearer +(\S+)$/i.exec(header ?? "")?.[1];
  return given !== undefined && isSame(given, token);
}

/**
 * Looks at the whole secret always: the time tells nothing of how much was right. (Not node:crypto's, which
 * would cost every thread and every command of ours 30 ms to load.)
 */
function isSame(given: string, secret: string): boolean {
  let different = given.length ^ secret.length;
  for (let at = 0; at < secret.length; at++) {
    different |= given.charCodeAt(at) ^ secret.charCodeAt(at);
  }
  return different === 0;
}

function isMissing(path: string): boolean {
  try {
    Deno.statSync(path);
    return false;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return true;
    throw error;
  }
}

function readOpened(path: string): { mode: number; text: string } {
  try {
    using file = Deno.openSync(path);
    const bytes = new Uint8Array(FILE_BYTES_MAX + 1);
    const length = file.readSync(bytes) ?? 0;
    // What is longer is no token: not a part of it either.
    const text = length > FILE_BYTES_MAX ? "" : new TextDecoder().decode(bytes.subarray(0, length));
    return { mode: file.statSync().mode ?? 0, text };
  } catch (cause) {
    throw fault("read", path, cause);
  }
}

function unusable(path: string, what: string, hint: string): PsmaError {
  return new PsmaError("config/token-file", `Cannot use token file ${path}: ${what}`, { hint });
}

function fault(doing: string, path: string, cause: unknown): PsmaError {
  const what = `Cannot ${doing} token file ${path}`;
  if (cause instanceof Deno.errors.PermissionDenied) {
    return new PsmaError("forbidden/token-file", `${what}: permission denied`, {
      hint: "Run as root, or as the user whose file it is.",
      cause,
    });
  }
  if (cause instanceof Deno.errors.NotFound) {
    return new PsmaError("config/token-file", `${what}: it is missing`, {
      hint: "The agent and the store each make theirs when they start; name the right file.",
      cause,
    });
  }
  const why = cause instanceof Error ? cause.message : String(cause);
  return new PsmaError("io/token-file", `${what}: ${why}`, { hint: "Look at the disk.", cause });
}
