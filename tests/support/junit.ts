/** Reads the JUnit report that `deno test --junit-path` writes: one record per test, steps left out. */

export interface TestCase {
  readonly name: string;
  readonly outcome: "passed" | "failed" | "skipped";
}

const CASE = /<testcase name="([^"]*)"[^>]*?(?:\/>|>([\s\S]*?)<\/testcase>)/g;

/** @returns the tests in the order of the report; a step is part of its test and no record of its own. */
export function decodeJunit(xml: string): TestCase[] {
  const cases: TestCase[] = [];
  for (const [, escapedName = "", body = ""] of xml.matchAll(CASE)) {
    const name = unescape(escapedName);
    // Deno lists a test's steps after all tests, each under the names of those it stands in.
    if (cases.some((test) => name.startsWith(`${test.name} > `))) continue;
    const outcome = body.includes("<skipped")
      ? "skipped"
      : /<(failure|error)\b/.test(body)
      ? "failed"
      : "passed";
    cases.push({ name, outcome });
  }
  return cases;
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&lt;": "<",
  "&gt;": ">",
  "&quot;": '"',
  "&apos;": "'",
  "&#39;": "'",
  "&amp;": "&",
};

function unescape(text: string): string {
  return text.replace(/&(?:lt|gt|quot|apos|#39|amp);/g, (entity) => ENTITIES[entity] ?? entity);
}
