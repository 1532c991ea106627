/** `psma config check` and `psma config show`. */
import type { Command } from "@commander-js/extra-typings";
import { PsmaError } from "../../core/mod.ts";
import { group, type Session, type Start, verb } from "../verb.ts";

export function configVerbs(start: Start): Command {
  const check = verb("check", "Find everything that is wrong with the configuration", [
    "psma config check --config psma.yaml",
  ]).action((options) => start(options, checkConfig));
  const show = verb("show", "Show the configuration with every default filled in", [
    "psma config show --config psma.yaml",
  ]).action((options) =>
    start(options, async (session) => {
      const { values } = await session.config();
      session.answer(values, () => JSON.stringify(values, null, 2));
    })
  );
  return group("config", "Check and show the configuration", [check as never, show as never]);
}

async function checkConfig(session: Session): Promise<void> {
  const path = session.configPath();
  const faults = await session.parts.config.check(path);
  if (faults.length === 0) {
    const warnings = await session.parts.config.warnings(path);
    return session.answer(
      { ok: true, path, faults, warnings },
      () => [...warnings.map((one) => `warning: ${one}`), `${path} is fine.`].join("\n"),
    );
  }
  session.answer(
    { ok: false, path, faults },
    () =>
      faults.map(({ line, column, message, hint }) =>
        `${path}:${line}:${column}: ${message}${hint === undefined ? "" : `\n  ${hint}`}`
      ).join("\n"),
  );
  const count = faults.length === 1 ? "one fault" : `${faults.length} faults`;
  throw new PsmaError("config/faults", `Cannot use ${path}: it has ${count}`);
}
