/** Who is measured: PSMA and its peers, each a process of its own on a file of its own, with its settings. */
import { startPlane } from "../../support/plane_process.ts";
import { run, start, type Started, waitUntil } from "../../support/process.ts";

export const FRONTENDS = ["nbd", "fuse"] as const;
export type Frontend = typeof FRONTENDS[number];

export interface Served extends AsyncDisposable {
  readonly pid: number;
  /** fio's options that reach it. */
  readonly target: readonly string[];
}

export interface ServeOptions {
  /** Filled already. */
  readonly image: string;
  /** Empty, short enough for a socket's path. */
  readonly directory: string;
  /** Whether the file is on tmpfs: past the page cache, which tmpfs itself is, qemu is fastest at 4 KiB then. */
  readonly tmpfs: boolean;
}

export interface Server {
  readonly name: string;
  /** Its settings are those of another one elsewhere. */
  readonly onlyTmpfs?: true;
  readonly serve: Readonly<Partial<Record<Frontend, (options: ServeOptions) => Promise<Served>>>>;
}

const fioNbd = (uri: string) => ["--ioengine=nbd", `--uri=${uri}`];
const fioDevice = (path: string) => ["--ioengine=io_uring", "--direct=1", `--filename=${path}`];
/** What PSMA's loop device has on a volume whose contents are no file system. */
const LOOP_BLOCK_BYTES = 512;

export const OURS: Server = {
  name: "psma",
  serve: {
    nbd: (options) => servePsma(options, "nbd"),
    fuse: (options) => servePsma(options, "fuse"),
  },
};

export const PEERS: readonly Server[] = [
  { name: "nbdkit", serve: { nbd: serveNbdkit } },
  { name: "qemu-nbd", serve: { nbd: serveQemuNbd } },
  { name: "qemu-storage-daemon", serve: { nbd: serveDaemonNbd, fuse: serveDaemonFuse } },
  {
    name: "qemu-storage-daemon cached",
    onlyTmpfs: true,
    serve: { fuse: (options) => serveDaemonFuse({ ...options, tmpfs: false }) },
  },
];

async function servePsma(
  { image, directory }: ServeOptions,
  frontend: Frontend,
): Promise<Served> {
  const plane = await startPlane({ directory, volume: { image, frontend } });
  const { process, exported } = plane;
  const target = exported?.frontend === "nbd"
    ? fioNbd(exported.uri)
    : fioDevice(exported?.device ?? "");
  return {
    pid: process.pid,
    target,
    [Symbol.asyncDispose]: () => plane[Symbol.asyncDispose](),
  };
}

async function serveNbdkit({ image, directory }: ServeOptions): Promise<Served> {
  const socket = `${directory}/nbdkit.sock`;
  const process = start("nbdkit", ["-f", "-U", socket, "file", image]);
  return await served(process, socket, fioNbd(`nbd+unix:///?socket=${socket}`));
}

async function serveQemuNbd({ image, directory, tmpfs }: ServeOptions): Promise<Served> {
  const socket = `${directory}/qemu-nbd.sock`;
  const cache = tmpfs ? ["--cache=none", "--aio=native"] : ["--cache=writeback", "--aio=io_uring"];
  const args = ["-t", "-f", "raw", "-e", "16", ...cache, "-k", socket, image];
  return await served(start("qemu-nbd", args), socket, fioNbd(`nbd+unix:///?socket=${socket}`));
}

async function serveDaemonNbd(options: ServeOptions): Promise<Served> {
  const socket = `${options.directory}/qsd.sock`;
  const process = startDaemon(options, [
    "--nbd-server",
    `addr.type=unix,addr.path=${socket}`,
    "--export",
    "type=nbd,id=export,node-name=disk,name=bench,writable=on",
  ]);
  return await served(process, socket, fioNbd(`nbd+unix:///bench?socket=${socket}`));
}

async function serveDaemonFuse(options: ServeOptions): Promise<Served> {
  const path = `${options.directory}/qsd`, pidFile = `${options.directory}/qsd.pid`;
  Deno.writeFileSync(path, new Uint8Array());
  const process = startDaemon(options, [
    "--object",
    "iothread,id=thread",
    "--export",
    `type=fuse,id=export,node-name=disk,mountpoint=${path},writable=on,iothread=thread`,
    "--pidfile",
    pidFile,
  ]);
  const mounted = await served(process, pidFile, []);
  try {
    const { stdout } = await run("losetup", [
      "--find",
      "--show",
      "--direct-io=on",
      `--sector-size=${LOOP_BLOCK_BYTES}`,
      path,
    ]);
    const device = stdout.trim();
    return {
      ...mounted,
      target: fioDevice(device),
      async [Symbol.asyncDispose]() {
        await run("losetup", ["--detach", device]);
        await mounted[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await mounted[Symbol.asyncDispose]();
    throw error;
  }
}

function startDaemon({ image, tmpfs }: ServeOptions, args: readonly string[]): Started {
  const cache = tmpfs ? "aio=native,cache.direct=on" : "aio=io_uring,cache.direct=off";
  return start("qemu-storage-daemon", [
    "--blockdev",
    `driver=file,node-name=disk,filename=${image},${cache}`,
    ...args,
  ]);
}

/** Waits for the file by which a server shows that it serves. */
async function served(
  process: Started,
  sign: string,
  target: readonly string[],
): Promise<Served> {
  let ended = false;
  process.status.then(() => ended = true);
  try {
    await waitUntil(() => ended || exists(sign), { what: `${sign}: ${process.output()}` });
    if (ended) throw new Error(`A server ended at once: ${process.output()}`);
  } catch (error) {
    await process[Symbol.asyncDispose]();
    throw error;
  }
  return {
    pid: process.pid,
    target,
    [Symbol.asyncDispose]: () => process[Symbol.asyncDispose](),
  };
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
