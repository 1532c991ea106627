/** PSMA's ublk devices on a kernel that has the driver. */
import { GuestAgent } from "./agent.ts";
import { check, step } from "./steps.ts";

const agent = new GuestAgent(`
  data: { size: 96MiB, max_size: 1GiB, frontend: auto, filesystem: { type: ext4, mount: /mnt/data } }
`);

await step("auto is a ublk device with a mounted file system", async () => {
  await agent.start();
  const { exports } = await agent.attached("data");
  check(exports[0]?.frontend === "ublk", JSON.stringify(exports));
  return JSON.stringify(exports);
});
await step("stop", async () => {
  await agent.stop();
  return agent.output();
});
