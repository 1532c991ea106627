/** The checkout as the tidy tests see it: its files, their code without comments, and who imports whom. */
import { AssertionError } from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { walk } from "../support/suite.ts";
import { tempDir } from "../support/temp.ts";
import type { Import } from "./layers.ts";

export const root: string = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");

const NOT_OURS = /^(\.git|dist|\.cache|node_modules)\//;
const BINARY = /\.(png|jpg|gif|ico|wasm|gz|bin)$/;

/** Paths of all text files of the checkout, relative to it, sorted. */
export const files: readonly string[] = walk(root).map((path) => path.slice(root.length + 1))
  .filter((path) => !NOT_OURS.test(path) && !BINARY.test(path)).sort();

/** TypeScript of the product itself: main.ts and src/. */
export const productFiles: readonly string[] = files.filter((path) =>
  path === "main.ts" || path.startsWith("src/") && path.endsWith(".ts")
);

/** Text of a file, by its path relative to the checkout. */
export function read(path: string): string {
  return Deno.readTextFileSync(`${root}/${path}`);
}

/** A source file taken apart; both keep the lines where they were. */
export interface Source {
  /** Comments, and the insides of strings, are blanks. */
  readonly code: string;
  /** The insides of strings only; all else is blanks. */
  readonly strings: string;
}

const TOKENS =
  /\/\/[^\n]*|\/\*[\s\S]*?\*\/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`|(?<=[(,=:[!&|?{};\n]\s*|return\s+)\/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\/[a-z]*/g;

/** Takes TypeScript apart well enough for checks: code inside `${}` of a template counts as string. */
export function takeApart(text: string): Source {
  const blank = (part: string) => part.replace(/[^\n]/g, " ");
  const isString = (token: string) => /^["'`]/.test(token);
  const code = text.replace(TOKENS, blank);
  let strings = "";
  let at = 0;
  for (const match of text.matchAll(TOKENS)) {
    strings += blank(text.slice(at, match.index));
    strings += isString(match[0]) ? match[0] : blank(match[0]);
    at = match.index + match[0].length;
  }
  return { code, strings: strings + blank(text.slice(at)) };
}

/** Fails with every fault on a line of its own; an assertion's own message would cut the list short. */
export function expectNone(faults: readonly (string | undefined)[]): void {
  const found = faults.filter((fault) => fault !== undefined);
  if (found.length > 0) throw new AssertionError({ message: `found:\n  ${found.join("\n  ")}` });
}

/** Every place where `pattern` (with the g flag) stands, as `path:line: text`. */
export function places(path: string, text: string, pattern: RegExp): string[] {
  return [...text.matchAll(pattern)].map((match) => {
    const line = text.slice(0, match.index).split("\n").length;
    return `${path}:${line}: ${match[0].trim().slice(0, 60)}`;
  });
}

interface InfoModule {
  readonly specifier: string;
  readonly error?: string;
  readonly dependencies?: readonly {
    readonly specifier: string;
    readonly code?: { readonly specifier?: string };
    readonly type?: { readonly specifier?: string };
  }[];
}

/** All imports between `paths` (relative to `base`) and from them to packages, as `deno info` resolves them. */
export async function readImports(base: string, paths: readonly string[]): Promise<Import[]> {
  using temp = tempDir();
  const entry = temp.file("all.ts");
  Deno.writeTextFileSync(entry, paths.map((path) => `import "file://${base}/${path}";\n`).join(""));
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", "--no-lock", "--config", `${root}/deno.json`, entry],
    stdout: "piped",
    stderr: "piped",
  }).output();
  if (!success) throw new Error(`deno info: ${new TextDecoder().decode(stderr)}`);
  const { modules } = JSON.parse(new TextDecoder().decode(stdout)) as { modules: InfoModule[] };
  const prefix = `file://${base}/`;
  const imports: Import[] = [];
  for (const { specifier, dependencies } of modules) {
    if (!specifier.startsWith(prefix)) continue;
    for (const dependency of dependencies ?? []) {
      const target = (dependency.code ?? dependency.type)?.specifier ?? dependency.specifier;
      imports.push({
        from: specifier.slice(prefix.length),
        to: target.startsWith(prefix) ? target.slice(prefix.length) : dependency.specifier,
        types_only: dependency.code === undefined,
      });
    }
  }
  return imports;
}
