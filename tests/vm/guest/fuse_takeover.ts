/** A mounted file system on FUSE and a loop device: killed agents, growth, and nothing left behind. */
import { endVerifyingFio, startVerifyingFio, untilWritten } from "../../support/fio_job.ts";
import { run, waitUntil } from "../../support/process.ts";
import {
  closeFile,
  findHolders,
  findLoops,
  type Holder,
  listMounts,
} from "../../../src/sys/mod.ts";
import { GuestAgent } from "./agent.ts";
import { check, step } from "./steps.ts";

const MIB = 1024 ** 2;
const KILLS = 2;
const SLOW_MS = 120_000;
const SERVED = "/dev/shm/psma/volume-state/data/device";

const agent = new GuestAgent(
  "  data: { size: 64MiB, max_size: 512MiB, frontend: fuse, filesystem: { type: ext4, mount: /mnt } }",
);

function holders(): Holder[] {
  const found = findHolders(SERVED);
  for (const { pidfd } of found) closeFile(pidfd);
  return found;
}

const device = await step("a file system is mounted", async () => {
  await agent.start();
  const { exports } = await agent.attached("data");
  return exports[0]?.device ?? "";
});

await step("a holder says how a take-over goes on this kernel", () => {
  const [holder] = holders();
  const { resend, arena } = JSON.parse(holder?.note ?? "{}");
  // FUSE can send requests again from Linux 6.9 on.
  const [major = 0, minor = 0] = Deno.osRelease().split(".").map(Number);
  const sendsAgain = major > 6 || (major === 6 && minor >= 9);
  check(resend === sendsAgain && (arena === null) === sendsAgain, holder?.note ?? "no holder");
  return holder?.note;
});

const fio = startVerifyingFio(["--directory=/mnt", "--size=16m"]);

for (let kills = 1; kills <= KILLS; kills++) {
  await step(`fio goes on after kill -9, ${kills} of ${KILLS}`, async () => {
    await untilWritten(device, MIB, fio);
    await agent.kill();
    await agent.start();
    const { exports } = await agent.attached("data");
    check(exports[0]?.device === device, JSON.stringify(exports));
    check(/took over/.test(agent.output()), agent.output());
  });
}

await step("the device and its file system grow under fio", async () => {
  const before = await filesystemBytes();
  await agent.do("data", "scale", { size_bytes: 128 * MIB });
  await waitUntil(async () => await filesystemBytes() > 1.5 * before, {
    what: () => `a larger file system; the agent says:\n${agent.output()}`,
    within_ms: SLOW_MS,
  });
});

await step("fio saw no error and no wrong block", async () => {
  await untilWritten(device, MIB, fio);
  const { read, write } = await endVerifyingFio(fio);
  check(read.total_ios > 0 && write.total_ios > 0, "fio did nothing");
  return `${write.total_ios} writes, ${read.total_ios} reads`;
});

await step("a clean stop leaves neither mount, device nor holder", async () => {
  await agent.stop();
  check((await findLoops(SERVED)).length === 0, "a loop device is left");
  check(!listMounts().some(({ at }) => at === "/mnt" || at === SERVED), "a mount is left");
  await waitUntil(() => holders().length === 0, { what: "the holder to end" });
});

await step("the file system is clean", async () => {
  const far = "/dev/shm/psma.far";
  const [folder] = [...Deno.readDirSync(far)].filter((entry) => entry.isDirectory);
  await run("e2fsck", ["-f", "-n", `${far}/${folder?.name}/data`], { within_ms: SLOW_MS });
});

async function filesystemBytes(): Promise<number> {
  const { stdout } = await run("stat", ["-f", "-c", "%b", "/mnt"], { within_ms: SLOW_MS });
  return Number(stdout);
}
