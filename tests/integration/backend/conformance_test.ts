/** Every backend, and every wrapper in its neutral setting, under one suite. */
import {
  type Backend,
  DelayBackend,
  DeviceBackend,
  ErrorBackend,
  FileBackend,
  LimitBackend,
  openNbdBackend,
  TornBackend,
} from "../../../src/backend/mod.ts";
import { attachedLoop, sparseFile } from "../../support/attached_loop.ts";
import { backendConformance, type Place, type Subject } from "../../support/backend_conformance.ts";
import type { InThread } from "../../support/in_thread.ts";
import { NbdProcess } from "../../support/nbd_process.ts";
import { RawNbd } from "../../support/nbd_raw.ts";
import { start, waitUntil } from "../../support/process.ts";

const FOLDERS = { disk: undefined, tmpfs: "/dev/shm" };

/** A file as a place; `wrap` puts something in front of its backend. */
function file(
  name: string,
  options: {
    readonly direct?: boolean;
    readonly folder?: keyof typeof FOLDERS;
    readonly wrap?: (backend: Backend, thread: InThread) => Backend;
  } = {},
): Subject {
  const { direct = false, folder = "disk", wrap = (backend) => backend } = options;
  return {
    name,
    needs: {},
    grows: "itself",
    tellsHoles: true,
    transport: false,
    prepare: (dir, sizeBytes) => {
      const undo = new AsyncDisposableStack();
      const path = sparseFile(`${folderIn(folder, dir, undo)}/data`, sizeBytes);
      return Promise.resolve({
        open: (thread) =>
          Promise.resolve(wrap(new FileBackend({ path, direct, ...thread }), thread)),
        [Symbol.asyncDispose]: () => undo.disposeAsync(),
      });
    },
  };
}

/** An empty folder of the wanted kind; the given one is on a disk. */
function folderIn(kind: keyof typeof FOLDERS, dir: string, undo: AsyncDisposableStack): string {
  if (FOLDERS[kind] === undefined) return dir;
  const made = Deno.makeTempDirSync({ dir: FOLDERS[kind] });
  undo.defer(() => Deno.removeSync(made, { recursive: true }));
  return made;
}

function device(blockBytes: number, folder: keyof typeof FOLDERS): Subject {
  return {
    name: `device, blocks of ${blockBytes}, on ${folder}`,
    needs: { root: true, loop: true, commands: ["losetup"] },
    grows: "outside",
    tellsHoles: false,
    transport: false,
    async prepare(dir, sizeBytes): Promise<Place> {
      const undo = new AsyncDisposableStack();
      const path = sparseFile(`${folderIn(folder, dir, undo)}/image`, sizeBytes);
      const { device } = undo.use(await attachedLoop({ path, blockBytes }));
      return {
        open: (thread) => Promise.resolve(new DeviceBackend({ path: device, ...thread })),
        enlarge(larger) {
          Deno.truncateSync(path, larger);
          new Deno.Command("losetup", { args: ["-c", device] }).outputSync();
        },
        [Symbol.asyncDispose]: () => undo.disposeAsync(),
      };
    },
  };
}

/** A server as a place, by its socket. @param serve starts it on a file. */
function nbd(
  name: string,
  commands: readonly string[],
  grows: Subject["grows"],
  serve: (socket: string, path: string, undo: AsyncDisposableStack) => Promise<string>,
): Subject {
  return {
    name: `nbd, ${name}`,
    needs: { commands },
    grows,
    tellsHoles: true,
    transport: true,
    async prepare(dir, sizeBytes): Promise<Place> {
      const undo = new AsyncDisposableStack();
      const path = sparseFile(`${dir}/data`, sizeBytes), socket = `${dir}/nbd.sock`;
      const uri = await serve(socket, path, undo);
      return {
        open: (thread) => openNbdBackend({ uri, ...thread }),
        enlarge: (larger) => Deno.truncateSync(path, larger),
        [Symbol.asyncDispose]: () => undo.disposeAsync(),
      };
    },
  };
}

/** Starts a server program and waits until it listens. @returns its default export's URI. */
async function serveWith(
  socket: string,
  undo: AsyncDisposableStack,
  command: string,
  args: readonly string[],
): Promise<string> {
  const server = undo.use(start(command, args));
  await waitUntil(async () => {
    try {
      (await RawNbd.connect(socket))[Symbol.dispose]();
      return true;
    } catch {
      return false;
    }
  }, { what: () => `${command} to listen: ${server.output()}` });
  return `nbd+unix:///?socket=${socket}`;
}

backendConformance(file("file"));
backendConformance(file("file in memory", { folder: "tmpfs" }));
backendConformance(file("file, direct", { direct: true }));
for (const folder of ["disk", "tmpfs"] as const) {
  for (const blockBytes of [512, 4096]) backendConformance(device(blockBytes, folder));
}
backendConformance(nbd("our server", [], "not", async (socket, path, undo) => {
  const server = undo.use(await NbdProcess.start());
  await server.call("serve", { server: "s", listen: { path: socket }, fenced: false });
  const named = { server: "s", name: "data", path, description: "" };
  return (await server.call("exportFile", named)).uri;
}));
backendConformance(
  nbd(
    "nbdkit",
    ["nbdkit"],
    "outside",
    (socket, path, undo) =>
      serveWith(socket, undo, "nbdkit", ["--foreground", "--unix", socket, "file", path]),
  ),
);
backendConformance(
  nbd("qemu-nbd", ["qemu-nbd"], "not", (socket, path, undo) =>
    serveWith(socket, undo, "qemu-nbd", [
      ...["--persistent", "--shared=8", "--format=raw", "--socket", socket, path],
    ])),
);
backendConformance(file("delay", { wrap: (inner, thread) => new DelayBackend(inner, thread) }));
backendConformance(
  file("error", { wrap: (inner, { operations }) => new ErrorBackend(inner, operations) }),
);
backendConformance(file("limit", { wrap: (inner, thread) => new LimitBackend(inner, thread) }));
backendConformance(
  file("limit, in memory", {
    folder: "tmpfs",
    wrap: (inner, thread) => new LimitBackend(inner, thread),
  }),
);
backendConformance(
  file("torn", { wrap: (inner, { operations }) => new TornBackend(inner, operations) }),
);
