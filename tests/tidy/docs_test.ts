/** What the pages say must be so: commands exist, links lead somewhere, the changelog is current. */
import { match } from "node:assert/strict";
import { expectNone, files, read } from "./tree.ts";

const pages = files.filter((path) => path.endsWith(".md"));
const config = JSON.parse(read("deno.json")) as {
  version: string;
  tasks: Record<string, string>;
  imports: Record<string, string>;
};

const TOP_LEVEL = new Set(
  [
    "deno.json deno.lock main.ts src models tests install.sh README.md LICENSE CHANGELOG.md docs",
    ".ci .gitignore",
  ].join(" ").split(" "),
);

Deno.test("the top level holds what the design names, and nothing else", () => {
  const found = new Set(files.map((path) => path.split("/", 1)[0] ?? ""));
  expectNone([...found].filter((name) => !TOP_LEVEL.has(name)));
});

Deno.test("every task that a page or CI names exists", () => {
  const named = [...pages, ".ci/run"].flatMap((path) =>
    [...read(path).matchAll(/\bdeno(?:@[\d.]+)? task ([a-z][\w:-]*)/g)]
      .filter(([, task = ""]) => config.tasks[task] === undefined)
      .map(([command]) => `${path}: ${command}`)
  );
  expectNone(named);
});

Deno.test("every file that a task runs exists", () => {
  const missing = Object.entries(config.tasks).flatMap(([task, command]) =>
    [...command.matchAll(/\S+\.ts\b/g)].map(([path]) => path)
      .filter((path) => !files.includes(path)).map((path) => `${task}: ${path}`)
  );
  expectNone(missing);
});

Deno.test("every relative link leads to a file, and to a heading where it names one", () => {
  const broken: string[] = [];
  for (const page of pages) {
    const text = read(page).replace(/```[\s\S]*?```/g, "");
    for (const [, target = ""] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const [path = "", anchor] = target.split("#");
      const file = path === "" ? page : resolve(page, path);
      const there = files.some((one) => one === file || one.startsWith(`${file}/`));
      if (!there || anchor !== undefined && !headings(file).includes(anchor)) {
        broken.push(`${page}: ${target}`);
      }
    }
  }
  expectNone(broken);
});

Deno.test("packages are pinned to one version", () => {
  const loose = Object.entries(config.imports).filter(([name, target]) =>
    !new RegExp(`^npm:${name}@\\d+\\.\\d+\\.\\d+(/|$)`).test(target)
  ).map(([name, target]) => `${name}: ${target}`);
  expectNone(loose);
});

const changelog = { ignore: !files.includes("CHANGELOG.md") };
Deno.test("the changelog tells of the current version", changelog, () => {
  const headingsOf = read("CHANGELOG.md").split("\n").filter((line) => line.startsWith("## "));
  match(headingsOf.join("\n"), new RegExp(`\\b${config.version.replaceAll(".", "\\.")}\\b`));
});

const readme = { ignore: !files.includes("README.md") };
Deno.test("the README opens with the two commands that a newcomer needs", readme, () => {
  const opening = read("README.md").split("\n").slice(0, 40).join("\n");
  match(opening, /npx -y deno@[\d.]+ task demo/);
  match(opening, /npx -y deno@[\d.]+ task test/);
  const command = /npx -y deno@[\d.]+ task test/.exec(opening)?.[0] ?? "";
  match(read(".ci/run"), new RegExp(`^exec ${command.replaceAll(".", "\\.")}$`, "m"));
});

function resolve(page: string, target: string): string {
  return new URL(target, `file:///${page}`).pathname.slice(1).replace(/\/$/, "");
}

/** The anchors that a Markdown page's headings make, as GitHub makes them. */
function headings(page: string): string[] {
  return [...read(page).matchAll(/^#+ (.+)$/gm)].map(([, title = ""]) =>
    title.toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-")
  );
}
