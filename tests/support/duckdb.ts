/** One DuckDB in memory for the tests of a file, and tables filled from arrays. */
import { Database } from "../../src/forecast/database.ts";

// Opened here because DuckDB takes over a second to start and keeps a message port for good.
const shared = await Database.open({ memory_limit_mib: 256 });

/** Runs `work` on a database without tables. */
export function withDatabase(work: (database: Database) => void): void {
  for (const row of shared.rows("SELECT table_name FROM duckdb_tables()")) {
    shared.run(`DROP TABLE ${row["table_name"]}`);
  }
  work(shared);
}

/** Makes `name(i, v)` with i = 1..n. */
export function giveSeries(database: Database, name: string, values: readonly number[]): void {
  database.run(
    `CREATE OR REPLACE TEMP TABLE ${name} AS SELECT generate_subscripts(vs, 1) AS i, unnest(vs) AS v ` +
      `FROM (SELECT '[${values.join(",")}]'::DOUBLE[] AS vs)`,
  );
}
