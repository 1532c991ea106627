/**
 * A process to be killed by stale_test.ts: serves a volume in the folder of its first argument, mounts a
 * file system of its second argument's type on it, says so, and keeps writing there, unless the third is `idle`.
 */
import { attachLoop, formatFilesystem, mountFilesystem } from "../../src/sys/mod.ts";
import { serveFile } from "./served_file.ts";

const [dir = "", type = "", how = "writing"] = Deno.args;
const served = await serveFile({ dir, sizeBytes: 512 << 20 });
const { device } = await attachLoop({ path: served.path });
await formatFilesystem(device, type);
await mountFilesystem({ device, at: `${dir}/mnt`, type });
Deno.stdout.writeSync(new TextEncoder().encode(`serving ${device}\n`));
if (how === "idle") await new Promise((resolve) => setTimeout(resolve, 600_000));
const bytes = crypto.getRandomValues(new Uint8Array(65_536));
for (let i = 0;; i = (i + 1) % 64) await Deno.writeFile(`${dir}/mnt/written-${i}`, bytes);
