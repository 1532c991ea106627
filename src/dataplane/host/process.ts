/** The main thread's end of a host task: starts this program once more, and waits for its one answer. */
import { PsmaError, selfCommand } from "../../core/mod.ts";
import type { HostTaskName, HostTasks } from "./tasks.ts";
import type { Outcome } from "../messages.ts";

/** @throws {PsmaError} what the task threw, or internal/host-task when its process ended without an answer. */
export async function runHostTask<Name extends HostTaskName>(
  name: Name,
  argument: HostTasks[Name]["argument"],
): Promise<HostTasks[Name]["answer"]> {
  const { command, args } = selfCommand(["internal", "host-task", name]);
  const child = new Deno.Command(command, {
    args,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(JSON.stringify(argument)));
  await writer.close();
  const { stdout, stderr } = await child.output();
  let outcome: Outcome<HostTasks[Name]["answer"]>;
  try {
    outcome = JSON.parse(new TextDecoder().decode(stdout));
  } catch (cause) {
    const said = new TextDecoder().decode(stderr).trim().split("\n").at(-1) ?? "";
    throw new PsmaError(
      "internal/host-task",
      `Cannot ${name} the volume: its process ended without an answer (${said || "silently"})`,
      { cause },
    );
  }
  if (!outcome.ok) throw PsmaError.fromRecord(outcome.error);
  return outcome.value;
}
