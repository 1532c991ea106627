/**
 * A data plane in a process of its own, as `psma run` has it: a main thread and a data-plane worker, one volume
 * over one file, reachable by one frontend. `plane_program.ts OPTIONS-JSON`; it prints `ready EXPORT-JSON`
 * and ends on SIGTERM, detached and flushed. Without `image` it has a data plane and no volume.
 */
import { createLog } from "../../src/core/mod.ts";
import { attachVolume, DataPlane, detachAttachment } from "../../src/dataplane/mod.ts";
import type { PlaneProcessOptions } from "./plane_process.ts";

const { directory, volume } = JSON.parse(Deno.args[0] ?? "{}") as PlaneProcessOptions;
const log = createLog({ level: "warn" });
const stopping = Promise.withResolvers<void>();
Deno.addSignalListener("SIGTERM", () => stopping.resolve());
Deno.addSignalListener("SIGINT", () => stopping.resolve());

const plane = await DataPlane.start({ log });
let attachment;
if (volume !== undefined) {
  const { image, frontend, filesystem = null } = volume;
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
  attachment = await attachVolume({ plane, volume: "bench", frontend, directory, filesystem, log });
}
const exported = JSON.stringify(attachment?.exports[0] ?? null);
await Deno.stdout.write(new TextEncoder().encode(`ready ${exported}\n`));
await Promise.race([stopping.promise, plane.died]);
if (attachment !== undefined) await detachAttachment({ plane, attachment, log, force: true });
await plane.stop();
Deno.exit(0);
