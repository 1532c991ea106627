/**
 * The data-plane thread: one ring, all descriptors, buffers, bitmaps and sessions, and the mirrors' tasks.
 * Wakes by completions only; the main thread wakes it with an eventfd and leaves messages on a port.
 */
import os from "node:os";
import { type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import { toPsmaError } from "../core/mod.ts";
import { loadDigest } from "../mirror/mod.ts";
import { allocateMemory, createEventFd, Reactor, UringRing } from "../sys/mod.ts";
import type { FromWorker, ToWorker } from "./messages.ts";
import { Questioner } from "./questioner.ts";
import { Service } from "./service.ts";

const RING_ENTRIES = 1024;
const DEFAULT_SLOTS = 128;
const DEFAULT_MAX_IO = 1 << 20;
/** Of this thread alone. */
const NICENESS = -5;

interface Start {
  readonly port: MessagePort;
  readonly slots?: number;
  readonly maxIo?: number;
  readonly replay: boolean;
}

const scope = self as unknown as {
  onmessage: ((message: MessageEvent<Start>) => void) | null;
  postMessage(message: FromWorker): void;
  close(): void;
};

scope.onmessage = (message) => {
  scope.onmessage = null;
  main(message.data).catch((error) => {
    const { code, message } = toPsmaError(error);
    scope.postMessage({ kind: "died", reason: `${message} (${code})` });
    scope.close();
  });
};

/** Requests wait for nothing else that the process does; without CAP_SYS_NICE they take their turn. */
function goFirst(): void {
  try {
    os.setPriority(0, NICENESS);
  } catch {
    // Not permitted.
  }
}

async function main(start: Start): Promise<void> {
  goFirst();
  const digest = await loadDigest();
  const reactor = new Reactor(new UringRing({ entries: RING_ENTRIES }));
  const questioner = new Questioner(reactor, (message) => scope.postMessage(message));
  const service = new Service({
    reactor,
    digest,
    slots: start.slots ?? DEFAULT_SLOTS,
    maxIo: start.maxIo ?? DEFAULT_MAX_IO,
    replay: start.replay,
    post: (message) => scope.postMessage(message),
    ask: questioner.ask,
  });
  const eventFd = createEventFd();
  const counter = allocateMemory(4096);
  const kind = reactor.ring.register(() => {
    takeMessages(start.port, service, questioner);
    arm();
  });
  const arm = () => reactor.ring.read(eventFd, 0, counter.address, 8, kind, 0);
  arm();
  scope.postMessage({ kind: "started", eventFd });
  await reactor.run();
  scope.close();
}

function takeMessages(port: MessagePort, service: Service, questioner: Questioner): void {
  for (;;) {
    const received = receiveMessageOnPort(port) as { message: ToWorker } | undefined;
    if (!received) return;
    const message = received.message;
    if (message.kind === "command") service.handle(message.seq, message.name, message.argument);
    else questioner.answered(message.seq, message.outcome);
  }
}
