/** The client against the served API, over TCP and a Unix socket. */
import { deepEqual, equal, rejects } from "node:assert/strict";
import { AgentClient } from "../../../src/api/client.ts";
import { openApi } from "../../../src/api/mod.ts";
import { silentLog, systemClock } from "../../../src/core/mod.ts";
import { freePort } from "../../support/process.ts";
import { tempDir } from "../../support/temp.ts";
import { eventNumber, recordingAgent, VOLUME } from "../../support/recording_agent.ts";

const TOKEN = "a-token";

async function served(listen: string) {
  const agent = recordingAgent();
  const server = await openApi(listen);
  server.serve({ agent, clock: systemClock, log: silentLog, token: TOKEN, version: "0" });
  return { agent, server };
}

for (const place of ["tcp", "unix"]) {
  Deno.test(`AgentClient asks, changes and follows over ${place}`, async () => {
    using temp = tempDir();
    const { agent, server } = await served(
      place === "tcp" ? "127.0.0.1:0" : `unix:${temp.file("api.sock")}`,
    );
    try {
      using client = new AgentClient({ url: server.url, token: () => TOKEN });
      deepEqual(await client.volume("data"), VOLUME);
      equal((await client.attach("data")).name, "data");
      deepEqual(agent.calls.at(-1), ["attach", "data"]);
      await client.deleteVolume("data");
      await rejects(client.volume("none"), { code: "not-found/volume" });
      await rejects(client.mirror("data"), { code: "not-found/mirror" });
      const stop = new AbortController();
      const seen: number[] = [];
      for await (const event of client.follow(1, stop.signal)) {
        seen.push(event.id);
        if (event.id === 3) agent.emit(eventNumber(4));
        if (event.id === 4) break;
      }
      deepEqual(seen, [2, 3, 4]);
    } finally {
      await server.stop();
    }
  });
}

Deno.test("AgentClient says what to do where nothing listens", async () => {
  using temp = tempDir();
  for (const url of [`127.0.0.1:${freePort()}`, `unix:${temp.file("none.sock")}`]) {
    using client = new AgentClient({ url, token: () => TOKEN });
    await rejects(client.status(), { code: "unavailable/agent", hint: /psma run/ });
  }
});

Deno.test("AgentClient refuses to send what it has no token for, and the server a wrong one", async () => {
  const { server, agent } = await served("127.0.0.1:0");
  try {
    using client = new AgentClient({ url: server.url, token: () => "wrong" });
    await rejects(client.detach("data"), { code: "auth/token-wrong" });
    deepEqual(agent.calls, []);
  } finally {
    await server.stop();
  }
});

Deno.test("AgentClient.finished() throws what an operation failed with", async () => {
  using client = new AgentClient({ url: "127.0.0.1:1", token: () => TOKEN });
  const failed = {
    id: "op-2",
    verb: "scale",
    volume: "data",
    state: "failed",
    started_at: "2030-01-01T00:00:00Z",
    ended_at: "2030-01-01T00:00:01Z",
    error: { code: "store/full", title: "Cannot grow data: the store is full", hint: "Free some." },
    result: null,
  } as const;
  await rejects(client.finished(failed), { code: "store/full", hint: "Free some." });
});

Deno.test("a socket that a killed server left behind is taken over; a living one is not", async () => {
  using temp = tempDir();
  const path = temp.file("api.sock");
  const stale = Deno.listen({ transport: "unix", path });
  stale.close();
  const { server } = await served(`unix:${path}`);
  try {
    equal((Deno.statSync(path).mode ?? 0) & 0o777, 0o600);
    await rejects(served(`unix:${path}`), { code: "state/address-in-use" });
  } finally {
    await server.stop();
  }
});

Deno.test("openApi() refuses addresses beyond this machine", async () => {
  for (const listen of ["0.0.0.0:9310", "192.168.1.2:9310", "example.com:80", "9310", ""]) {
    await rejects(served(listen), { code: "config/listen" }, listen);
  }
});
