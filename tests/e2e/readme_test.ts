/** The README's five minutes, command by command as they stand there, with other ports and another folder. */
import { match, ok } from "node:assert/strict";
import { freePort, psma, type Started, startPsma } from "../support/process.ts";
import { requires } from "../support/requires.ts";
import { tempDir } from "../support/temp.ts";

const README = new URL("../../README.md", import.meta.url);
const SECTION = "## Five minutes with your own configuration";
const PORTS = { "9310": freePort(), "9320": freePort(), "10809": freePort() };

interface Step {
  readonly env: Readonly<Record<string, string>>;
  readonly args: readonly string[];
}

Deno.test({
  name: "the README's five minutes work as they stand there",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    const text = place(sectionOf(Deno.readTextFileSync(README)), temp.path);
    Deno.writeTextFileSync(temp.file("psma.yaml"), fences(text, "yaml")[0] ?? "");
    await using running = new AsyncDisposableStack();
    const answers = new Map<string, string>();
    for (const { env, args } of fences(text, "sh start").flatMap(stepsOf)) {
      const command = args.join(" ");
      if (args[0] === "run" || args[0] === "store") {
        const more = args[0] === "store"
          ? [
            "--nbd-listen",
            `127.0.0.1:${PORTS["10809"]}`,
            "--listen",
            `127.0.0.1:${PORTS["9320"]}`,
          ]
          : [];
        const started: Started = startPsma([...args, ...more], { env: { ...env } });
        running.use(started);
        await started.line(/^Ready: /m);
      } else {
        answers.set(command, (await psma(args, { env })).stdout);
      }
    }
    match(answers.get("config check") ?? "", /is fine/);
    match(answers.get("volume show data") ?? "", /nbd\s+nbd(\+unix)?:\/\//);
    match(answers.get("status") ?? "", /data\s+attached\s+512MiB/);
    match(answers.get("status") ?? "", /epoch \d+, 0 errors/);
    ok(answers.size >= 7);
    match(
      answers.get("plan data") ?? "",
      /^data: (none|wait|mirror|scale|switch|advise)\b.*\n {2}\w/,
    );
  },
});

function sectionOf(readme: string): string {
  const from = readme.indexOf(SECTION);
  ok(from >= 0, `README has no section "${SECTION}"`);
  return readme.slice(from, readme.indexOf("\n## ", from + 1));
}

/** The folder and the ports of the page are everyone's: each test run has its own. */
function place(text: string, folder: string): string {
  return text.replaceAll("/tmp/psma-try", folder)
    .replaceAll(
      /127\.0\.0\.1:(9310|9320)/g,
      (_, port: keyof typeof PORTS) => `127.0.0.1:${PORTS[port]}`,
    );
}

/** Contents of the fenced blocks with this information string. */
function fences(text: string, information: string): string[] {
  const pattern = new RegExp(`^\`\`\`${information}\\n([^]*?)^\`\`\`$`, "gm");
  return [...text.matchAll(pattern)].map(([, content = ""]) => content);
}

/** The commands of one terminal, each with what was exported before it. */
function stepsOf(terminal: string): Step[] {
  const env: Record<string, string> = {};
  return terminal.split("\n").flatMap((line): Step[] => {
    const [, name, value] = /^export (\w+)=(\S+)$/.exec(line) ?? [];
    if (name !== undefined && value !== undefined) env[name] = value;
    return line.startsWith("psma ") ? [{ env: { ...env }, args: line.split(" ").slice(1) }] : [];
  });
}
