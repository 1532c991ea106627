/** Rooms import only what their row of the table names, through doors, and never in a circle. */
import { deepEqual, match } from "node:assert/strict";
import { tempDir } from "../support/temp.ts";
import {
  cyclesOf,
  DOORS,
  faultOf,
  type Import,
  LAYERS,
  reachableFrom,
  roomOf,
  WORKER_ENTRIES,
} from "./layers.ts";
import { expectNone, productFiles, readImports, root } from "./tree.ts";

const imports = await readImports(root, productFiles);

Deno.test("rooms import only what the table allows", () => {
  expectNone(imports.map(faultOf));
});

Deno.test("no file imports itself in a circle", () => {
  expectNone(cyclesOf(imports).map((cycle) => cycle.join(" → ")));
});

Deno.test("every room of src/ is in the table", () => {
  const rooms = new Set(productFiles.flatMap((path) => roomOf(path) ?? []));
  expectNone([...rooms].filter((room) => LAYERS[room] === undefined));
});

Deno.test("every file of a room is reached from main.ts, a worker or the room's door", () => {
  const entries = [
    "main.ts",
    ...WORKER_ENTRIES,
    ...DOORS.map(({ to, file }) => `src/${to}/${file}`),
  ];
  const hasDoor = (path: string) => productFiles.includes(`src/${roomOf(path)}/mod.ts`);
  const doors = productFiles.filter((path) => path === `src/${roomOf(path)}/mod.ts`);
  const reached = reachableFrom([...entries, ...doors], imports);
  expectNone(productFiles.filter((path) => hasDoor(path) && !reached.has(path)));
});

Deno.test("only sys/ calls foreign functions", () => {
  const outside = productFiles.filter((path) =>
    roomOf(path) !== "sys" &&
    /\bDeno\.dlopen\b|\blibc\(\)/.test(Deno.readTextFileSync(`${root}/${path}`))
  );
  expectNone(outside);
});

Deno.test("docs/ARCHITECTURE.md shows the table that is held", () => {
  const text = Deno.readTextFileSync(`${root}/docs/ARCHITECTURE.md`);
  const rows = [...text.matchAll(/^\| `(\w+)\/` +\|[^|]*\| +([^|]*?) +\|$/gm)];
  const shown = rows.map(([, room = "", may = ""]) => [room, may === "–" ? [] : may.split(" ")]);
  deepEqual(Object.fromEntries(shown), LAYERS);
});

Deno.test("faultOf() tells the table's rows, doors and packages apart", () => {
  const fault = (from: string, to: string, types_only = false) =>
    faultOf({ from, to, types_only }) ?? "fine";
  deepEqual(fault("src/volume/a.ts", "src/core/mod.ts"), "fine");
  deepEqual(fault("src/volume/a.ts", "src/volume/b.ts"), "fine");
  deepEqual(fault("main.ts", "src/agent/mod.ts"), "fine");
  deepEqual(fault("src/cli/a.ts", "src/api/client.ts"), "fine");
  deepEqual(fault("src/cli/a.ts", "src/api/mod.ts", true), "fine");
  deepEqual(fault("src/core/a.ts", "node:url"), "fine");
  match(fault("src/volume/a.ts", "src/core/units.ts"), /only mod\.ts is its door/);
  match(fault("src/core/a.ts", "src/volume/mod.ts", true), /core may not import volume/);
  match(fault("src/forecast/a.ts", "src/codec/mod.ts"), /forecast may not import codec/);
  match(fault("src/agent/a.ts", "src/volume/mod.ts"), /agent may not import volume/);
  match(fault("src/cli/a.ts", "src/api/mod.ts"), /types only/);
  match(fault("src/cli/a.ts", "src/api/routes.ts"), /only mod\.ts is its door/);
  match(fault("main.ts", "src/core/units.ts"), /only a room's mod\.ts/);
  match(fault("src/elsewhere/a.ts", "src/core/mod.ts"), /not in the table/);
  match(fault("src/core/a.ts", "zod"), /core may not use zod/);
  match(fault("src/forecast/a.ts", "npm:zod@4"), /not through the import map/);
});

Deno.test("readImports() sees what stands in the files, types and dynamic imports too", async () => {
  using temp = tempDir();
  Deno.writeTextFileSync(temp.file("a.ts"), 'import type { B } from "./b.ts";\nexport type A = B;');
  Deno.writeTextFileSync(temp.file("b.ts"), 'export type B = 1;\nawait import("./c.ts");');
  Deno.writeTextFileSync(temp.file("c.ts"), 'import "./a.ts";\nimport "node:url";');
  const found = await readImports(temp.path, ["a.ts", "b.ts", "c.ts"]);
  const expected: Import[] = [
    { from: "a.ts", to: "b.ts", types_only: true },
    { from: "b.ts", to: "c.ts", types_only: false },
    { from: "c.ts", to: "a.ts", types_only: false },
    { from: "c.ts", to: "node:url", types_only: false },
  ];
  deepEqual(found, expected);
  deepEqual(cyclesOf(found), [["a.ts", "b.ts", "c.ts", "a.ts"]]);
  deepEqual([...reachableFrom(["b.ts"], found)], ["b.ts", "c.ts", "a.ts", "node:url"]);
});
