import assert from "node:assert/strict";
import { seededRng } from "../../../src/core/mod.ts";
import { carriesToken, readOrMakeToken, readToken } from "../../../src/datastore/token.ts";
import { tempDir } from "../../support/temp.ts";

Deno.test("readOrMakeToken() makes a private file once and reads it after", async () => {
  using temp = tempDir();
  const path = temp.file("token");
  const token = await readOrMakeToken(path, seededRng(1));
  assert.match(token, /^[0-9a-f]{64}$/);
  assert.equal((Deno.statSync(path).mode ?? 0) & 0o777, 0o600);
  assert.equal(await readOrMakeToken(path, seededRng(2)), token);
});

Deno.test("readToken() refuses a file that others may read, an empty one and none", async () => {
  using temp = tempDir();
  const path = temp.file("token");
  await assert.rejects(readToken(path), { code: "config/token-file" });
  Deno.writeTextFileSync(path, "0123456789abcdef\n", { mode: 0o600 });
  assert.equal(await readToken(path), "0123456789abcdef");
  Deno.chmodSync(path, 0o640);
  await assert.rejects(readToken(path), { code: "config/token-file", message: /others may read/ });
  Deno.chmodSync(path, 0o600);
  Deno.writeTextFileSync(path, "\n");
  await assert.rejects(readToken(path), { code: "config/token-file" });
});

Deno.test("carriesToken() takes the whole token and nothing else", () => {
  const token = "0123456789abcdef";
  assert.ok(carriesToken(`Bearer ${token}`, token));
  assert.ok(carriesToken(`bearer ${token}`, token));
  const wrong = [
    undefined,
    "",
    "Bearer ",
    token,
    `Basic ${token}`,
    `Bearer ${token}0`,
    `Bearer ${token.slice(1)}`,
    `Bearer ${token} x`,
  ];
  for (const header of wrong) assert.equal(carriesToken(header, token), false, header);
});
