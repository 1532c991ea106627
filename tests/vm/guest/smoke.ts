/** The machine itself: its modules are loaded, and PSMA starts in it. */
import { run } from "../../support/process.ts";
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
  return JSON.stringify(JSON.parse(stdout)).slice(0, 1500);
});
