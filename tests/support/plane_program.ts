/**
 * A data plane in a process of its own, as `psma run` has it: a main thread and a data-plane worker, one volume
 * over one file, reachable by one frontend. `plane_program.ts OPTIONS-JSON`; it prints `ready EXPORT-JSON`
 * and ends on SIGTERM, detached and flushed. Without a volume it starts no data plane.
 */
import { createLog } from "../../src/core/mod.ts";
import { attachVolume, DataPlane, detachAttachment } from "../../src/dataplane/mod.ts";
import type { PlaneProcessOptions, ServedVolume } from "./plane_process.ts";

const { directory, replay, volume } = JSON.parse(Deno.args[0] ?? "{}") as PlaneProcessOptions;
const log = createLog({ level: "warn" });
const stopping = Promise.withResolvers<void>();
Deno.addSignalListener("SIGTERM", () => stopping.resolve());
Deno.addSignalListener("SIGINT", () => stopping.resolve());

const served = volume === undefined ? undefined : await serve(volume);
const exported = JSON.stringify(served?.attachment.exports[0] ?? null);
await Deno.stdout.write(new TextEncoder().encode(`ready ${exported}\n`));
await Promise.race([stopping.promise, ...(served === undefined ? [] : [served.plane.died])]);
if (served !== undefined) {
  await detachAttachment({ ...served, log, force: true });
  await served.plane.stop();
}
Deno.exit(0);

async function serve({ image, frontend, filesystem }: ServedVolume) {
  const plane = await DataPlane.start({ log, ...(replay === undefined ? {} : { replay }) });
  const { size } = Deno.statSync(image);
  if (frontend === "nbd") {
    await plane.command("serveNbd", { listen: { path: `${directory}/psma.sock` }, fenced: false });
  }
  await plane.command("openVolume", {
    name: "bench",
    directory,
    max_size_bytes: size,
    initial: {
      store: "local",
      store_volume: "bench",
      size_bytes: size,
      backend: { type: "file", path: image },
    },
  });
  const attachment = await attachVolume({
    plane,
    volume: "bench",
    frontend,
    device: false,
    directory,
    filesystem: filesystem ?? null,
    queueDepth: 64,
    log,
  });
  return { plane, attachment };
}
