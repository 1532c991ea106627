/** QEMU's side: qemu-storage-daemon with a `blockdev-mirror` job to nbdkit's file server, told what to do by QMP. */
import { start, type Started, waitUntil } from "../../support/process.ts";
import { CountingRelay } from "./counting_relay.ts";
import { JsonLines, type Message } from "./json_lines.ts";
import { startTarget } from "./nbdkit.ts";
import type { Side, SideKind, SideOptions } from "./side.ts";
import { within } from "./within.ts";

const CHUNK_BYTES = 65_536;
const JOB = "mirror", SOURCE = "disk", TARGET = "target";
const POLL_MS = 5;

export const QEMU_BACKGROUND: SideKind = {
  name: "qemu background",
  start: (options) => startSide(options, "background"),
};

export const QEMU_WRITE_BLOCKING: SideKind = {
  name: "qemu write-blocking",
  start: (options) => startSide(options, "write-blocking"),
};

async function startSide(
  { directory, image, counted }: SideOptions,
  copyMode: "background" | "write-blocking",
): Promise<Side> {
  await using starting = new AsyncDisposableStack();
  const { size } = Deno.statSync(image);
  const server = starting.use(await startTarget(directory, size));
  const relayed = `${directory}/relay.sock`;
  const relay = counted ? starting.use(new CountingRelay(relayed, server.socket)) : undefined;
  const exported = `${directory}/qsd.sock`, control = `${directory}/qmp.sock`;
  const daemon = starting.use(start("qemu-storage-daemon", [
    "--blockdev",
    `driver=file,node-name=${SOURCE},filename=${image},aio=io_uring,cache.direct=off`,
    "--nbd-server",
    `addr.type=unix,addr.path=${exported}`,
    "--export",
    `type=nbd,id=export,node-name=${SOURCE},name=bench,writable=on`,
    "--chardev",
    `socket,id=control,path=${control},server=on,wait=off`,
    "--monitor",
    "chardev=control",
  ]));
  const qmp = starting.use(await Qmp.connect(control, daemon));
  const running = starting.move();
  let again = false;
  let isReady: Promise<boolean> | undefined;
  return {
    uri: `nbd+unix:///bench?socket=${exported}`,
    sentBytes: () => relay?.sentBytes ?? 0,
    async begin() {
      const path = relay === undefined ? server.socket : relayed;
      await qmp.execute("blockdev-add", {
        driver: "nbd",
        "node-name": TARGET,
        server: { type: "unix", path },
      });
      isReady = qmp.event("BLOCK_JOB_READY").then(() => true);
      isReady.catch(() => {});
      await qmp.execute("blockdev-mirror", {
        "job-id": JOB,
        device: SOURCE,
        target: TARGET,
        sync: "full",
        "copy-mode": copyMode,
        granularity: CHUNK_BYTES,
      });
    },
    async ready(within_ms) {
      if (!again) return await within(isReady, within_ms);
      // A job that was ready once stays so: it has everything when its bitmap is clean and nothing on its way.
      const deadline_ms = performance.now() + within_ms;
      while (!await qmp.isClean()) {
        if (performance.now() >= deadline_ms) return false;
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
      return true;
    },
    async pause() {
      if (copyMode === "write-blocking") return false;
      await qmp.execute("block-job-pause", { device: JOB });
      return true;
    },
    async resume() {
      await qmp.execute("block-job-resume", { device: JOB });
      again = true;
    },
    async switchOver(within_ms) {
      const completed = qmp.event("BLOCK_JOB_COMPLETED").then((event) => {
        const { data } = event as { data?: { error?: string } };
        if (data?.error !== undefined) throw new Error(`qemu cannot switch: ${data.error}`);
        return true;
      });
      completed.catch(() => {});
      await qmp.execute("block-job-complete", { device: JOB });
      return await within(completed, within_ms);
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

class Qmp implements Disposable {
  #id = 0;

  private constructor(readonly lines: JsonLines, readonly daemon: Started) {}

  static async connect(path: string, daemon: Started): Promise<Qmp> {
    const lines = await waitUntil(() => JsonLines.connect(path).catch(() => undefined), {
      what: () => `${path}: ${daemon.output()}`,
    });
    await lines.take((message) => "QMP" in message);
    const qmp = new Qmp(lines, daemon);
    await qmp.execute("qmp_capabilities", {});
    return qmp;
  }

  async execute(command: string, argument: Message): Promise<unknown> {
    const id = ++this.#id;
    await this.lines.send({ execute: command, arguments: argument, id });
    const answer = await this.lines.take((message) => message["id"] === id);
    if (!("error" in answer)) return answer["return"];
    throw new Error(`${command}: ${JSON.stringify(answer["error"])}\n${this.daemon.output()}`);
  }

  event(name: string): Promise<Message> {
    return this.lines.take((message) => message["event"] === name);
  }

  async isClean(): Promise<boolean> {
    const [job] = await this.execute("query-block-jobs", {}) as { len: number; offset: number }[];
    const nodes = await this.execute("query-named-block-nodes", { flat: true }) as {
      "node-name": string;
      "dirty-bitmaps"?: { count: number }[];
    }[];
    const bitmaps = nodes.flatMap((node) => node["dirty-bitmaps"] ?? []);
    if (bitmaps.length === 0) throw new Error("qemu shows no dirty bitmap of its job");
    return job !== undefined && job.len === job.offset && bitmaps.every(({ count }) => count === 0);
  }

  [Symbol.dispose](): void {
    this.lines[Symbol.dispose]();
  }
}
