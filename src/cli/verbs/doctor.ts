/** `psma doctor`: what this machine can do for volumes, and what to do about the rest. */
import type { Command } from "@commander-js/extra-typings";
import { PsmaError } from "../../core/mod.ts";
import type { Finding } from "../parts.ts";
import { type Session, type Start, verb } from "../verb.ts";

const DEFAULT_STATE_DIR = "/var/lib/psma";
const SIGNS = { ok: "ok  ", warn: "warn", fail: "FAIL" } as const;
const COLOURS = { ok: "green", warn: "yellow", fail: "red" } as const;

export function doctorVerb(start: Start): Command {
  return verb("doctor", "Check what this machine can do, and say what to do about the rest", [
    "psma doctor",
    "psma doctor --json",
  ]).action((options) => start(options, examine)) as never;
}

async function examine(session: Session): Promise<void> {
  const { state_dir, token_file } = await placesOf(session);
  const findings = await session.parts.probeHost({ state_dir, token_file });
  const ok = findings.every(({ level }) => level !== "fail");
  session.answer(
    { ok, findings },
    () => findings.map((one) => formatFinding(session, one)).join("\n"),
  );
  if (!ok) {
    throw new PsmaError(
      "unavailable/host",
      "Cannot serve volumes on this machine: see what failed above",
    );
  }
}

/** Without a readable configuration the usual places are looked at: `config check` is the verb for it. */
async function placesOf(session: Session): Promise<{ state_dir: string; token_file: string }> {
  try {
    return await session.config();
  } catch (error) {
    if (session.options.config !== undefined) throw error;
    return { state_dir: DEFAULT_STATE_DIR, token_file: `${DEFAULT_STATE_DIR}/api.token` };
  }
}

function formatFinding({ paint }: Session, { name, level, found, advice }: Finding): string {
  const line = `${paint(COLOURS[level], SIGNS[level])}  ${name.padEnd(18)} ${found}`;
  return advice === undefined ? line : `${line}\n${" ".repeat(25)}${paint("dim", advice)}`;
}
