/**
 * An application that keeps rows in SQLite, each in a transaction of its own, until SIGTERM; then it counts them
 * and has SQLite check its file. `sqlite_program.ts FILE [JOURNAL]`, with a journal_mode of SQLite's, else `wal`; prints
 * `committed N` now and then, in the end `whole N`.
 */
import { openDatabase } from "../../src/cli/demo/sqlite.ts";

const [path = "", journal = "wal"] = Deno.args;
let stopping = false;
Deno.addSignalListener("SIGTERM", () => stopping = true);
const say = (line: string) => void Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));

const database = openDatabase(path);
database.exec(`pragma journal_mode = ${journal}; pragma synchronous = full`);
database.exec("create table row (id integer primary key, bytes blob)");
const insert = database.prepare("insert into row (bytes) values (randomblob(2000))");
let committed = 0;
while (!stopping) {
  insert.run();
  if (++committed % 50 === 1) say(`committed ${committed}`);
  await new Promise((resolve) => setTimeout(resolve, 5));
}
const check = database.prepare("pragma integrity_check").get();
const count = database.prepare("select count(*) as rows from row").get();
database.close();
const whole = check?.["integrity_check"] === "ok" && count?.["rows"] === committed;
say(whole ? `whole ${committed}` : `broken: ${JSON.stringify({ check, count, committed })}`);
Deno.exit(whole ? 0 : 1);
