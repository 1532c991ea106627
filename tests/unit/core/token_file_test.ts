import { equal, match, ok, throws } from "node:assert/strict";
import {
  carriesToken,
  ensureToken,
  PsmaError,
  readToken,
  seededRng,
} from "../../../src/core/mod.ts";
import { tempDir } from "../../support/temp.ts";

Deno.test("ensureToken() makes a private file once and reads it after", () => {
  using temp = tempDir();
  const path = temp.file("token");
  const token = ensureToken(path, seededRng(1));
  match(token, /^[0-9a-f]{64}$/);
  equal((Deno.statSync(path).mode ?? 0) & 0o777, 0o600);
  equal(ensureToken(path, seededRng(2)), token);
  equal([...Deno.readDirSync(temp.path)].length, 1, "something else was left");
});

Deno.test("ensureToken() says why it cannot make one", () => {
  using temp = tempDir();
  throws(() => ensureToken(temp.file("none/token"), seededRng(1)), { code: "config/token-file" });
  Deno.writeTextFileSync(temp.file("file"), "");
  throws(() => ensureToken(temp.file("file/token"), seededRng(1)), { code: "io/token-file" });
});

Deno.test("readToken() refuses a file that others may read, one without a token, and none", () => {
  using temp = tempDir();
  const path = temp.file("token");
  const refused = (message: RegExp) =>
    throws(() => readToken(path), (error) => {
      ok(error instanceof PsmaError);
      match(error.message, message);
      ok(error.hint);
      equal(error.code, "config/token-file");
      equal(error.meaning.exit, 78);
      return true;
    });
  refused(/is missing/);
  Deno.writeTextFileSync(path, "0123456789abcdef\n", { mode: 0o600 });
  equal(readToken(path), "0123456789abcdef");
  for (const mode of [0o640, 0o604, 0o620]) {
    Deno.chmodSync(path, mode);
    refused(/others may read/);
  }
  Deno.chmodSync(path, 0o600);
  for (const text of ["", "\n", "0123456789abcde", "01234567 89abcdef", "0".repeat(4097)]) {
    Deno.writeTextFileSync(path, text);
    refused(/holds no token/);
  }
});

Deno.test("carriesToken() takes the whole token and nothing else", () => {
  const token = "0123456789abcdef";
  ok(carriesToken(`Bearer ${token}`, token));
  ok(carriesToken(`bearer ${token}`, token));
  const wrong = [
    undefined,
    "",
    "Bearer ",
    token,
    `Basic ${token}`,
    `Bearer ${token}0`,
    `Bearer ${token.slice(1)}`,
    `Bearer ${token.slice(0, -1)}`,
    `Bearer 1${token.slice(1)}`,
    `Bearer ${token} x`,
  ];
  for (const header of wrong) equal(carriesToken(header, token), false, header);
});
