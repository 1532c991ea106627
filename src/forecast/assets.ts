/**
 * Files that travel with the program: the SQL in `models/` and DuckDB's WebAssembly module.
 * From sources they are read where they lie; a bundle has them in `assets/` beside itself.
 */
import { createRequire } from "node:module";

const SOURCE_SUFFIX = "/src/forecast/assets.ts";
const fromSources = import.meta.url.endsWith(SOURCE_SUFFIX);

/** The text of `models/<name>.sql`. */
export function modelText(name: string): string {
  const relative = fromSources ? `../../models/${name}.sql` : `./assets/models/${name}.sql`;
  return Deno.readTextFileSync(new URL(relative, import.meta.url));
}

/** DuckDB's module with WebAssembly exceptions (no threads): 34 MB. */
export function wasmBytes(): Uint8Array<ArrayBuffer> {
  if (!fromSources) return Deno.readFileSync(new URL("./assets/duckdb-eh.wasm", import.meta.url));
  const path = createRequire(import.meta.url).resolve("@duckdb/duckdb-wasm/dist/duckdb-eh.wasm");
  return Deno.readFileSync(path);
}
