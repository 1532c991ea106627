import { deepEqual, equal, rejects, throws } from "node:assert/strict";
import {
  createFileSync,
  extendFile,
  replaceFile,
  replaceFileSync,
  seededRng,
} from "../../../src/core/mod.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const names = (temp: TempDir) => [...Deno.readDirSync(temp.path)].map(({ name }) => name).sort();

const replacements = [
  { name: "replaceFile", replace: replaceFile },
  {
    name: "replaceFileSync",
    replace: (path: string, text: string) => Promise.resolve(replaceFileSync(path, text)),
  },
];

for (const { name, replace } of replacements) {
  Deno.test(`${name}() leaves one private file with the new content`, async () => {
    using temp = tempDir();
    const path = temp.file("state");
    for (const text of ["a longer text", "short"]) {
      await replace(path, text);
      equal(Deno.readTextFileSync(path), text);
    }
    deepEqual(names(temp), ["state"]);
    equal((Deno.statSync(path).mode ?? 0) & 0o777, 0o600);
  });

  Deno.test(`${name}() takes a name without a directory as one of the working directory`, async () => {
    using temp = tempDir();
    using _there = workingDirectory(temp.path);
    await replace("state", "text");
    equal(Deno.readTextFileSync(temp.file("state")), "text");
  });
}

Deno.test("a replacement that fails leaves the old content", async () => {
  using temp = tempDir();
  const path = temp.file("state");
  replaceFileSync(path, "old");
  Deno.mkdirSync(`${path}.new`);
  throws(() => replaceFileSync(path, "new"));
  await rejects(replaceFile(path, "new"));
  equal(Deno.readTextFileSync(path), "old");
});

Deno.test("createFileSync() never touches a file that is there, not even an empty one", () => {
  using temp = tempDir();
  const path = temp.file("token");
  createFileSync(path, "first", seededRng(1));
  createFileSync(path, "second", seededRng(2));
  equal(Deno.readTextFileSync(path), "first");
  Deno.truncateSync(path);
  createFileSync(path, "third", seededRng(3));
  equal(Deno.readTextFileSync(path), "");
  deepEqual(names(temp), ["token"]);
});

Deno.test("extendFile() lengthens and never shortens", async () => {
  using temp = tempDir();
  const path = temp.file("data");
  await extendFile(path, 8192);
  await extendFile(path, 4096);
  equal(Deno.statSync(path).size, 8192);
});

function workingDirectory(path: string): Disposable {
  const before = Deno.cwd();
  Deno.chdir(path);
  return { [Symbol.dispose]: () => Deno.chdir(before) };
}
