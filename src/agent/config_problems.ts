/** What can be wrong with a configuration: a code, a place and one sentence for each fault, all of them told. */
import { PsmaError } from "../core/mod.ts";

export interface ConfigProblem {
  /** `config/syntax`, `config/unknown-key`, `config/missing`, `config/value`, `config/unsupported`, `config/reference`. */
  readonly code: string;
  /** From 1. */
  readonly line: number;
  /** From 1. */
  readonly column: number;
  /** Dotted: `volumes.data.size`; empty for the whole file. */
  readonly path: string;
  /** One sentence, without the place. */
  readonly message: string;
  readonly hint?: string;
}

/** `psma.yaml:12:5: Cannot read …`, as compilers print it. */
export function formatProblem(problem: ConfigProblem, file: string): string {
  const { line, column, message, hint } = problem;
  return `${file}:${line}:${column}: ${message}${hint === undefined ? "" : ` (${hint})`}`;
}

/** The error for a configuration with problems: the first one's code, all of them in the hint. */
export function problemsError(problems: readonly ConfigProblem[], file: string): PsmaError {
  const [first, ...rest] = problems.map((problem) => formatProblem(problem, file));
  return new PsmaError(problems[0]?.code ?? "config/value", first ?? `${file} is not valid`, {
    hint: rest.length === 0
      ? `Check again with: psma config check --config ${file}`
      : ["Also:", ...rest].join("\n  "),
  });
}

/** The candidate that is most like `word`, where one is alike enough to be what was meant. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(word.length / 2)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** Letters to insert, delete, replace or swap with their neighbour. Damerau 1964 (optimal string alignment). */
function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, column) => column)];
  const at = (row: number, column: number) => rows[row]?.[column] ?? Infinity;
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    rows.push(row);
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      row.push(Math.min(
        at(i - 1, j) + 1,
        at(i, j - 1) + 1,
        at(i - 1, j - 1) + same,
        swapped ? at(i - 2, j - 2) + 1 : Infinity,
      ));
    }
  }
  return at(a.length, b.length);
}
