/** SQLite as the runtime brings it along; it has no types of its own here, so what is used is named. */
import process from "node:process";
import { PsmaError } from "../../core/mod.ts";

export interface Statement {
  run(...values: readonly (number | string | Uint8Array)[]): unknown;
  get(): Readonly<Record<string, unknown>> | undefined;
}

export interface Database {
  exec(sql: string): void;
  prepare(sql: string): Statement;
  close(): void;
}

/** Opens a database file, making it where it is missing. */
export function openDatabase(path: string): Database {
  const sqlite = process.getBuiltinModule("node:sqlite") as
    | { readonly DatabaseSync: new (path: string) => Database }
    | undefined;
  if (sqlite === undefined) {
    throw new PsmaError("unavailable/sqlite", "Cannot open a database: this runtime has no SQLite");
  }
  return new sqlite.DatabaseSync(path);
}
