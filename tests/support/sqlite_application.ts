/** The test's end of sqlite_program.ts, and a look at what it left. */
import { equal } from "node:assert/strict";
import { run, start, type Started, waitUntil } from "./process.ts";

export type Journal = "wal" | "delete";

export class SqliteApplication implements AsyncDisposable {
  readonly #process: Started;

  constructor(readonly path: string, readonly journal: Journal) {
    const script = new URL("./sqlite_program.ts", import.meta.url).pathname;
    const args = ["run", "-A", "--quiet", script, path, journal];
    this.#process = start(Deno.execPath(), args);
  }

  /** Transactions that it has said are committed. */
  get committed(): number {
    return Number(/^committed (\d+)\n(?![^]*^committed)/m.exec(this.#process.output())?.[1] ?? 0);
  }

  /** Waits until it commits again, twice: the second one began after this was asked. */
  async worked(): Promise<void> {
    for (let times = 0; times < 2; times++) {
      const before = this.committed;
      await waitUntil(() => this.committed > before, {
        what: () => `${this.path} to grow; it said:\n${this.#process.output()}`,
      });
    }
  }

  /** Ends it; it and SQLite agree on what it committed. @returns how many rows that are. */
  async endWhole(): Promise<number> {
    equal((await this.#process.end()).code, 0, this.#process.output());
    const [, rows = "NaN"] = await this.#process.line(/^whole (\d+)$/m);
    return Number(rows);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process[Symbol.asyncDispose]();
  }
}

/** Another program's view of a database that nobody uses: SQLite finds nothing wrong, and all rows are there. */
export async function checkDatabase(path: string, rows: number): Promise<void> {
  const { stdout } = await run("sqlite3", [
    path,
    "pragma integrity_check; select count(*) from row",
  ]);
  equal(stdout, `ok\n${rows}\n`);
}
