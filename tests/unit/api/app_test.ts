/** The API's routes, without sockets: what reaches the agent, what comes back, and what is refused. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { createApi } from "../../../src/api/mod.ts";
import { createLog } from "../../../src/core/mod.ts";
import { stillClock } from "../../support/still_clock.ts";
import { eventNumber, recordingAgent, VOLUME } from "../../support/recording_agent.ts";

const TOKEN = "correct-horse-battery-staple";

function newApi() {
  const logged: string[] = [];
  const agent = recordingAgent();
  const closing = new AbortController();
  const api = createApi({
    agent,
    clock: stillClock,
    log: createLog({ write: (line) => logged.push(line) }),
    token: TOKEN,
    version: "0.0.0",
    closing: closing.signal,
    check_host: true,
  });
  const ask = async (method: string, path: string, options: RequestInit = {}) => {
    const headers = new Headers({ authorization: `Bearer ${TOKEN}`, ...options.headers });
    if (typeof options.body === "string") headers.set("content-type", "application/json");
    return await api(new Request(`http://127.0.0.1:9310${path}`, { ...options, method, headers }));
  };
  return { agent, ask, api, closing, logged };
}

Deno.test("reads are answered without a token, in the shape of the views", async () => {
  const { api } = newApi();
  const get = (path: string) => api(new Request(`http://localhost:9310${path}`));
  deepEqual(await (await get("/healthz")).json(), { ok: true });
  deepEqual(await (await get("/v1/volumes")).json(), { volumes: [VOLUME] });
  deepEqual(await (await get("/v1/volumes/data")).json(), VOLUME);
  equal((await (await get("/v1/status")).json()).volumes.length, 1);
  equal((await (await get("/v1/volumes/data/plan")).json()).action, "none");
  equal((await (await get("/v1/operations/op-1")).json()).state, "running");
  const ready = await get("/readyz");
  equal(ready.status, 503);
  deepEqual(await ready.json(), { ready: false, not_ready: ["data: starting"] });
});

Deno.test("metrics leave in Prometheus's format with everything escaped", async () => {
  const { ask } = newApi();
  const answer = await ask("GET", "/metrics");
  match(answer.headers.get("content-type") ?? "", /^text\/plain; version=0\.0\.4/);
  equal(
    await answer.text(),
    "# HELP psma_volume_used_bytes Bytes\\nused\n# TYPE psma_volume_used_bytes gauge\n" +
      'psma_volume_used_bytes{volume="a\\"b\\\\c"} 512\n',
  );
});

Deno.test("the API describes every one of its routes", async () => {
  const { ask } = newApi();
  const { paths, components } = await (await ask("GET", "/openapi.json")).json();
  const routes = Object.entries(paths as Record<string, object>).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method} ${path}`)
  );
  for (
    const route of [
      "get /v1/status",
      "post /v1/volumes",
      "delete /v1/volumes/{volume}",
      "post /v1/volumes/{volume}/attach",
      "post /v1/volumes/{volume}/scale",
      "post /v1/volumes/{volume}/switch",
      "post /v1/volumes/{volume}/rollback",
      "post /v1/volumes/{volume}/mirror/start",
      "get /v1/volumes/{volume}/forecast",
      "get /v1/events",
    ]
  ) ok(routes.includes(route), route);
  ok(components.schemas.Volume && components.schemas.Problem);
});

const CHANGES: readonly (readonly [string, string, string | undefined, unknown[], number])[] = [
  ["POST", "/v1/volumes", '{"name":"x","size_bytes":4096}', ["createVolume", {
    name: "x",
    size_bytes: 4096,
  }], 201],
  ["DELETE", "/v1/volumes/data", undefined, ["deleteVolume", "data"], 204],
  ["POST", "/v1/volumes/data/attach", undefined, ["attach", "data"], 200],
  ["POST", "/v1/volumes/data/detach", undefined, ["detach", "data", {}], 200],
  ["POST", "/v1/volumes/data/detach", '{"force":true}', ["detach", "data", { force: true }], 200],
  ["POST", "/v1/volumes/data/claim", undefined, ["claim", "data"], 200],
  ["POST", "/v1/volumes/data/scale", '{"size_bytes":8192}', ["scale", "data", {
    size_bytes: 8192,
  }], 202],
  ["POST", "/v1/volumes/data/scale", "{}", ["scale", "data", {}], 202],
  ["POST", "/v1/volumes/data/scale", '{"size_bytes":9,"deadline_ms":60000}', ["scale", "data", {
    size_bytes: 9,
    deadline_ms: 60000,
  }], 202],
  ["POST", "/v1/volumes/data/switch", undefined, ["switchVolume", "data", {}], 202],
  ["POST", "/v1/volumes/data/switch", '{"deadline_ms":0}', ["switchVolume", "data", {
    deadline_ms: 0,
  }], 202],
  ["POST", "/v1/volumes/data/rollback", undefined, ["rollback", "data", {}], 202],
  ["POST", "/v1/volumes/data/rollback", '{"discard_changes":true}', ["rollback", "data", {
    discard_changes: true,
  }], 202],
  ["POST", "/v1/volumes/data/retire", undefined, ["retire", "data"], 202],
  ["POST", "/v1/volumes/data/mirror/start", "{}", ["startMirror", "data", {}], 202],
  ["POST", "/v1/volumes/data/mirror/cancel", undefined, ["cancelMirror", "data"], 200],
  ["POST", "/v1/volumes/data/mirror/verify", "{}", ["verifyMirror", "data", {}], 202],
  ["POST", "/v1/volumes/data/mirror/verify", '{"backup":true,"max_rate_bytes_per_s":9}', [
    "verifyMirror",
    "data",
    { backup: true, max_rate_bytes_per_s: 9 },
  ], 202],
  ["POST", "/v1/volumes/data/mirror/verify/stop", undefined, ["stopVerify", "data"], 200],
];

for (const [method, path, body, call, status] of CHANGES) {
  Deno.test(`${method} ${path} ${body ?? ""} calls ${call[0]} once, and only with the token`, async () => {
    const { agent, ask } = newApi();
    const options = body === undefined ? {} : { body };
    for (
      const authorization of ["", "Bearer", "Bearer wrong", `Basic ${TOKEN}`, `Bearer ${TOKEN}x`]
    ) {
      const refused = await ask(method, path, { ...options, headers: { authorization } });
      equal(refused.status, 401, authorization);
      equal(refused.headers.get("content-type"), "application/problem+json");
      await refused.body?.cancel();
    }
    deepEqual(agent.calls, []);
    const answer = await ask(method, path, options);
    equal(answer.status, status);
    deepEqual(agent.calls, [call]);
    if (status === 202) equal(answer.headers.get("location"), "/v1/operations/op-1");
    await answer.body?.cancel();
  });
}

const HOSTILE: readonly (readonly [string, string, RequestInit, number, string])[] = [
  ["GET", "/v1/volumes/none", {}, 404, "not-found/volume"],
  ["GET", "/v1/volumes/data/mirror", {}, 404, "not-found/mirror"],
  ["GET", "/v1/operations/none", {}, 404, "not-found/operation"],
  ["GET", "/nowhere", {}, 404, "not-found/route"],
  ["PUT", "/v1/volumes/data", {}, 404, "not-found/route"],
  ["GET", "/v1/volumes/data/forecast?levels=2", {}, 400, "usage/request"],
  ["GET", "/v1/volumes/data/forecast?levels=", {}, 400, "usage/request"],
  ["GET", "/v1/volumes/data/forecast?horizon=soon", {}, 400, "usage/request"],
  ["GET", "/v1/volumes/data/forecast?metrik=used", {}, 400, "usage/request"],
  ["GET", "/v1/volumes/data/history?from=yesterday", {}, 400, "usage/request"],
  [
    "GET",
    "/v1/volumes/data/history?from=2030-01-02T00:00:00Z&to=2030-01-01T00:00:00Z",
    {},
    400,
    "usage/period",
  ],
  ["GET", "/v1/volumes/data/history?step=1ms", {}, 400, "usage/step"],
  ["GET", "/v1/events?limit=0", {}, 400, "usage/request"],
  ["GET", "/v1/events?after=-1", {}, 400, "usage/request"],
  ["POST", "/v1/volumes", { body: "{" }, 400, "usage/request"],
  ["POST", "/v1/volumes", { body: "[]" }, 400, "usage/request"],
  ["POST", "/v1/volumes", { body: '{"name":"x"}' }, 400, "usage/request"],
  ["POST", "/v1/volumes", { body: '{"name":"x","size_bytes":-1}' }, 400, "usage/request"],
  ["POST", "/v1/volumes", { body: '{"name":"x","size_bytes":1.5}' }, 400, "usage/request"],
  ["POST", "/v1/volumes", { body: '{"name":"x","size_bytes":1e300}' }, 400, "usage/request"],
  ["POST", "/v1/volumes", { body: '{"name":"x","size_bytes":9,"colour":1}' }, 400, "usage/request"],
  ["POST", "/v1/volumes/data/scale", { body: '{"size":"20GiB"}' }, 400, "usage/request"],
  ["POST", "/v1/volumes", { body: `{"name":"${"x".repeat(70_000)}"}` }, 413, "usage/body-size"],
  ["GET", "/v1/status", { headers: { host: "evil.example" } }, 403, "forbidden/host"],
  [
    "GET",
    "/v1/status",
    { headers: { host: "127.0.0.1.evil.example:9310" } },
    403,
    "forbidden/host",
  ],
  ["GET", "/v1/status", { headers: { origin: "http://evil.example" } }, 403, "forbidden/origin"],
  ["GET", "/v1/status", { headers: { origin: "null" } }, 403, "forbidden/origin"],
];

for (const [method, path, options, status, code] of HOSTILE) {
  const what = JSON.stringify(options.body ?? options.headers ?? "").slice(0, 60);
  Deno.test(`${method} ${path} ${what} is refused with ${code}`, async () => {
    const { agent, ask } = newApi();
    const answer = await ask(method, path, options);
    equal(answer.status, status);
    equal(answer.headers.get("content-type"), "application/problem+json");
    const problem = await answer.json();
    equal(problem.code, code);
    equal(problem.status, status);
    match(problem.detail, /^Cannot /);
    ok(problem.title.length > 0);
    deepEqual(agent.calls.filter(([call]) => ["createVolume", "scale"].includes(call)), []);
  });
}

Deno.test("a page of this very server, and a forwarded port, are let in", async () => {
  const { ask } = newApi();
  for (const host of ["127.0.0.1:9310", "localhost:8080", "[::1]:9310"]) {
    const answer = await ask("GET", "/healthz", { headers: { host, origin: `http://${host}` } });
    equal(answer.status, 200, host);
    await answer.body?.cancel();
  }
});

Deno.test("a forecast's query reaches the agent in numbers", async () => {
  const { agent, ask } = newApi();
  const path = "/v1/volumes/data/forecast?metric=inodes_used&horizon=2h&levels=0.1,0.9";
  equal((await (await ask("GET", path)).json()).metric, "used_bytes");
  deepEqual(agent.calls, [["forecast", "data", {
    metric: "inodes_used",
    horizon_ms: 7_200_000,
    levels: [0.1, 0.9],
  }]]);
});

Deno.test("events come as a list, from where the client was", async () => {
  const { ask } = newApi();
  const { events } = await (await ask("GET", "/v1/events?after=1&limit=1")).json();
  deepEqual(events, [eventNumber(2)]);
});

Deno.test("live events resume after Last-Event-ID, repeat nothing, and end with the server", async () => {
  const { agent, ask, closing } = newApi();
  const answer = await ask("GET", "/v1/events", {
    headers: { accept: "text/event-stream", "last-event-id": "1" },
  });
  equal(answer.headers.get("content-type"), "text/event-stream");
  equal(agent.followers, 1);
  agent.emit(eventNumber(3));
  agent.emit(eventNumber(4));
  closing.abort();
  const ids = [...(await answer.text()).matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id));
  deepEqual(ids, [2, 3, 4]);
  equal(agent.followers, 0);
});

Deno.test("a reader that leaves is forgotten, and its leaving harms nobody", async () => {
  const { agent, ask } = newApi();
  const answer = await ask("GET", "/v1/events", { headers: { accept: "text/event-stream" } });
  equal(agent.followers, 1);
  await answer.body?.cancel();
  equal(agent.followers, 0);
  agent.emit(eventNumber(4));
});

Deno.test("a reader that never reads is cut off, not remembered for", async () => {
  const { agent, ask } = newApi();
  const answer = await ask("GET", "/v1/events", { headers: { accept: "text/event-stream" } });
  for (let id = 4; id < 5000; id++) agent.emit(eventNumber(id));
  equal(agent.followers, 0);
  await answer.body?.cancel();
});

Deno.test("what nobody foresaw is logged, and not told", async () => {
  const { agent, ask, logged } = newApi();
  agent.status = () => Promise.reject(new TypeError("secret is undefined"));
  const answer = await ask("GET", "/v1/status");
  equal(answer.status, 500);
  const text = await answer.text();
  equal(JSON.parse(text).code, "internal/unexpected");
  equal(text.includes("secret"), false);
  match(logged.join(""), /secret is undefined/);
});
