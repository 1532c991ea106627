import { equal, match, ok, rejects } from "node:assert/strict";
import { PsmaError, serveHttp } from "../../../src/core/mod.ts";
import { tempDir } from "../../support/temp.ts";

const hello = () => new Response("hello");

Deno.test("serveHttp() names the real port, and answers on it until it is shut down", async () => {
  const server = await serveHttp({ host: "127.0.0.1", port: 0 }, hello);
  match(server.url, /^http:\/\/127\.0\.0\.1:[1-9]\d*$/);
  equal(await (await fetch(server.url)).text(), "hello");
  const { port } = new URL(server.url);
  await rejects(serveHttp({ host: "127.0.0.1", port: Number(port) }, hello), inUse);
  await server.shutdown();
  await rejects(fetch(server.url));
});

Deno.test("serveHttp() replaces a socket that nobody listens on, and keeps it private", async () => {
  using temp = tempDir();
  const path = temp.file("http.sock");
  // A second name for the socket: closing takes only the first away, as a kill takes none.
  const killed = Deno.listen({ transport: "unix", path: temp.file("other.sock") });
  Deno.linkSync(temp.file("other.sock"), path);
  await rejects(serveHttp({ path }, hello), inUse);
  killed.close();
  ok(Deno.lstatSync(path).isSocket);
  const server = await serveHttp({ path }, hello);
  equal(server.url, `unix:${path}`);
  equal((Deno.statSync(path).mode ?? 0) & 0o777, 0o600);
  await server.shutdown();
});

Deno.test("serveHttp() leaves a file that is no socket alone", async () => {
  using temp = tempDir();
  const path = temp.file("notes");
  Deno.writeTextFileSync(path, "mine");
  await rejects(serveHttp({ path }, hello), inUse);
  equal(Deno.readTextFileSync(path), "mine");
});

Deno.test("serveHttp() says what is wrong with a place", async () => {
  using temp = tempDir();
  await rejects(serveHttp({ path: temp.file("none/http.sock") }, hello), { code: "config/listen" });
});

function inUse(error: unknown): boolean {
  ok(error instanceof PsmaError);
  equal(error.code, "state/address-in-use");
  equal(error.meaning.exit, 4);
  return true;
}
