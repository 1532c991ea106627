/** The machine itself: its modules are loaded, and PSMA starts in it. */
import { run } from "../../support/process.ts";
import { GuestAgent } from "./agent.ts";
import { check, step } from "./steps.ts";

const SLOW_MS = 60_000;

await step("ublk_drv and nbd are loaded", () => {
  for (const path of ["/dev/ublk-control", "/dev/nbd0"]) Deno.statSync(path);
});

await step("psma version", async () => {
  const { stdout } = await run("psma", ["version"], { within_ms: SLOW_MS });
  check(/^psma \d+\.\d+\.\d+/.test(stdout), stdout);
  return stdout.trim();
});

await step("psma doctor", async () => {
  const { stdout } = await run("psma", ["doctor", "--json"], { within_ms: SLOW_MS });
  check(/frontend: auto[^}]*ublk: a block device/.test(stdout), stdout);
  return JSON.stringify(JSON.parse(stdout)).slice(0, 1500);
});

await step("psma run serves a volume, is killed, and serves it again", async () => {
  const agent = new GuestAgent("  data: { size: 64MiB, frontend: nbd }");
  await agent.start();
  await agent.attached("data");
  await agent.kill();
  await agent.start();
  const { exports } = await agent.attached("data");
  const { stdout } = await run("nbdinfo", ["--size", exports[0]?.uri ?? ""]);
  check(Number(stdout) === 64 * 1024 ** 2, stdout);
  await agent.do("data", "scale", { size_bytes: 128 * 1024 ** 2 });
  const { size_bytes } = await agent.attached("data");
  check(size_bytes === 128 * 1024 ** 2, `${size_bytes} bytes after the scaling event`);
  await agent.stop();
});
