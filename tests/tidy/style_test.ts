/** The house rules that a program can check. */
import { equal } from "node:assert/strict";
import { expectNone, files, places, productFiles, read, root, takeApart } from "./tree.ts";

const WORTH_A_LOOK_LINES = 400;
const LINES_MAX = 500;

const sourceFiles = files.filter((path) => /\.(ts|sql|sh)$/.test(path) || path === ".ci/run");
const testFiles = files.filter((path) => path.startsWith("tests/") && path.endsWith(".ts"));

/** Every place in the code of `paths` (comments and strings left out) where `pattern` stands. */
function inCode(paths: readonly string[], pattern: RegExp): string[] {
  return paths.flatMap((path) => places(path, takeApart(read(path)).code, pattern));
}

Deno.test("files are short", () => {
  const lines = new Map(sourceFiles.map((path) => [path, read(path).split("\n").length - 1]));
  const longer = (than: number) =>
    [...lines].filter(([, count]) => count > than).map(([path, count]) => `${path}: ${count}`);
  const warnings = longer(WORTH_A_LOOK_LINES);
  if (warnings.length > 0) {
    Deno.stderr.writeSync(
      new TextEncoder().encode(`warning: long files: ${warnings.join(", ")}\n`),
    );
  }
  expectNone(longer(LINES_MAX));
});

Deno.test("files are named for what they hold", () => {
  const vague = /(^|\/)(utils?|helpers?|common|misc|shared|stuff)(_test)?(\.[a-z]+|\/)/;
  expectNone(files.filter((path) => vague.test(path)));
  expectNone(files.filter((path) => /^(src|tests)\/.*[^a-z0-9_./]/.test(path)));
});

Deno.test("nothing writes through console", () => {
  expectNone(inCode(productFiles, /\bconsole\s*\./g));
});

Deno.test("only core/ knows the clock and chance", () => {
  const elsewhere = productFiles.filter((path) => !path.startsWith("src/core/"));
  expectNone(
    inCode(elsewhere, /\bDate\.now\b|\bMath\.random\b|\bperformance\.now\b|\bnew Date\(\s*\)/g),
  );
});

Deno.test("every file opens by saying what it is", () => {
  const opening = /^(#![^\n]*\n)?(\/\*\*|\/\/|--|#) ?\S|^(#![^\n]*\n)?\/\*\*\n \* \S/;
  const shipped = sourceFiles.filter((path) => !/^tests\/(unit|integration|e2e)\//.test(path));
  expectNone(shipped.filter((path) => !opening.test(read(path))));
});

Deno.test("nothing is left for later", () => {
  const words = new RegExp(
    `\\b(${["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"].join("|")})\\b`,
    "g",
  );
  expectNone(files.flatMap((path) => places(path, read(path), words)));
});

Deno.test("code is written with plain quotes", () => {
  const quotes = /[\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb]/g;
  expectNone(sourceFiles.flatMap((path) => places(path, read(path), quotes)));
});

Deno.test("SQL lives in models/", () => {
  const sql =
    /\b(select\s[^'"`]*?\sfrom\s|insert\s+into\s|create\s+(or\s+replace\s+)?(temp\s+)?(table|view|macro|index)\s|delete\s+from\s|update\s+\w+\s+set\s)/gi;
  // The demo's application is a real SQLite user; its statements are its own, not the product's models.
  const bound = productFiles.filter((path) => !/\/demo/.test(path));
  expectNone(bound.flatMap((path) => places(path, takeApart(read(path)).strings, sql)));
});

Deno.test("no file names the machine it was written on", () => {
  const machine = /(?<![\w.~-])\/(home|Users|root|work)\/[A-Za-z.]/g;
  expectNone(files.flatMap((path) => places(path, read(path), machine)));
});

Deno.test("no test is narrowed, switched off by hand or timed by sleeping", () => {
  const narrowed = /\bDeno\.test\.(only|ignore)\b|\bonly:\s*true\b|\bignore:\s*true\b/g;
  const slept = /\bsetTimeout\(\s*(resolve|done|ok|r|res)\b|\bsystemClock\.sleep\(|\.sleep\(\d/g;
  const cases = testFiles.filter((path) => path.endsWith("_test.ts"));
  const timing = cases.filter((path) => path !== "tests/unit/core/clock_test.ts");
  expectNone([...inCode(cases, narrowed), ...inCode(timing, slept)]);
});

Deno.test("unit tests mirror src/", () => {
  const orphans = files.filter((path) => path.startsWith("tests/unit/") && path.endsWith(".ts"))
    .filter((path) => {
      const subject = path.slice("tests/unit/".length).replace(/(_fuzz)?_test\.ts$/, "");
      const model = `models/${subject.split("/").at(-1)}.sql`;
      const mirrored = [`src/${subject}.ts`, `${subject}.ts`, model];
      return !mirrored.some((one) => files.includes(one));
    });
  expectNone(orphans);
});

interface DocNode {
  readonly name?: string;
  readonly kind?: string;
  readonly jsDoc?: unknown;
  readonly location?: { readonly filename: string };
}

Deno.test("every function behind a door carries a docstring", async () => {
  const doors = productFiles.filter((path) => path.endsWith("/mod.ts"));
  if (doors.length === 0) return;
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["doc", "--json", ...doors],
    cwd: root,
  }).output();
  equal(success, true, new TextDecoder().decode(stderr));
  const silent = new Set(silentFunctions(JSON.parse(new TextDecoder().decode(stdout))));
  expectNone([...silent].sort());
});

/** Functions without a docstring, wherever in the answer of `deno doc` they stand. */
function silentFunctions(tree: unknown, name = ""): string[] {
  if (Array.isArray(tree)) return tree.flatMap((one) => silentFunctions(one, name));
  if (typeof tree !== "object" || tree === null) return [];
  const node = tree as DocNode;
  const called = node.name ?? name;
  if (node.kind === "function" && node.location !== undefined) {
    const file = node.location.filename.replace(`file://${root}/`, "");
    return node.jsDoc !== undefined || !file.startsWith("src/") ? [] : [`${file}: ${called}`];
  }
  return Object.entries(node).filter(([key]) => key !== "functionDef" && key !== "def")
    .flatMap(([, value]) => silentFunctions(value, called));
}

Deno.test("takeApart() keeps code, strings and comments apart, line by line", () => {
  const text = [
    'const a = "x // y"; // console.log',
    "/* Date.now */ b(/console\\.[/]/g, c / d / e);",
    "`line one",
    "  select ${f('\\'')} from t`;",
  ].join("\n");
  const { code, strings } = takeApart(text);
  equal(code.split("\n").length, 4);
  equal(code.replace(/\s+/g, " "), "const a = ; b( , c / d / e); ;");
  equal(strings.replace(/\s+/g, " ").trim(), "\"x // y\" `line one select ${f('\\'')} from t`");
});
