/**
 * PSMA as `psma run` has it, without the layers that decide: a main thread, a data-plane worker and the client of
 * a store server, one volume over one file. `program.ts OPTIONS-JSON`; it takes the data plane's commands as lines
 * of JSON, `{seq, name, argument}`, on a Unix socket, and ends on SIGTERM.
 */
import { createLog } from "../../../src/core/mod.ts";
import { type CommandName, DataPlane } from "../../../src/dataplane/mod.ts";
import { openStore } from "../../../src/datastore/mod.ts";
import type { ProgramOptions } from "./psma.ts";

const { control, directory, image, store } = JSON.parse(Deno.args[0] ?? "{}") as ProgramOptions;
const log = createLog({ level: "warn" });
const far = openStore("far", { type: "psma", ...store }, { log });
const plane = await DataPlane.start({
  log,
  questions: {
    digests: ({ target, extents }) => far.digests(target, extents),
    promote: async ({ target, epoch, claimant }) => {
      await far.promote(target, epoch, claimant);
      return null;
    },
    storeEpoch: async ({ target }) => (await far.find(target.store_volume))?.epoch ?? 0,
  },
});
Deno.addSignalListener("SIGTERM", async () => {
  await plane.stop();
  Deno.exit(0);
});

const { size } = Deno.statSync(image);
await plane.command("serveNbd", { listen: { path: `${directory}/volume.sock` }, fenced: false });
await plane.command("openVolume", {
  name: "data",
  directory: `${directory}/volume`,
  max_size_bytes: 2 * size,
  initial: {
    store: "near",
    store_volume: "data",
    size_bytes: size,
    backend: { type: "file", path: image },
  },
});
const { uri } = await plane.command("exportNbd", { name: "data", description: "bench" });
const listener = Deno.listen({ transport: "unix", path: control });
await Deno.stdout.write(new TextEncoder().encode(`ready ${uri}\n`));
for await (const connection of listener) converse(connection).catch(() => {});

async function converse(connection: Deno.Conn): Promise<void> {
  const writer = connection.writable.getWriter();
  let text = "";
  for await (const part of connection.readable.pipeThrough(new TextDecoderStream())) {
    text += part;
    const lines = text.split("\n");
    text = lines.pop() ?? "";
    for (const line of lines) obey(line, writer);
  }
}

async function obey(
  line: string,
  writer: WritableStreamDefaultWriter<Uint8Array>,
): Promise<void> {
  const { seq, name, argument } = JSON.parse(line) as {
    seq: number;
    name: CommandName;
    argument: never;
  };
  const outcome = await plane.command(name, argument).then(
    (value) => ({ value }),
    (error: Error) => ({ error: error.message }),
  );
  await writer.write(new TextEncoder().encode(JSON.stringify({ seq, ...outcome }) + "\n"));
}
