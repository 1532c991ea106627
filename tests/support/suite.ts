/** The groups of test files, how they may run, and how long one file may take. */

export interface Group {
  readonly name: string;
  /** Files at a time; what uses loop devices, mounts or the machine's speed runs alone. */
  readonly parallel: boolean;
  readonly limit_ms: number;
  /** Part of the quick run behind `deno task ok`. */
  readonly quick: boolean;
  /** What a file of this group leaves behind is a failure. */
  readonly leftovers: boolean;
  /** Further flags of `deno test`. */
  readonly flags: readonly string[];
}

const MINUTE_MS = 60_000;

/**
 * A timer or an operation that a test leaves behind fails it. Not resources too: a library that is
 * loaded when it is first needed stays loaded, and would count against the test that came first.
 */
const SANITIZERS: readonly string[] = ["--sanitize-ops"];

export const GROUPS: readonly Group[] = [
  {
    name: "tidy",
    parallel: true,
    limit_ms: 3 * MINUTE_MS,
    quick: true,
    leftovers: false,
    flags: [],
  },
  {
    name: "unit",
    parallel: true,
    limit_ms: 5 * MINUTE_MS,
    quick: true,
    leftovers: true,
    flags: SANITIZERS,
  },
  { name: "sim", parallel: true, limit_ms: 5 * MINUTE_MS, quick: true, leftovers: true, flags: [] },
  {
    name: "integration",
    parallel: false,
    limit_ms: 10 * MINUTE_MS,
    quick: false,
    leftovers: true,
    flags: [],
  },
  {
    name: "e2e",
    parallel: false,
    limit_ms: 10 * MINUTE_MS,
    quick: false,
    leftovers: true,
    flags: [],
  },
  {
    name: "vm",
    parallel: false,
    limit_ms: 15 * MINUTE_MS,
    quick: false,
    leftovers: true,
    flags: [],
  },
];

/** The checks of the toolchain itself; each counts as one test. */
export const CHECKS: readonly { readonly name: string; readonly args: readonly string[] }[] = [
  { name: "fmt", args: ["fmt", "--check"] },
  { name: "lint", args: ["lint", "--quiet"] },
  { name: "check", args: ["check", "--quiet", "."] },
];

/** All test files of a group under `root`, by path, in order. A group without a folder has none. */
export function testFiles(root: string, group: string): string[] {
  return walk(`${root}/tests/${group}`).filter((path) => path.endsWith("_test.ts"))
    .map((path) => path.slice(root.length + 1)).sort();
}

/** Every file below a folder; none where the folder is missing. */
export function walk(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].flatMap((entry) => {
      const path = `${folder}/${entry.name}`;
      return entry.isDirectory ? walk(path) : [path];
    });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}
