/** `psma doctor`: what this machine can do for volumes, and what to do about the rest. */
import type { Command } from "@commander-js/extra-typings";
import { PsmaError } from "../../core/mod.ts";
import type { Finding, LoadedConfig } from "../parts.ts";
import { type Session, type Start, verb } from "../verb.ts";

const DEFAULT_PLACES = { state_dir: "/var/lib/psma", token_file: "/var/lib/psma/api.token" };
const SIGNS = { ok: "ok  ", warn: "warn", fail: "FAIL" } as const;
const COLOURS = { ok: "green", warn: "yellow", fail: "red" } as const;

export function doctorVerb(start: Start): Command {
  return verb("doctor", "Check what this machine can do, and say what to do about the rest", [
    "psma doctor",
    "psma doctor --config psma.yaml",
    "psma doctor --json",
  ]).action((options) => start(options, examine)) as never;
}

async function examine(session: Session): Promise<void> {
  const config = await configOf(session);
  const { state_dir, token_file } = config ?? DEFAULT_PLACES;
  const findings = [
    ...await session.parts.probeHost({ state_dir, token_file }),
    ...(config ? await session.parts.probeStores(config.path) : []),
  ];
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
async function configOf(session: Session): Promise<LoadedConfig | undefined> {
  try {
    return await session.config();
  } catch (error) {
    if (session.options.config !== undefined) throw error;
    return undefined;
  }
}

function formatFinding({ paint }: Session, { name, level, found, advice }: Finding): string {
  const line = `${paint(COLOURS[level], SIGNS[level])}  ${name.padEnd(18)} ${found}`;
  return advice === undefined ? line : `${line}\n${" ".repeat(25)}${paint("dim", advice)}`;
}
