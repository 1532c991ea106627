/** The command line as a user meets it: verbs, misuse, exit codes, JSON; against a served API where it asks one. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { openApi } from "../../../src/api/mod.ts";
import { type CliParts, runCli } from "../../../src/cli/mod.ts";
import { PsmaError, silentLog, systemClock } from "../../../src/core/mod.ts";
import { freePort } from "../../support/process.ts";
import { tempDir } from "../../support/temp.ts";
import { recordingAgent } from "../../support/recording_agent.ts";

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const refused = () => Promise.reject(new PsmaError("internal/test", "Cannot start in this test"));

function parts(more: Partial<CliParts> = {}): CliParts {
  return {
    version: "1.2.3",
    clock: systemClock,
    config: {
      load: (path) => Promise.reject(new PsmaError("config/missing-file", `Cannot read ${path}`)),
      check: () => Promise.resolve([]),
      warnings: () => Promise.resolve([]),
    },
    startAgent: refused,
    startStore: refused,
    serveForecaster: refused,
    backtestTasks: refused,
    backtestHistory: refused,
    serveHostTask: refused,
    openNbdDevice: refused,
    probeHost: () => Promise.resolve([{ name: "kernel", level: "ok", found: "Linux" }]),
    probeStores: () => Promise.resolve([]),
    ...more,
  };
}

async function psma(args: readonly string[], more: Partial<CliParts> = {}): Promise<Ran> {
  const printed = { stdout: "", stderr: "" };
  const writer = (name: "stdout" | "stderr") => ({
    is_terminal: false,
    write: (text: string) => void (printed[name] += text),
    columns: () => 100,
  });
  const streams = { stdout: writer("stdout"), stderr: writer("stderr") };
  const code = await runCli(args, parts(more), streams);
  return { code, ...printed };
}

const MISUSE: readonly (readonly [readonly string[], number, RegExp])[] = [
  [[], 2, /a verb is missing/],
  [["statis"], 2, /unknown command 'statis'\n {2}Did you mean status\?/],
  [["status", "--jsn"], 2, /unknown option '--jsn'\n {2}Did you mean --json\?/],
  [["status", "a", "b"], 2, /too many arguments/],
  [["volume"], 2, /a verb is missing/],
  [["volume", "create", "data"], 2, /required option '--size <size>'/],
  [["volume", "create", "data", "--size", "big"], 2, /"big" is not a size/],
  [["volume", "create", "data", "--size", "1GiB", "--frontend", "usb"], 2, /frontend "usb"/],
  [["volume", "delete", "data"], 2, /--yes is missing/],
  [["retire", "data"], 2, /--yes is missing/],
  [["backtest"], 2, /a source or --tasks/],
  [["backtest", "a.csv", "--tasks", "t.csv"], 2, /a source or --tasks/],
  [["backtest", "--tasks", "t.csv"], 2, /--data is missing/],
  [["backtest", "a.csv", "--origins", "none"], 2, /--origins none is not a whole number/],
  [["backtest", "a.csv", "--horizon", "soon"], 2, /"soon" is not a duration/],
  [["rollback", "data", "--discard-changes"], 2, /--yes is missing/],
  [["scale"], 2, /missing required argument 'volume'/],
  [["scale", "data", "--size", "-1"], 2, /not a size/],
  [["demo", "--frontend", "usb"], 2, /Allowed choices are auto, fuse, nbd/],
  [["store", "serve", "--capacity", "much"], 2, /not a size/],
  [["store", "serve", "--tls-cert", "c"], 2, /--tls-cert and --tls-key go together/],
  [["run", "--log-level", "loud"], 2, /Allowed choices/],
  [["config", "show", "--config", "/none"], 78, /Cannot read \/none/],
  [["status", "--url", "0.0.0.0:1", "--token-file", "/t"], 78, /without TLS/],
];

for (const [args, code, sentence] of MISUSE) {
  Deno.test(`psma ${args.join(" ")} ends with ${code} and one clear sentence`, async () => {
    const url = ["--url", `127.0.0.1:${freePort()}`, "--token-file", "/none"];
    const named =
      ["volume", "retire", "rollback", "scale"].includes(args[0] ?? "") && args.length > 1
        ? url
        : [];
    const ran = await psma([...args, ...named]);
    equal(ran.code, code, ran.stderr);
    match(ran.stderr, sentence);
    match(ran.stderr, /^psma: Cannot /m);
    match(ran.stderr, /^ {2}code: (usage|config)\/[a-z-]+$/m);
    equal(ran.stdout, "");
  });
}

Deno.test("with --json a failure is one JSON object on standard error", async () => {
  const ran = await psma(["status", "--json", "--url", `127.0.0.1:${freePort()}`]);
  equal(ran.code, 69);
  const { error } = JSON.parse(ran.stderr);
  equal(error.code, "unavailable/agent");
  match(error.hint, /psma run/);
  equal(ran.stdout, "");
});

const VERBS = [
  "run",
  "demo",
  "status",
  "volume create",
  "volume list",
  "volume show",
  "volume attach",
  "volume detach",
  "volume claim",
  "volume delete",
  "forecast",
  "plan",
  "mirror start",
  "mirror status",
  "mirror pause",
  "mirror resume",
  "mirror cancel",
  "scale",
  "switch",
  "rollback",
  "retire",
  "config check",
  "config show",
  "doctor",
  "store serve",
  "version",
];

for (const verb of VERBS) {
  Deno.test(`psma ${verb} --help shows options and examples`, async () => {
    const { code, stdout } = await psma([...verb.split(" "), "--help"]);
    equal(code, 0);
    for (const option of ["--json", "--config", "--no-color"]) ok(stdout.includes(option), option);
    match(stdout, new RegExp(`Examples:\\n {2}\\$ psma ${verb}`));
  });
}

Deno.test("psma version says the version, for people and programs", async () => {
  match((await psma(["version"])).stdout, /^psma 1\.2\.3 /);
  equal((await psma(["--version"])).stdout, "1.2.3\n");
  equal(JSON.parse((await psma(["version", "--json"])).stdout).version, "1.2.3");
});

Deno.test("psma doctor fails when something fails, after showing all of it", async () => {
  const fine = await psma(["doctor", "--json"]);
  deepEqual([fine.code, JSON.parse(fine.stdout).ok], [0, true]);
  const broken = await psma(["doctor"], {
    probeHost: () =>
      Promise.resolve([{
        name: "io_uring",
        level: "fail",
        found: "forbidden",
        advice: "allow it",
      }]),
  });
  equal(broken.code, 69);
  match(broken.stdout, /FAIL\s+io_uring\s+forbidden\n\s+allow it/);
});

Deno.test("psma doctor asks the stores of the configuration", async () => {
  const asked: string[] = [];
  const { code, stdout } = await psma(["doctor", "--config", "p.yaml"], {
    config: {
      load: (path) =>
        Promise.resolve({ path, listen: "", token_file: "/t", state_dir: "/s", values: {} }),
      check: refused,
      warnings: refused,
    },
    probeStores: (path) => {
      asked.push(path);
      const found = "Cannot reach store far";
      return Promise.resolve([{ name: "store far", level: "warn", found, advice: "start it" }]);
    },
  });
  equal(code, 0);
  deepEqual(asked, ["p.yaml"]);
  match(stdout, /warn\s+store far\s+Cannot reach store far\n\s+start it/);
});

Deno.test("psma config check warns of what this machine cannot do, and is content", async () => {
  const config = {
    load: refused,
    check: () => Promise.resolve([]),
    warnings: () => Promise.resolve(["Cannot scale data: no."]),
  };
  const ran = await psma(["config", "check", "--config", "p.yaml"], { config });
  deepEqual([ran.code, ran.stdout], [0, "warning: Cannot scale data: no.\np.yaml is fine.\n"]);
});

Deno.test("psma config check names every fault with its place", async () => {
  const fault = {
    code: "config/value",
    line: 3,
    column: 7,
    message: "Cannot use size",
    hint: "10GiB",
  };
  const ran = await psma(["config", "check", "--config", "p.yaml"], {
    config: {
      load: refused,
      check: () => Promise.resolve([fault, { ...fault, line: 4 }]),
      warnings: refused,
    },
  });
  equal(ran.code, 78);
  equal(ran.stdout, "p.yaml:3:7: Cannot use size\n  10GiB\np.yaml:4:7: Cannot use size\n  10GiB\n");
  match(ran.stderr, /2 faults/);
});

Deno.test("verbs that ask the agent print what it says, for people and programs", async () => {
  using temp = tempDir();
  const agent = recordingAgent();
  const token_file = temp.file("token");
  Deno.writeTextFileSync(token_file, "correct-horse-battery-staple\n", { mode: 0o600 });
  const token = "correct-horse-battery-staple";
  const server = await openApi(`unix:${temp.file("api.sock")}`);
  server.serve({ agent, clock: systemClock, log: silentLog, token, version: "0" });
  const ask = (...args: string[]) =>
    psma([...args, "--url", server.url, "--token-file", token_file]);
  try {
    match((await ask("status")).stdout, /VOLUME +STATE +SIZE[^]*data +attached +1KiB +512B 50%/);
    match((await ask("status")).stdout, /^store far: Cannot reach store far$/m);
    equal(JSON.parse((await ask("status", "data", "--json")).stdout).volumes[0].name, "data");
    equal(JSON.parse((await ask("volume", "show", "data", "--json")).stdout).size_bytes, 1024);
    match((await ask("plan", "data")).stdout, /data: none\n {2}There is room\./);
    equal(JSON.parse((await ask("plan", "--json")).stdout).length, 1);
    match((await ask("forecast", "data")).stdout, /AHEAD +50%\n +\+1s +600B/);
    const begun = await ask("scale", "data", "--size", "8KiB", "--no-wait", "--json");
    equal(begun.stderr, "");
    equal(JSON.parse(begun.stdout).id, "op-1");
    deepEqual(agent.calls.at(-1), ["scale", "data", { size_bytes: 8192 }]);
    equal((await ask("volume", "create", "x", "--size", "4K", "--json")).code, 0);
    deepEqual(agent.calls.at(-1), ["createVolume", {
      name: "x",
      size_bytes: 4096,
      frontend: "auto",
    }]);
    const unmeant = await ask("volume", "claim", "data");
    deepEqual([unmeant.code, agent.calls.at(-1)?.[0]], [2, "createVolume"]);
    match(unmeant.stderr, /Cannot claim data: --yes is missing/);
    equal((await ask("volume", "claim", "data", "--yes")).code, 0);
    deepEqual(agent.calls.at(-1), ["claim", "data"]);
    const none = await ask("volume", "show", "none");
    deepEqual([none.code, none.stdout], [3, ""]);
    match(none.stderr, /Cannot find none/);
    equal((await ask("mirror", "status", "data")).code, 3);
    Deno.chmodSync(token_file, 0o644);
    const loose = await ask("volume", "detach", "data");
    equal(loose.code, 78);
    match(loose.stderr, /others may read it/);
  } finally {
    await server.stop();
  }
});
