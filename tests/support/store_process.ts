/** The test's end of store_program.ts: a store process, its driver, and NBD tools on its volumes. */
import { silentLog } from "../../src/core/mod.ts";
import { type DataStore, openStore } from "../../src/datastore/mod.ts";
import { type Output, run, start } from "./process.ts";

export interface StoreProcess extends AsyncDisposable {
  readonly store: DataStore;
  readonly url: string;
  readonly token: string;
  readonly token_file: string;
  /** All that it printed. */
  output(): string;
  /** Ends it as a crash would. */
  kill(): Promise<void>;
}

export interface StoreProcessOptions {
  readonly directories: readonly string[];
  readonly listen: string;
  readonly nbd: string;
  readonly capacity_bytes?: number;
}

export async function startStoreProcess(options: StoreProcessOptions): Promise<StoreProcess> {
  const script = new URL("./store_program.ts", import.meta.url).pathname;
  const args = ["run", "-A", "--quiet", script, JSON.stringify(options)];
  const child = start(Deno.execPath(), args);
  try {
    const [, url = "", token_file = ""] = await child.line(/^ready (\S+) (\S+)$/m);
    const token = Deno.readTextFileSync(token_file).trim();
    const store = openStore("far", { type: "psma", url, token_file }, { log: silentLog });
    return {
      store,
      url,
      token,
      token_file,
      output: child.output,
      kill: async () => void await child.end("SIGKILL"),
      async [Symbol.asyncDispose]() {
        store.close();
        await child[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await child[Symbol.asyncDispose]();
    throw error;
  }
}

/** The NBD URI of a placement. */
export function uriOf(placement: { backend: { type: string; uri?: string } }): string {
  return placement.backend.uri ?? "";
}

/** Without the epoch: for reading. */
export function readOnlyUri(uri: string): string {
  return uri.replace(/@\d+(?=\?|$)/, "");
}

export interface NbdInfo {
  readonly "export-size": number;
  readonly is_read_only: boolean;
}

export async function nbdInfo(uri: string): Promise<NbdInfo> {
  const { stdout } = await run("nbdinfo", ["--json", uri]);
  return JSON.parse(stdout).exports[0];
}

/** Copies with nbdcopy, flushed. */
export function nbdCopy(from: string, to: string): Promise<Output> {
  return run("nbdcopy", ["--flush", from, to]);
}
