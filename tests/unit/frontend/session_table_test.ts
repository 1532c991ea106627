/** The table of a frontend's exports: indexes, and whose turn it is. */
import { deepEqual, equal, throws } from "node:assert/strict";
import { SessionTable } from "../../../src/frontend/session_table.ts";

Deno.test("SessionTable gives a removed export's index to the next one", () => {
  const table = new SessionTable<string>("export");
  deepEqual(["a", "b", "c"].map((one) => table.add(one)), [0, 1, 2]);
  table.remove(1);
  throws(() => table.at(1), /export/);
  equal(table.add("d"), 1);
  equal(table.at(1), "d");
});

Deno.test("SessionTable.visitAll() begins with another export each time, and leaves out none", () => {
  const table = new SessionTable<string>("export");
  for (const one of ["a", "b", "c"]) table.add(one);
  table.remove(1);
  const round = () => {
    const visited: string[] = [];
    table.visitAll((one) => visited.push(one));
    return visited.join("");
  };
  deepEqual([round(), round(), round()], ["ca", "ca", "ac"]);
});
