/** `psma demo`, and the application that it starts. */
import { type Command, Option } from "@commander-js/extra-typings";
import { PsmaError, systemRng } from "../../core/mod.ts";
import { formatReport, reportOf } from "../demo/report.ts";
import { Screen } from "../demo/screen.ts";
import { Workspace } from "../demo/workspace.ts";
import { painter } from "../terminal.ts";
import { type Session, type Start, untilSignal, verb } from "../verb.ts";

/** What a mounted file system needs, by the names of the host's findings. */
const NEEDED_FOR_FUSE = ["fuse", "loop", "CAP_SYS_ADMIN", "mkfs.xfs"] as const;

export function demoVerb(start: Start): Command {
  return verb(
    "demo",
    "Show the main job, start to finish, in about a minute; leaves nothing behind",
    [
      "psma demo",
      "psma demo --json",
      "psma demo --frontend nbd --keep",
    ],
  )
    .option("--keep", "leave the folder with its logs and volumes")
    .addOption(
      new Option("--frontend <frontend>", "how the application reaches the volume")
        .choices(["auto", "fuse", "nbd"] as const).default("auto" as const),
    )
    .action((options) => start(options, (session) => demo(session, options))) as never;
}

interface DemoChoices {
  readonly keep?: true | undefined;
  readonly frontend: "auto" | "fuse" | "nbd";
}

async function demo(session: Session, { keep, frontend: wanted }: DemoChoices): Promise<void> {
  const { stderr, clock, json, options } = session;
  using interrupted = untilSignal();
  const colours = stderr.is_terminal && options.color && (Deno.env.get("NO_COLOR") ?? "") === "";
  const screen = new Screen(stderr, painter(colours), clock, !json || stderr.is_terminal);
  const frontend = await chooseFrontend(session, wanted, screen);
  const workspace = new Workspace({ keep: keep === true });
  try {
    const { playDemo } = await import("../demo/demo.ts");
    const { signal } = interrupted;
    const observed = await playDemo({ frontend, workspace, screen, clock, signal });
    const report = reportOf(observed);
    session.answer(report, () => `\n${formatReport(report, observed, session.paint)}`);
    if (!report.ok) {
      throw new PsmaError("verify/demo", "Cannot call the demo a success: see the report");
    }
  } catch (error) {
    // The logs are worth more than a tidy folder when something went wrong by itself.
    if (!interrupted.signal.aborted) workspace.keep();
    throw error;
  } finally {
    screen.clear();
    await workspace[Symbol.asyncDispose]();
    if (workspace.kept) screen.say(`kept: ${workspace.path}`);
  }
}

/** A mounted file system where this machine can, NBD elsewhere; says why. */
async function chooseFrontend(
  session: Session,
  wanted: "auto" | "fuse" | "nbd",
  screen: Screen,
): Promise<"fuse" | "nbd"> {
  const findings = await session.parts.probeHost({ state_dir: "/tmp", token_file: "/nonexistent" });
  const failed = findings.find(({ name, level }) => name === "io_uring" && level === "fail");
  if (failed !== undefined) {
    throw new PsmaError("unavailable/io_uring", `Cannot run the demo: ${failed.found}`, {
      ...(failed.advice === undefined ? {} : { hint: failed.advice }),
    });
  }
  const lacking = findings.filter(({ name, level }) =>
    level !== "ok" && NEEDED_FOR_FUSE.some((needed) => needed === name)
  );
  if (wanted === "nbd") return "nbd";
  if (lacking.length === 0) {
    screen.say("an xfs file system on FUSE and a loop device");
    return "fuse";
  }
  const reasons = lacking.map(({ name, found }) => `${name} (${found})`).join(", ");
  if (wanted === "fuse") {
    throw new PsmaError("unavailable/fuse", `Cannot mount a file system here: ${reasons}`);
  }
  screen.say(`over NBD, because this machine lacks ${reasons}`);
  return "nbd";
}

/** The application of the demo: nobody types it. */
export function demoApplicationVerb(start: Start): Command {
  return verb("demo-application", "Write to a volume, then verify it", [])
    .option("--folder <dir>", "a mounted file system")
    .option("--uri <uri>", "an NBD export")
    .option("--scratch <dir>", "a folder outside the volume")
    .action(({ folder, uri, scratch, ...options }) =>
      start(options, async ({ parts, clock }) => {
        const { runApplication } = await import("../demo/application.ts");
        const rng = systemRng;
        if (folder !== undefined) {
          const { FilesWorkload } = await import("../demo/files_workload.ts");
          return await runApplication(new FilesWorkload(folder, rng), { clock, rng });
        }
        if (uri === undefined || scratch === undefined) {
          throw new PsmaError(
            "usage/arguments",
            "Cannot write: --folder, or --uri and --scratch, is missing",
          );
        }
        const { ObjectsWorkload } = await import("../demo/objects_workload.ts");
        const open = () => parts.openNbdDevice(uri);
        const workload = await ObjectsWorkload.open({ open, scratch, rng });
        await runApplication(workload, { clock, rng });
      })
    ) as never;
}
