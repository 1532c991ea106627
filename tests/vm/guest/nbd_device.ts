/**
 * A volume as /dev/nbdN: attached, formatted, mounted and written to by fio, which verifies every block, while
 * the agent stands still, is killed, and moves the volume to a larger one. Then it is detached, and at last an
 * agent finds the device of one that is gone with its volume.
 */
import { run, type Started, waitUntil } from "../../support/process.ts";
import { endVerifyingFio, startVerifyingFio, untilWritten } from "../../support/fio_job.ts";
import { GuestAgent } from "./agent.ts";
import { check, step } from "./steps.ts";

const MIB = 1024 ** 2;
const MOUNT = "/mnt/data";
/** Several times what the device waits before it looks after its requests. */
const STANDSTILL_MS = 12_000;
const SLOW_MS = 120_000;

const agent = new GuestAgent(`
  data:
    size: 64MiB
    max_size: 1GiB
    frontend: nbd
    device: true
    filesystem: { type: ext4, mount: ${MOUNT} }
    mirror: { store: far, write_through_timeout: 5s }
    scale: { approve: advise, cooldown: 0s }
`);

let device = "";

await step("a volume is attached as a device, formatted and mounted", async () => {
  await agent.start();
  const { exports: [exported] } = await agent.attached("data");
  check(exported?.frontend === "nbd" && exported.mount === MOUNT, JSON.stringify(exported));
  device = exported?.device ?? "";
  check(mounts().includes(`${device} ${MOUNT} ext4`), mounts());
  check(Number(readBlock("size")) * 512 === 64 * MIB, readBlock("size"));
  return `${device}, sectors of ${readBlock("queue/logical_block_size")} bytes`;
});

/** Not as fast as it can: an emulated mirror has to keep up with it. */
const fio: Started = startVerifyingFio([
  `--filename=${MOUNT}/busy`,
  "--size=8m",
  "--iodepth=4",
  "--rate_iops=100",
]);

await step("requests wait for an agent that stands still, on the same connection", async () => {
  await untilWritten(device, MIB, fio);
  agent.signal("SIGSTOP");
  await new Promise((resolve) => setTimeout(resolve, STANDSTILL_MS));
  agent.signal("SIGCONT");
  await untilWritten(device, MIB, fio);
  check(!/reconnected socket|timed out|Dead connection/.test(await kernelLog()), await kernelLog());
});

await step("requests wait for the next agent when it is killed", async () => {
  await agent.kill();
  await agent.start();
  const { exports: [exported] } = await agent.attached("data");
  check(exported?.device === device, JSON.stringify(exported));
  await untilWritten(device, MIB, fio);
  check(/reconnected socket/.test(await kernelLog()), "the kernel kept its connection");
});

await step("the device and its file system grow with the volume, in use", async () => {
  const before = await filesystemBlocks();
  await agent.do("data", "scale", { size_bytes: 128 * MIB });
  await waitUntil(async () => await filesystemBlocks() > 1.8 * before, {
    what: "the larger file system",
    within_ms: SLOW_MS,
  });
  check(Number(readBlock("size")) * 512 === 128 * MIB, readBlock("size"));
  await untilWritten(device, MIB, fio);
});

await step(
  "fio saw neither an error nor a wrong block, and the kernel no failed request",
  async () => {
    const { write, read } = await endVerifyingFio(fio);
    const log = await kernelLog();
    check(!/I\/O error|EXT4-fs error|Aborting journal/.test(log), log);
    return `${write.total_ios} writes, ${read.total_ios} reads`;
  },
);

await step(
  "a device in use is not detached, a free one is, and its file system is sound",
  async () => {
    const path = backingFile((await agent.view("data")).active.uri);
    {
      using _held = Deno.openSync(`${MOUNT}/busy`);
      const refused = await agent.do("data", "detach").catch((error: Error) => error.message);
      check(/state\/busy/.test(refused ?? ""), `detached in use: ${refused}`);
    }
    await agent.do("data", "detach");
    check(!mounts().includes(MOUNT), mounts());
    check(!isConnected(), "the device is still connected");
    const { stdout } = await run("e2fsck", ["-fn", path], { within_ms: SLOW_MS });
    return stdout.trim().split("\n").at(-1) ?? "";
  },
);

await step("the device of an agent that is gone with its volume is taken away", async () => {
  await agent.do("data", "attach");
  await agent.attached("data");
  await agent.kill();
  agent.forget();
  const other = new GuestAgent("  other: { size: 16MiB, frontend: nbd, device: true }");
  await other.start();
  await other.attached("other");
  check(!mounts().includes(MOUNT), mounts());
  const backends = backendsOfDevices();
  check(backends.length === 1 && /other/.test(backends[0] ?? ""), backends.join(" "));
  await other.stop();
  check(backendsOfDevices().length === 0, backendsOfDevices().join(" "));
});

function mounts(): string {
  return Deno.readTextFileSync("/proc/self/mounts");
}

function readBlock(name: string): string {
  return Deno.readTextFileSync(`/sys/block/${device.slice("/dev/".length)}/${name}`).trim();
}

function isConnected(): boolean {
  return backendsOfDevices().length > 0;
}

function backendsOfDevices(): string[] {
  return [...Deno.readDirSync("/sys/block")].flatMap(({ name }) => {
    try {
      return [Deno.readTextFileSync(`/sys/block/${name}/backend`).trim()];
    } catch {
      return [];
    }
  });
}

async function filesystemBlocks(): Promise<number> {
  return Number((await run("stat", ["-f", "-c", "%b", MOUNT])).stdout);
}

async function kernelLog(): Promise<string> {
  return (await run("dmesg", [])).stdout;
}

/** `file:///dev/shm/psma.far/…` or a plain path. */
function backingFile(uri: string): string {
  return uri.replace(/^file:(\/\/)?/, "");
}
