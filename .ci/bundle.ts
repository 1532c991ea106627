/** The bundle: all that users run, in one folder. The built file and the test machines both carry it. */
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

/** The checkout. */
export const root: string = fileURLToPath(new URL("..", import.meta.url)).replace(/\/$/, "");

const BUNDLE_FLAGS = ["bundle", "--quiet", "--platform", "deno"] as const;

/** What runs on threads of its own: its name in the bundle, its source below `src/dataplane`. */
const THREADS = { worker: "worker.ts", tls_relay: "tls/relay.ts" } as const;

/** Runs a command in the checkout. @throws {Error} when it fails. */
export function run(command: string, args: readonly string[], env = {}): void {
  const { success } = new Deno.Command(command, {
    args: [...args],
    cwd: root,
    env,
    stdin: "null",
    stdout: "inherit",
    stderr: "inherit",
  }).outputSync();
  if (!success) throw new Error(`Cannot compile: ${[command, ...args].join(" ")} failed`);
}

/** Bundles the program and its threads, and lays the files that they read beside them. */
export function bundleApp(folder: string): void {
  Deno.mkdirSync(`${folder}/assets`, { recursive: true });
  const flags = [...BUNDLE_FLAGS, "--minify"];
  // Split, so that a short command loads only what it needs.
  run(Deno.execPath(), [...flags, "--code-splitting", "--outdir", folder, "main.ts"]);
  for (const [thread, source] of Object.entries(THREADS)) {
    run(Deno.execPath(), [...flags, "-o", `${folder}/${thread}.js`, `src/dataplane/${source}`]);
  }
  run("cp", ["-R", "models", `${folder}/assets/models`]);
  const wasm = createRequire(`${root}/main.ts`).resolve("@duckdb/duckdb-wasm/dist/duckdb-eh.wasm");
  Deno.copyFileSync(wasm, `${folder}/assets/duckdb-eh.wasm`);
}

/** Bundles one program into one file that needs no packages. */
export function bundleProgram(source: string, out: string): void {
  run(Deno.execPath(), [...BUNDLE_FLAGS, "-o", out, source]);
}
