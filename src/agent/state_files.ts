/** The agent's own files: one owner, durable replacement, one agent at a time. */
import { PsmaError, replaceFileSync } from "../core/mod.ts";

/** Makes the state directory, which only its owner may enter; one that is there keeps its mode. */
export function makeStateDirectory(path: string): void {
  try {
    Deno.mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw stateError(`make ${path}`, cause);
  }
}

/** Replaces a file's content durably. @throws {PsmaError} io/state */
export function replaceFile(path: string, text: string): void {
  try {
    replaceFileSync(path, text);
  } catch (cause) {
    throw stateError(`write ${path}`, cause);
  }
}

/** @returns undefined when there is none. @throws {PsmaError} io/state */
export function readFile(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return undefined;
    throw stateError(`read ${path}`, cause);
  }
}

/**
 * Claims a state directory for this process; the kernel takes the claim back when the process ends.
 * @throws {PsmaError} state/locked when another agent has it.
 */
export function lockDirectory(directory: string): Disposable {
  const path = `${directory}/lock`;
  const file = openLock(path);
  if (!file.tryLockSync(true)) {
    file.close();
    throw new PsmaError("state/locked", `Cannot start: another agent works in ${directory}`, {
      hint: "Stop it first, or name another state_dir.",
    });
  }
  return { [Symbol.dispose]: () => file.close() };
}

function openLock(path: string): Deno.FsFile {
  try {
    return Deno.openSync(path, { write: true, create: true, mode: 0o600 });
  } catch (cause) {
    throw stateError(`open ${path}`, cause);
  }
}

function stateError(doing: string, cause: unknown): PsmaError {
  const denied = cause instanceof Deno.errors.PermissionDenied;
  const why = cause instanceof Error ? cause.message.split(" (os error")[0] : String(cause);
  return new PsmaError(denied ? "forbidden/state" : "io/state", `Cannot ${doing}: ${why}`, {
    cause,
    hint: denied ? "Run psma as root, or name a state_dir of your own." : "Look at the disk.",
  });
}
