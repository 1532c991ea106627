/** One DuckDB in this process: opened locked-down, asked in SQL, answered in plain rows or columns. */
import {
  createDuckDB,
  type DuckDBConnection,
  type DuckDBRuntime,
  NODE_RUNTIME,
  VoidLogger,
} from "@duckdb/duckdb-wasm/blocking";
import { PsmaError } from "../core/mod.ts";
import { wasmBytes } from "./assets.ts";
import { checkpointRuntime } from "./duckdb_runtime.ts";

export type SqlValue = number | string | null;
export type Row = Readonly<Record<string, number | string | null>>;

type DuckDBNodeBindings = Awaited<ReturnType<typeof createDuckDB>>;

type OnInstance = (instance: WebAssembly.Instance, module: WebAssembly.Module) => void;
interface Instantiating {
  instantiateWasm(imports: WebAssembly.Imports, onInstance: OnInstance): unknown;
}

const READ_WRITE = 3;
const MEMORY = ":memory:";

export class Database {
  readonly #bindings: DuckDBNodeBindings;
  readonly #connection: DuckDBConnection;
  #prepared = new Map<string, ReturnType<DuckDBConnection["prepare"]>>();

  private constructor(bindings: DuckDBNodeBindings, connection: DuckDBConnection) {
    this.#bindings = bindings;
    this.#connection = connection;
  }

  /**
   * @param options.path absolute path of the database file; without it the database lives in memory.
   * @throws {PsmaError} forecast/database when the file cannot be read as a database.
   */
  static async open(options: { path?: string; memory_limit_mib: number }): Promise<Database> {
    const { path = MEMORY, memory_limit_mib } = options;
    const runtime = path === MEMORY ? NODE_RUNTIME : checkpointRuntime(path);
    const bindings = await instantiate(runtime);
    try {
      bindings.open({
        path,
        accessMode: READ_WRITE,
        useDirectIO: path !== MEMORY,
        query: { castBigIntToDouble: true, castDecimalToDouble: true },
      });
      const connection = bindings.connect();
      // Offline, an autoloaded extension would be waited for without end; external access off makes it an error.
      connection.query(`SET memory_limit='${memory_limit_mib}MB'`);
      connection.query("SET enable_external_access=false");
      connection.query("SET lock_configuration=true");
      return new Database(bindings, connection);
    } catch (error) {
      throw new PsmaError("forecast/database", `Cannot open forecast database: ${text(error)}`, {
        cause: error,
      });
    }
  }

  /** Runs one or more statements without parameters and drops the result. */
  run(statements: string): void {
    this.#ask(statements, () => this.#connection.query(statements));
  }

  /**
   * Runs statements with numbers, or comma-separated lists of numbers, written in place of `?`: several
   * statements take no parameters, and a long parameter does not fit on the module's small stack.
   */
  runWith(statements: string, ...numbers: (number | readonly number[])[]): void {
    let index = 0;
    this.run(statements.replaceAll("?", () => String(numbers[index++])));
  }

  /** Runs one statement; `?` are filled from `values`. Rows in the order of the answer. */
  rows(statement: string, ...values: SqlValue[]): Row[] {
    return this.#ask(statement, () => {
      const table = values.length === 0
        ? this.#connection.query(statement)
        : this.#prepare(statement).query(...values);
      return table.toArray().map((row) => row.toJSON() as Row);
    });
  }

  /** The only row of an answer. */
  row(statement: string, ...values: SqlValue[]): Row {
    const [row] = this.rows(statement, ...values);
    if (!row) throw new PsmaError("forecast/query", "Cannot read answer: it has no row");
    return row;
  }

  /** Runs `work` in one transaction: all of it or nothing. */
  transaction<T>(work: () => T): T {
    this.run("BEGIN TRANSACTION");
    try {
      const result = work();
      this.run("COMMIT");
      return result;
    } catch (error) {
      this.run("ROLLBACK");
      throw error;
    }
  }

  /** Makes everything committed so far durable. */
  checkpoint(): void {
    this.run("CHECKPOINT");
  }

  close(): void {
    for (const statement of this.#prepared.values()) statement.close();
    this.#prepared.clear();
    this.#connection.close();
    this.#bindings.reset();
  }

  #prepare(statement: string): ReturnType<DuckDBConnection["prepare"]> {
    let prepared = this.#prepared.get(statement);
    if (!prepared) this.#prepared.set(statement, prepared = this.#connection.prepare(statement));
    return prepared;
  }

  #ask<T>(statement: string, work: () => T): T {
    try {
      return work();
    } catch (error) {
      const start = statement.trim().slice(0, 80).replaceAll(/\s+/g, " ");
      throw new PsmaError("forecast/query", `Cannot run "${start}": ${text(error)}`, {
        cause: error,
      });
    }
  }
}

async function instantiate(runtime: DuckDBRuntime): Promise<DuckDBNodeBindings> {
  // The package is CommonJS and reads __dirname, which a bundled module lacks.
  const scope = globalThis as { __dirname?: string };
  scope.__dirname ??= "/";
  const bundles = {
    mvp: { mainModule: "", mainWorker: "" },
    eh: { mainModule: "eh", mainWorker: "" },
  };
  const bindings = await createDuckDB(bundles, new VoidLogger(), runtime);
  // The stock method reads a path; ours may come out of a packed binary, hence bytes.
  (bindings as unknown as Instantiating).instantiateWasm = (imports, onInstance) => {
    globalThis.DUCKDB_RUNTIME = { ...runtime };
    WebAssembly.instantiate(wasmBytes(), imports).then(
      ({ instance, module }) => onInstance(instance, module),
    );
    return {};
  };
  await bindings.instantiate();
  return bindings;
}

function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
