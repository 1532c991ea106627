/** The agent's HTTP API: server side. The command line uses client.ts alone. */
export * from "./app.ts";
export * from "./serve.ts";
