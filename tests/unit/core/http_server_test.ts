import { equal, match, ok, rejects } from "node:assert/strict";
import { listenHttp, PsmaError } from "../../../src/core/mod.ts";
import { tempDir } from "../../support/temp.ts";

const hello = () => new Response("hello");

Deno.test("listenHttp() names the real port, and answers on it until it is shut down", async () => {
  const server = await listenHttp({ host: "127.0.0.1", port: 0 }, "listen");
  server.answerWith(hello);
  match(server.url, /^http:\/\/127\.0\.0\.1:[1-9]\d*$/);
  equal(await (await fetch(server.url)).text(), "hello");
  const { port } = new URL(server.url);
  await rejects(listenHttp({ host: "127.0.0.1", port: Number(port) }, "listen"), inUse);
  await server.shutdown();
  await rejects(fetch(server.url));
});

Deno.test("listenHttp() has requests told to wait until there is a handler", async () => {
  const server = await listenHttp({ host: "127.0.0.1", port: 0 }, "listen");
  const early = await fetch(server.url);
  equal(early.status, 503);
  equal(early.headers.get("content-type"), "application/problem+json");
  const { code, detail } = await early.json();
  equal(code, "unavailable/starting");
  equal(detail, "Cannot answer yet: this server is starting");
  server.answerWith(hello);
  equal(await (await fetch(server.url)).text(), "hello");
  await Promise.all([server.shutdown(), server.shutdown()]);
});

Deno.test("listenHttp() replaces a socket that nobody listens on, and keeps it private", async () => {
  using temp = tempDir();
  const path = temp.file("http.sock");
  // A second name for the socket: closing takes only the first away, as a kill takes none.
  const killed = Deno.listen({ transport: "unix", path: temp.file("other.sock") });
  Deno.linkSync(temp.file("other.sock"), path);
  await rejects(listenHttp({ path }, "listen"), inUse);
  killed.close();
  ok(Deno.lstatSync(path).isSocket);
  const server = await listenHttp({ path }, "listen");
  server.answerWith(hello);
  equal(server.url, `unix:${path}`);
  equal((Deno.statSync(path).mode ?? 0) & 0o777, 0o600);
  await server.shutdown();
});

Deno.test("listenHttp() leaves a file that is no socket alone", async () => {
  using temp = tempDir();
  const path = temp.file("notes");
  Deno.writeTextFileSync(path, "mine");
  await rejects(listenHttp({ path }, "listen"), inUse);
  equal(Deno.readTextFileSync(path), "mine");
});

Deno.test("listenHttp() says what is wrong with a place", async () => {
  using temp = tempDir();
  await rejects(listenHttp({ path: temp.file("none/http.sock") }, "listen"), {
    code: "config/listen",
  });
});

function inUse(error: unknown): boolean {
  ok(error instanceof PsmaError);
  equal(error.code, "state/address-in-use");
  equal(error.meaning.exit, 4);
  equal(error.hint, "Stop the other process, or set listen to another address.");
  return true;
}
