/**
 * A process with one ring that serves volumes over NBD and is an NBD client, driven by JSON lines: one
 * command a line on standard input, one answer a line on standard output. Its own thread is the ring's,
 * as the data plane's is; `nbd_process.ts` is the test's end.
 */
import { systemClock, toPsmaError } from "../../src/core/mod.ts";
import { allocateMemory, Reactor, UringRing } from "../../src/sys/mod.ts";
import {
  type Backend,
  BackendCalls,
  DelayBackend,
  FileBackend,
  type NbdBackend,
  openNbdBackend,
  OPERATION,
  OPERATION_FLAG,
  Operations,
} from "../../src/backend/mod.ts";
import { Requests, slotBytes, Volume } from "../../src/volume/mod.ts";
import { NbdServer } from "../../src/frontend/mod.ts";
import type { ClientOperation, NbdCommands } from "./nbd_process.ts";

const { slots, maxIo } = JSON.parse(Deno.args[0] ?? "{}") as { slots: number; maxIo: number };
const ring = new UringRing({ entries: 1024 });
const reactor = new Reactor(ring);
const operations = new Operations(4 * slots + 256);
const requests = new Requests(allocateMemory(slots * slotBytes(maxIo)), slots, maxIo);
const calls = new BackendCalls(operations, reactor, 256);
const servers = new Map<string, NbdServer>();
const gates = new Map<string, DelayBackend>();
const backends = new Map<string, Backend>();
const clients: NbdBackend[] = [];
const lost: number[] = [];

type Handlers = {
  [Name in keyof NbdCommands]: (
    argument: NbdCommands[Name]["argument"],
  ) => NbdCommands[Name]["answer"] | Promise<NbdCommands[Name]["answer"]>;
};

function say(line: unknown): void {
  const bytes = new TextEncoder().encode(JSON.stringify(line) + "\n");
  for (let sent = 0; sent < bytes.length;) sent += Deno.stdout.writeSync(bytes.subarray(sent));
}

function server(name: string): NbdServer {
  const found = servers.get(name);
  if (!found) throw new Error(`there is no server ${name}`);
  return found;
}

const handlers: Handlers = {
  serve({ server: name, listen, ...options }) {
    const made = servers.get(name) ??
      new NbdServer({ reactor, requests, ...options, onEvent: (event) => say({ event }) });
    servers.set(name, made);
    return { address: made.listen(listen) };
  },
  exportFile({ server: name, path, ...rest }) {
    const gate = new DelayBackend(new FileBackend({ path, reactor, operations }), {
      operations,
      turns: reactor,
      clock: systemClock,
    });
    gates.set(rest.name, gate);
    backends.set(rest.name, gate);
    const volume = new Volume({
      name: rest.name,
      sizeBytes: gate.sizeBytes,
      active: gate,
      operations,
      requests,
      turns: reactor,
      clock: systemClock,
    });
    server(name).addExport({ ...rest, volume });
    return { uri: server(name).uri(rest.name) };
  },
  async unexport({ server: name, name: exported }) {
    await server(name).removeExport(exported);
    return null;
  },
  async promote({ server: name, name: exported, epoch }) {
    await server(name).promote(exported, epoch);
    return null;
  },
  gate({ name, open }) {
    const gate = gates.get(name);
    if (!gate) throw new Error(`there is no gate ${name}`);
    if (open) gate.release();
    else gate.hold();
    return { held: gate.held };
  },
  async closeServer({ server: name }) {
    await server(name).close();
    servers.delete(name);
    return null;
  },
  stats() {
    const all = [...servers.values()].map((one) => one.statistics());
    const sum = (field: "connected" | "accepted" | "turned_away" | "cut") =>
      all.reduce((total, one) => total + one[field], 0);
    return {
      slots_free: requests.freeCount,
      operations_in_use: operations.inUse,
      connected: sum("connected"),
      accepted: sum("accepted"),
      turned_away: sum("turned_away"),
      cut: sum("cut"),
      rss_bytes: Deno.memoryUsage().rss,
      descriptors: [...Deno.readDirSync("/proc/self/fd")].length,
      held: [...gates.values()].reduce((sum, gate) => sum + gate.held, 0),
    };
  },
  async open({ uri, policy, options = {} }) {
    const client = await openNbdBackend({
      ...options,
      uri,
      reactor,
      operations,
      onEvent: (event) => say({ event }),
    });
    client.setLossPolicy(policy);
    const index = clients.push(client) - 1;
    lost[index] = 0;
    client.onLost = () => lost[index] = (lost[index] ?? 0) + 1;
    return { client: index, size_bytes: client.sizeBytes };
  },
  async run({ client, operations: list }) {
    const memories = list.map((one) => allocateMemory(Math.max(4096, one.length)));
    const errnos = await Promise.all(list.map((one, i) => runOne(client, one, memories[i])));
    return {
      results: await Promise.all(list.map(async (one, i) => ({
        errno: errnos[i] ?? -1,
        ...(one.code === "read" && errnos[i] === 0
          ? { digest: await digest(memories[i]?.bytes.slice(0, one.length)) }
          : {}),
      }))),
    };
  },
  client({ client }) {
    const one = clients[client];
    if (!one) throw new Error(`there is no client ${client}`);
    const { connected, connections, sizeBytes } = one;
    return { connected, connections, lost: lost[client] ?? 0, size_bytes: sizeBytes };
  },
  async extents({ client, from, length }) {
    return { extents: await clients[client]?.dataExtents(from, length) ?? [] };
  },
  setPolicy({ client, policy }) {
    clients[client]?.setLossPolicy(policy);
    return null;
  },
  abort({ client }) {
    clients[client]?.abort();
    return null;
  },
  async grow({ client, size_bytes }) {
    await clients[client]?.grow(size_bytes);
    return null;
  },
  async closeClient({ client }) {
    await clients[client]?.close();
    return null;
  },
  stop() {
    reactor.stop();
    return null;
  },
};

function runOne(client: number, one: ClientOperation, memory = allocateMemory(4096)) {
  const backend = clients[client];
  if (!backend) throw new Error(`there is no client ${client}`);
  if (one.code === "write") memory.bytes.fill(one.fill ?? 0, 0, one.length);
  return calls.run(backend, OPERATION[one.code], {
    at: one.at,
    length: one.length,
    address: memory.address,
    flags: one.fua ? OPERATION_FLAG.fua : 0,
  });
}

/** FNV-1a: the runtime's own digests are asynchronous on another thread. */
function digest(bytes = new Uint8Array()): string {
  let hash = 0x811c9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  return (hash >>> 0).toString(16);
}

async function answer(line: string): Promise<void> {
  const { id, name, argument } = JSON.parse(line) as {
    id: number;
    name: keyof NbdCommands;
    argument: never;
  };
  try {
    say({ id, ok: await handlers[name](argument) });
  } catch (error) {
    say({ id, error: toPsmaError(error).toRecord() });
  }
}

/** Ends with the test's end of the pipe, so that no process stays behind. */
async function listenToCommands(): Promise<void> {
  const memory = allocateMemory(65_536);
  const decoder = new TextDecoder();
  for (let rest = "";;) {
    const bytes = await reactor.read(0, 0, memory);
    if (bytes <= 0) Deno.exit(0);
    const lines = (rest + decoder.decode(memory.bytes.slice(0, bytes), { stream: true })).split(
      "\n",
    );
    rest = lines.pop() ?? "";
    for (const line of lines) answer(line);
  }
}

listenToCommands();
say({ started: Deno.pid });
await reactor.run();
Deno.exit(0);
