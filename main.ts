/** Composes the rooms. All that a client does not need is imported when it is asked for. */
import { type CliParts, runCli } from "./src/cli/mod.ts";
import { createLog, ensureToken, formatListen, systemClock, systemRng } from "./src/core/mod.ts";
import { dirname, resolve } from "node:path";
import project from "./deno.json" with { type: "json" };

const { version } = project;
const clock = systemClock;

/** The log of commands that answer on standard output. */
const errorsOnly = () => createLog({ level: "error", clock });

const parts: CliParts = {
  version,
  clock,
  config: {
    async load(path) {
      const { describeConfig, loadConfig } = await import("./src/agent/mod.ts");
      const config = loadConfig(path);
      return {
        path,
        listen: formatListen(config.api.listen),
        token_file: config.api.token_file,
        state_dir: config.state_dir,
        values: describeConfig(config),
      };
    },
    async check(path) {
      const { checkConfig, readConfigFile } = await import("./src/agent/mod.ts");
      return checkConfig(readConfigFile(path), dirname(resolve(path)));
    },
    async warnings(path) {
      const { configWarnings, loadConfig } = await import("./src/agent/mod.ts");
      return configWarnings(loadConfig(path));
    },
  },

  async startAgent({ config: path, log_level }) {
    const { loadConfig, makeSocketPlace, startAgent } = await import("./src/agent/mod.ts");
    const { openApi } = await import("./src/api/mod.ts");
    const { notifyServiceManager } = await import("./src/dataplane/mod.ts");
    const log = createLog({ level: log_level, clock });
    const config = loadConfig(path);
    await using starting = new AsyncDisposableStack();
    makeSocketPlace(config);
    // First: who may not have the address must leave volumes alone.
    const api = await openApi(formatListen(config.api.listen));
    starting.defer(() => api.stop());
    const agent = await startAgent({ config, version, log, clock, rng: systemRng });
    starting.defer(() => agent.stop());
    const token = ensureToken(config.api.token_file, systemRng);
    api.serve({ agent, clock, log, token, version });
    // Stopped in this order: first nobody can ask for anything, then volumes are let go.
    starting.defer(() => api.stop());
    starting.defer(() => void notifyServiceManager("STOPPING=1"));
    notifyServiceManager("READY=1");
    const running = starting.move();
    return { url: api.url, failed: agent.died, stop: () => running.disposeAsync() };
  },

  async startStore({ directories, listen, nbd_listen, nbd_tls, nbd_host, nbd_limits, ...options }) {
    const { token_file, capacity_bytes, log_level } = options;
    const { startStore } = await import("./src/datastore/mod.ts");
    const { notifyServiceManager } = await import("./src/dataplane/mod.ts");
    const store = await startStore({
      directories,
      listen,
      nbd: nbd_listen,
      ...(nbd_tls === null ? {} : { nbd_tls }),
      ...(nbd_host === null ? {} : { nbd_host }),
      nbd_limits,
      ...(token_file === null ? {} : { token_file }),
      ...(capacity_bytes === null ? {} : { capacity_bytes }),
      log: createLog({ level: log_level, clock }),
    });
    notifyServiceManager("READY=1");
    return { url: store.url, failed: store.died, stop: () => store.stop() };
  },

  async serveForecaster(args) {
    const { serveForecaster } = await import("./src/forecast/mod.ts");
    return await serveForecaster(args);
  },

  async backtestTasks(order, onProgress) {
    const { backtestTasks } = await import("./src/forecast/mod.ts");
    return await backtestTasks(order, { clock, log: errorsOnly(), onProgress });
  },

  async backtestHistory(order, onProgress) {
    const { backtestHistory } = await import("./src/forecast/mod.ts");
    return await backtestHistory(order, { clock, log: errorsOnly(), onProgress });
  },

  async serveHostTask(name) {
    const { serveHostTask } = await import("./src/dataplane/mod.ts");
    await serveHostTask(name);
  },

  async openNbdDevice(uri) {
    const { DataPlane } = await import("./src/dataplane/mod.ts");
    const plane = await DataPlane.start({ log: errorsOnly() });
    const { device, size_bytes } = await plane.command("openDevice", { uri });
    return {
      size_bytes,
      read: (at, length) => plane.command("readDevice", { device, at, length }),
      write: async (at, bytes) => void await plane.command("writeDevice", { device, at, bytes }),
      flush: async () => void await plane.command("flushDevice", { device }),
      async close() {
        await plane.command("closeDevice", { device });
        await plane.stop();
      },
    };
  },

  async probeHost(places) {
    const { probeHost } = await import("./src/dataplane/mod.ts");
    return await probeHost(places);
  },

  async probeStores(path) {
    const { loadConfig, probeStores } = await import("./src/agent/mod.ts");
    const log = createLog({ level: "error", clock });
    return await probeStores(loadConfig(path), { log, clock, rng: systemRng });
  },
};

// The data plane's thread never ends by itself: the process must be told to.
Deno.exit(await runCli(Deno.args, parts));
