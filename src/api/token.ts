/**
 * The bearer token: a file that only its owner reads.
 *
 * Threat model: other users of this machine may reach the loopback port but not the file; a web page in
 * a local browser may send requests but does not know the token and cannot set the Host header.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { PsmaError, type Rng } from "../core/mod.ts";

const TOKEN_BYTES = 32;

/**
 * Reads the token file.
 * @throws {PsmaError} auth/token-missing, auth/token-mode when others may read it, auth/token-unreadable
 */
export function readToken(path: string): string {
  let text: string;
  try {
    const { mode } = Deno.statSync(path);
    if (((mode ?? 0) & 0o077) !== 0) {
      throw new PsmaError(
        "auth/token-mode",
        `Cannot use the token file ${path}: others may read it`,
        {
          hint: `chmod 600 ${path}`,
        },
      );
    }
    text = Deno.readTextFileSync(path).trim();
  } catch (cause) {
    if (cause instanceof PsmaError) throw cause;
    if (cause instanceof Deno.errors.NotFound) {
      throw new PsmaError(
        "auth/token-missing",
        `Cannot read the token file ${path}: it is missing`,
        {
          hint: "The agent makes it when it starts; name the right --config or --token-file.",
          cause,
        },
      );
    }
    throw new PsmaError("auth/token-unreadable", `Cannot read the token file ${path}`, {
      hint: "Run as the user that runs the agent.",
      cause,
    });
  }
  if (text === "") {
    throw new PsmaError("auth/token-empty", `Cannot use the token file ${path}: it is empty`, {
      hint: "Remove it and restart the agent, which makes a new one.",
    });
  }
  return text;
}

/** Reads the token file, making it first (mode 0600) when it is missing. */
export function ensureToken(path: string, rng: Rng): string {
  try {
    const file = Deno.openSync(path, { write: true, createNew: true, mode: 0o600 });
    try {
      const bytes = new TextEncoder().encode(rng.hex(TOKEN_BYTES) + "\n");
      let written = 0;
      while (written < bytes.length) written += file.writeSync(bytes.subarray(written));
      file.syncSync();
    } finally {
      file.close();
    }
  } catch (cause) {
    if (!(cause instanceof Deno.errors.AlreadyExists)) {
      throw new PsmaError("auth/token-write", `Cannot make the token file ${path}`, { cause });
    }
  }
  return readToken(path);
}

/** Compares without telling by time how much was right. */
export function tokenMatches(given: string, expected: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given), digest(expected));
}
