/** Bearer tokens: in a file that only its owner can read, compared without telling how much was right. */
import { createHash, timingSafeEqual } from "node:crypto";
import { PsmaError, type Rng } from "../core/mod.ts";
import { replaceDurably } from "./durable.ts";

const OTHERS_MAY = 0o077;
const TOKEN_BYTES = 32;
const TOKEN_LENGTH_MIN = 16;

/** @throws {PsmaError} config/token-file when it is missing, empty, too short, or others may read it. */
export async function readToken(path: string): Promise<string> {
  const fault = (what: string, hint: string, cause?: unknown) =>
    new PsmaError("config/token-file", `Cannot use token file ${path}: ${what}`, { hint, cause });
  let mode: number | null;
  let token: string;
  try {
    mode = (await Deno.stat(path)).mode;
    token = (await Deno.readTextFile(path)).trim();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw fault(reason, "Copy the store's token into it, with mode 0600.", cause);
  }
  if (((mode ?? 0) & OTHERS_MAY) !== 0) throw fault("others may read it", `Run: chmod 600 ${path}`);
  if (token.length < TOKEN_LENGTH_MIN || /\s/.test(token)) {
    throw fault(
      "it holds no token",
      `Put one line of at least ${TOKEN_LENGTH_MIN} characters in it.`,
    );
  }
  return token;
}

/** Reads the token, or makes one where there is no file yet. */
export async function readOrMakeToken(path: string, rng: Rng): Promise<string> {
  try {
    await Deno.lstat(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    await replaceDurably(path, rng.hex(TOKEN_BYTES) + "\n");
  }
  return await readToken(path);
}

/** Whether an Authorization header carries the token; takes as long whether it does or not. */
export function carriesToken(header: string | undefined, token: string): boolean {
  const given = /^Bearer ([^\s]+)$/i.exec(header ?? "")?.[1] ?? "";
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given), digest(token)) && given.length > 0;
}
