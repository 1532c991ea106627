/** The command line: its verbs, and the one place where a failure becomes a sentence and an exit code. */
import { Command, CommanderError } from "@commander-js/extra-typings";
import { PsmaError, toPsmaError } from "../core/mod.ts";
import type { CliParts } from "./parts.ts";
import { fileWriter, type Writer } from "./terminal.ts";
import { INTERRUPTED, Session, type Start } from "./verb.ts";
import { backtestVerb } from "./verbs/backtest.ts";
import { configVerbs } from "./verbs/configuration.ts";
import { demoApplicationVerb, demoVerb } from "./verbs/demo.ts";
import { doctorVerb } from "./verbs/doctor.ts";
import { forecastVerb, planVerb } from "./verbs/foresight.ts";
import { mirrorVerbs } from "./verbs/mirror.ts";
import { retireVerb, rollbackVerb, scaleVerb, switchVerb } from "./verbs/scaling.ts";
import { internalVerbs, runVerb, storeVerbs } from "./verbs/service.ts";
import { statusVerb } from "./verbs/status.ts";
import { versionVerb } from "./verbs/version.ts";
import { volumeVerbs } from "./verbs/volume.ts";

/** As a shell reports a process that SIGINT ended. */
const EXIT_INTERRUPTED = 130;

export interface CliStreams {
  readonly stdout: Writer;
  readonly stderr: Writer;
}

/** Runs one command. @returns the exit code. Never throws for what a user can cause. */
export async function runCli(
  args: readonly string[],
  parts: CliParts,
  streams: CliStreams = { stdout: fileWriter(Deno.stdout), stderr: fileWriter(Deno.stderr) },
): Promise<number> {
  const { stdout, stderr } = streams;
  const start: Start = async (options, work) => {
    const session = new Session(parts, options, stdout, stderr);
    try {
      await work(session);
    } finally {
      session.close();
    }
  };
  const program = buildProgram(start, parts.version, streams);
  try {
    await program.parseAsync([...args], { from: "user" });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    const failure = error instanceof CommanderError
      ? usageError(error, program)
      : toPsmaError(error);
    stderr.write(formatFailure(failure, args.includes("--json")));
    return failure.code === INTERRUPTED ? EXIT_INTERRUPTED : failure.meaning.exit;
  }
}

function buildProgram(
  start: Start,
  version: string,
  { stdout, stderr }: CliStreams,
): Command {
  const program = new Command("psma")
    .description(
      "Keeps volumes from ever filling up: forecasts, mirrors, and moves to a larger one.",
    )
    .addHelpText("after", "\nStart with `psma demo`; then `psma VERB --help`.");
  program.version(version, "-V, --version", "show the version");
  const verbs = [
    runVerb(start),
    demoVerb(start),
    statusVerb(start),
    volumeVerbs(start),
    forecastVerb(start),
    backtestVerb(start),
    planVerb(start),
    mirrorVerbs(start),
    scaleVerb(start),
    switchVerb(start),
    rollbackVerb(start),
    retireVerb(start),
    configVerbs(start),
    doctorVerb(start),
    storeVerbs(start),
    versionVerb(start),
  ];
  for (const one of verbs) program.addCommand(one);
  const internal = internalVerbs(start);
  internal.addCommand(demoApplicationVerb(start));
  program.addCommand(internal, { hidden: true });
  adjust(program, { stdout, stderr });
  return program;
}

/** Commander must neither exit nor print faults by itself, at any depth. */
function adjust(command: Command, { stdout, stderr }: CliStreams): void {
  command.exitOverride();
  command.configureOutput({
    writeOut: (text) => stdout.write(text),
    writeErr: (text) => stderr.write(text),
    outputError: () => {},
  });
  command.configureHelp({ helpWidth: Math.min(100, stdout.columns()) });
  for (const below of command.commands) adjust(below as Command, { stdout, stderr });
}

/** Commander's own faults: one sentence of ours and where to look. */
function usageError(error: CommanderError, program: Command): PsmaError {
  if (error.code === "commander.help") {
    return new PsmaError("usage/verb", "Cannot guess what to do: a verb is missing", {
      hint: "The verbs are listed above.",
    });
  }
  const sentence = error.message.replace(/^error: /, "").replace(/\n[^]*$/, "");
  const suggestion = /\(Did you mean (.+)\?\)/.exec(error.message)?.[1];
  const hint = suggestion === undefined
    ? `See \`${program.name()} --help\`.`
    : `Did you mean ${suggestion}?`;
  return new PsmaError("usage/arguments", `Cannot read the command: ${sentence}`, { hint });
}

function formatFailure(failure: PsmaError, json: boolean): string {
  if (json) return JSON.stringify({ error: failure.toRecord() }) + "\n";
  const hint = failure.hint === undefined ? "" : `  ${failure.hint}\n`;
  return `psma: ${failure.message}\n${hint}  code: ${failure.code}\n`;
}
