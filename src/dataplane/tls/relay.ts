/**
 * The TLS relay's thread: all TLS of the data plane. The data plane's own thread lives in its ring and has no
 * TLS library, and the main thread never touches volume bytes; so bytes that come or go by TLS pass through
 * here, between a TCP socket and a Unix socket, on an event loop of their own.
 */
import { systemClock, toPsmaError } from "../../core/mod.ts";
import type {
  FromRelay,
  OnRelayEvent,
  RelayCommandName,
  RelayCommands,
  ToRelay,
} from "./relay_messages.ts";
import { TlsListener } from "./relay_server.ts";
import { TlsRoute } from "./relay_route.ts";
import { Repeats } from "../repeats.ts";

const HOUSEKEEPING_MS = 1000;

const scope = self as unknown as {
  onmessage: ((message: MessageEvent<ToRelay>) => void) | null;
  postMessage(message: FromRelay): void;
};

type Handlers = {
  [Name in RelayCommandName]: (
    argument: RelayCommands[Name]["argument"],
  ) => Promise<RelayCommands[Name]["answer"]> | RelayCommands[Name]["answer"];
};

const clock = systemClock;
const routes = new Map<string, TlsRoute>();
const voices: Repeats[] = [];

/** Each listener and route has its own: one that fails again and again must not hide another. */
function newVoice(): OnRelayEvent {
  const voice = new Repeats(
    clock,
    (event) => scope.postMessage({ kind: "event", event: { at_ms: clock.nowMs(), ...event } }),
  );
  voices.push(voice);
  return (type, severity, message) => voice.tell({ type, severity, message });
}

const handlers: Handlers = {
  serve: async (serve) => {
    const listener = new TlsListener({ serve, clock, onEvent: newVoice() });
    return { port: await listener.listen() };
  },
  dial: async (dial) => {
    const route = new TlsRoute({ dial, clock, onEvent: newVoice() });
    await route.listen();
    routes.set(dial.path, route);
    return null;
  },
  fault: ({ path }) => routes.get(path)?.fault ?? null,
};

scope.onmessage = async ({ data: { seq, name, argument } }) => {
  try {
    const handler = handlers[name] as (argument: unknown) => unknown;
    const value = await handler(argument);
    scope.postMessage({ kind: "outcome", seq, outcome: { ok: true, value } });
  } catch (error) {
    const failure = toPsmaError(error, "io/tls").toRecord();
    scope.postMessage({ kind: "outcome", seq, outcome: { ok: false, error: failure } });
  }
};
setInterval(() => voices.forEach((voice) => voice.keepHouse()), HOUSEKEEPING_MS);
