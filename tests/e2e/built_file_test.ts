/** The one file that users install: it starts on a machine where nothing else was installed. */
import { equal, match, rejects } from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { type Output, run } from "../support/process.ts";
import { requires } from "../support/requires.ts";
import { tempDir } from "../support/temp.ts";

const root = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
const built = `${root}/dist/psma`;
const BUILD_WITHIN_MS = 300_000;

let building: Promise<Output> | undefined;

/** Builds once for the whole file, whichever test comes first. */
function build(): Promise<Output> {
  building ??= run(Deno.execPath(), ["task", "compile"], { cwd: root, within_ms: BUILD_WITHIN_MS });
  return building;
}

/** Runs the built file with an environment that holds nothing but what is named here. */
function psma(home: string, args: readonly string[], exit = 0): Promise<Output> {
  const variables = ["PATH=/usr/bin:/bin", `HOME=${home}`, `PSMA_RUNTIME_DIR=${home}/runtime`];
  return run("env", ["-i", ...variables, built, ...args], { cwd: home, exit });
}

/** Which deno was unpacked, in the only folder there. */
function unpackedInode(runtime: string): number | null {
  const [only, ...others] = [...Deno.readDirSync(runtime)];
  equal(others.length, 0, "one version, nothing half unpacked");
  return Deno.statSync(`${runtime}/${only?.name}/deno`).ino;
}

Deno.test({
  name: "the built file runs under an empty HOME, twice, and tells its faults by exit codes",
  ...requires({ commands: ["tar", "gzip", "env"], temp_bytes: 600e6 }),
  async fn() {
    await build();
    const { version } = JSON.parse(Deno.readTextFileSync(`${root}/deno.json`)) as {
      version: string;
    };
    using home = tempDir();
    // What happens to lie in the current folder is not the program's.
    Deno.writeTextFileSync(home.file("deno.json"), "{ broken");
    const first = await psma(home.path, ["version"]);
    match(first.stdout, new RegExp(`\\b${version.replaceAll(".", "\\.")}\\b`));
    const unpacked = unpackedInode(home.file("runtime"));
    equal((await psma(home.path, ["version"])).stdout, first.stdout);
    equal(unpackedInode(home.file("runtime")), unpacked, "a second start does not unpack again");
    await psma(home.path, ["no-such-verb"], 2);
    const { stdout } = await psma(home.path, ["--help"]);
    match(stdout, /\bdemo\b[\s\S]*\bstatus\b/);
  },
});

Deno.test({
  name: "the built file carries the forecaster, its models and DuckDB",
  ...requires({ commands: ["tar", "gzip", "env"], temp_bytes: 600e6 }),
  async fn() {
    await build();
    using home = tempDir();
    Deno.mkdirSync(home.file("state"));
    const args = ["internal", "forecaster", "--dir", home.file("state")];
    const { stdout } = await psma(home.path, args);
    match(stdout, /^\{"ready":true/);
  },
});

Deno.test({
  name: "the self-extracting file says so where it can unpack nowhere",
  ...requires({ commands: ["sh"] }),
  async fn() {
    using home = tempDir();
    const script = Deno.readTextFileSync(`${root}/.ci/self_extract.sh`)
      .replaceAll('"/var/tmp/psma-$user"', "").replaceAll("/var/lib/psma/runtime", "");
    Deno.writeTextFileSync(home.file("psma"), script);
    const nowhere = ["HOME=", "TMPDIR=/proc", "PSMA_RUNTIME_DIR=/proc/none", "PATH=/usr/bin:/bin"];
    await rejects(
      run("env", ["-i", ...nowhere, "sh", home.file("psma"), "version"]),
      /ended with 126[\s\S]*no folder is both writable and executable/,
    );
  },
});
