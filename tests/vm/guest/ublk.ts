/**
 * ublk devices on a kernel that has the driver: three volumes at once, two with a file system, beside a device
 * of somebody else's that must come to no harm. Host tasks run in this process, as they do for the agent in
 * one of their own.
 */
import {
  doHostTask,
  type HostTaskName,
  type HostTasks,
} from "../../../src/dataplane/host/tasks.ts";
import {
  closeFile,
  findUblk,
  mountsAt,
  openFile,
  UblkControlRing,
  UringRing,
} from "../../../src/sys/mod.ts";
import { run, waitUntil } from "../../support/process.ts";
import { Plane, servePlane } from "./plane.ts";
import { check, step } from "./steps.ts";

if (Deno.args[0] === "serve") await servePlane();

const MIB = 1024 ** 2;
const SLOW_MS = 240_000;
const FOREIGN_COOKIE = "5eed000000000001";
const PUNCH_HOLE = 0x03, ZERO_RANGE = 0x11;
const FOLDER = "/dev/shm/ublk";

interface TestVolume {
  readonly name: string;
  readonly sizeBytes: number;
  readonly depth: number;
  readonly cookie: string;
  readonly filesystem: { type: string; mount: string } | null;
  device: string;
}

const data = volume("data", 64 * MIB, 128, { type: "ext4", mount: "/mnt/data" });
const more = volume("more", 32 * MIB, 64, { type: "ext4", mount: "/mnt/more" });
const raw = volume("raw", 32 * MIB, 64, null);
const VOLUMES = [data, more, raw];
const MAX_BYTES = 256 * MIB;

using control = new UblkControlRing();
let plane = new Plane();

await step("the driver can do what PSMA asks for", () => {
  const { device } = control.add({ depth: 4, maxIoBytes: MIB, cookie: cookieOf(FOREIGN_COOKIE) });
  check(device === 0, `the device of somebody else's is number ${device}`);
  return `features 0x${control.features().toString(16)}`;
});

const resizes = (control.features() & 1024n) !== 0n;

await step("three volumes become devices, two with a file system", async () => {
  for (const one of VOLUMES) {
    await open(one);
    const geometry = await plane.command("volumeGeometry", { name: one.name });
    const { cookie, depth } = one;
    const added = await host("ublkAdd", { ...geometry, cookie, depth });
    check(added.depth === depth, `${added.depth} tags`);
    await plane.command("exportUblk", { name: one.name, ...added });
    await startDevice(one, added.device);
  }
  for (const { filesystem, device } of VOLUMES) {
    const source = filesystem === null ? device : mountsAt(filesystem.mount)[0]?.source;
    check(source === device, `${source} is mounted, not ${device}`);
  }
});

await step("the device declares flush, FUA, discard and write-zeroes", () => {
  const limit = (name: string) => Deno.readTextFileSync(`${sysOf(raw)}/queue/${name}`).trim();
  check(limit("write_cache") === "write back", `write_cache is ${limit("write_cache")}`);
  check(limit("fua") === "1", `fua is ${limit("fua")}`);
  check(limit("logical_block_size") === "4096", limit("logical_block_size"));
  check(limit("max_sectors_kb") === "1024", limit("max_sectors_kb"));
  for (const name of ["discard_max_bytes", "write_zeroes_max_bytes"]) {
    check(limit(name) === `${256 * MIB}`, `${name} is ${limit(name)}`);
  }
});

await step(
  "durable writes of many sizes are in the backing file when they are acknowledged",
  async () => {
    await fio(raw, ["--rw=randwrite", "--bsrange=4k-1m", "--size=8M", "--sync=dsync"]);
    await run("cmp", ["-n", `${8 * MIB}`, raw.device, backingOf(raw)]);
  },
);

await step("punch, zeroing and discard reach the backing file", async () => {
  const backing = backingOf(raw), length = MIB;
  const allocated = () => (Deno.statSync(backing).blocks ?? 0) * 512;
  const before = allocated();
  check(!isZero(readAt(backing, MIB, length)), "there is nothing to punch");
  fallocate(raw.device, { mode: PUNCH_HOLE, at: MIB, length });
  check(isZero(readAt(backing, MIB, length)), "what was punched is still there");
  check(allocated() === before - length, `${before} bytes became ${allocated()}`);
  fallocate(raw.device, { mode: ZERO_RANGE, at: 4 * MIB, length });
  check(isZero(readAt(backing, 4 * MIB, length)), "what was zeroed is still there");
  check(allocated() === before - length, "zeroing gave blocks away that it must keep");
  await run("busybox", ["blkdiscard", "-o", `${6 * MIB}`, "-l", `${length}`, raw.device]);
  check(isZero(readAt(backing, 6 * MIB, length)), "what was discarded is still there");
  check(allocated() === before - 2 * length, "discarding gave no blocks back");
});

await step(
  "a device that is larger than its volume reads as zeros there and takes no write",
  async () => {
    using device = Deno.openSync(raw.device);
    const bytes = device.seekSync(0, Deno.SeekMode.End);
    check(bytes === (resizes ? raw.sizeBytes : MAX_BYTES), `the device has ${bytes} bytes`);
    if (resizes) return "the driver resizes devices: there is nothing beyond";
    check(isZero(readAt(raw.device, raw.sizeBytes, 64 * 1024)), "there are no zeros");
    const write = ["if=/dev/zero", `of=${raw.device}`, "bs=4096", "count=1", "oflag=direct"];
    await run("dd", [...write, `seek=${raw.sizeBytes / 4096 - 1}`]);
    const failure = await run("dd", [...write, `seek=${raw.sizeBytes / 4096}`], { exit: 1 });
    check(/No space/.test(failure.stderr), failure.stderr);
    return failure.stderr.trim();
  },
);

await step("killed under fio on all three, taken over, and nobody saw an error", async () => {
  const before = VOLUMES.map(writesOf);
  const jobs = VOLUMES.map((one) =>
    fio(one, ["--rw=randwrite", "--bsrange=4k-64k", "--size=12M", "--loops=4"])
  );
  let running = jobs.length;
  for (const one of jobs) one.finally(() => running--).catch(() => {});
  await waitUntil(() => VOLUMES.every((one, i) => writesOf(one) > (before[i] ?? 0) + 50), {
    what: "fio to be under way on every device",
    within_ms: SLOW_MS,
  });
  check(running === jobs.length, "fio had ended before the kill");
  await plane.kill();
  // A successor that is killed in its turn, right after it began.
  check(await host("ublkRecover", { cookie: raw.cookie, pid: 1 }) !== null, "raw is not found");
  plane = new Plane();
  for (const one of VOLUMES) {
    await open(one);
    const found = await host("ublkRecover", { cookie: one.cookie, pid: plane.pid });
    check(found !== null, `${one.name} is not found`);
    if (found === null) continue;
    await plane.command("exportUblk", { name: one.name, ...found });
    await startDevice(one, found.device);
  }
  check(running > 0, "fio had ended before the take-over");
  await Promise.all(jobs);
});

await step("a volume grows under fio, with its file system", async () => {
  const job = fio(data, ["--rw=randwrite", "--bsrange=4k-64k", "--size=12M", "--loops=2"]);
  const size_bytes = 160 * MIB, argument = { volume: data.name, path: data.device, size_bytes };
  await plane.command("growVolume", { name: data.name, size_bytes });
  const grown = await host("ublkGrow", { ...argument, mount: "/mnt/data" });
  check(grown.device_bytes === size_bytes, `the device shows ${grown.device_bytes} bytes`);
  check((grown.filesystem_bytes ?? 0) > 120 * MIB, `the file system has ${grown.filesystem_bytes}`);
  const again = await host("ublkGrow", { ...argument, mount: "/mnt/data" });
  check(again.filesystem_bytes === grown.filesystem_bytes, "growing again changed something");
  await job;
  await fio(data, ["--rw=write", "--bs=1m", "--size=80M"]);
  return JSON.stringify(grown);
});

await step("what is in use is not stopped, and the refusal names its user", async () => {
  {
    using _held = Deno.createSync("/mnt/more/held");
    await refused(more, /\/mnt\/more is in use/);
  }
  using _device = Deno.openSync(raw.device);
  await refused(raw, /is in use by deno \(process \d+\)/);
});

await step("detached volumes leave nothing, and their file systems are clean", async () => {
  for (const one of VOLUMES) {
    const path = one.device, mount = one.filesystem?.mount ?? null;
    const { forced } = await host("ublkStop", { volume: one.name, path, mount, force: false });
    check(forced.length === 0, `${forced}`);
    await plane.command("unexportUblk", { name: one.name });
    await host("ublkDelete", { path });
    check(!isThere(path), `${path} is still there`);
    if (one.filesystem) await run("e2fsck", ["-fn", backingOf(one)], { within_ms: SLOW_MS });
  }
  checkDevices(["ublkc0"]);
});

await step("what a killed server left, mounted, is cleaned by its cookie alone", async () => {
  const geometry = await plane.command("volumeGeometry", { name: more.name });
  const added = await host("ublkAdd", { ...geometry, cookie: more.cookie, depth: more.depth });
  await plane.command("exportUblk", { name: more.name, ...added });
  await startDevice(more, added.device);
  await plane.kill();
  const none = await host("ublkClean", { cookie: "0000000000000001" });
  check(none.removed.length === 0, `${none.removed}`);
  const { removed } = await host("ublkClean", { cookie: more.cookie });
  check(`${removed}` === `/mnt/more,${more.device}`, `${removed}`);
  checkDevices(["ublkc0"]);
  check(findUblk(control, cookieOf(FOREIGN_COOKIE))?.device === 0, "the foreign device is gone");
});

function volume(
  name: string,
  sizeBytes: number,
  depth: number,
  filesystem: TestVolume["filesystem"],
): TestVolume {
  const cookie = crypto.getRandomValues(new Uint8Array(8)).toHex();
  return { name, sizeBytes, depth, cookie, filesystem, device: "" };
}

/** The volume's manifest decides when it was made before. */
async function open({ name, sizeBytes: size_bytes }: TestVolume): Promise<void> {
  const path = backingOf({ name });
  Deno.mkdirSync(FOLDER, { recursive: true });
  if (!isThere(path)) {
    Deno.writeFileSync(path, new Uint8Array());
    Deno.truncateSync(path, size_bytes);
  }
  const backend = { type: "file", path } as const;
  await plane.command("openVolume", {
    name,
    directory: `${FOLDER}/${name}`,
    max_size_bytes: MAX_BYTES,
    initial: { store: "near", store_volume: name, size_bytes, backend },
  });
}

async function startDevice(one: TestVolume, device: number): Promise<void> {
  const { name, sizeBytes: size_bytes, filesystem } = one, { pid } = plane;
  const { path } = await host("ublkStart", {
    volume: name,
    directory: `${FOLDER}/${name}`,
    device,
    pid,
    size_bytes,
    filesystem,
  });
  check(one.device === "" || one.device === path || one === more, `${name} moved to ${path}`);
  one.device = path;
}

async function host<Name extends HostTaskName>(
  name: Name,
  argument: HostTasks[Name]["argument"],
): Promise<HostTasks[Name]["answer"]> {
  return await doHostTask(name, argument) as HostTasks[Name]["answer"];
}

async function refused({ name, device, filesystem }: TestVolume, why: RegExp): Promise<void> {
  const mount = filesystem?.mount ?? null;
  const stop = host("ublkStop", { volume: name, path: device, mount, force: false });
  const answer = await stop.then(() => "it was stopped", String);
  check(why.test(answer), answer);
}

async function fio({ device, filesystem }: TestVolume, job: readonly string[]): Promise<void> {
  const where = filesystem ? `--directory=${filesystem.mount}` : `--filename=${device}`;
  const verify = ["--verify=crc32c", "--verify_fatal=1", "--do_verify=1"];
  const how = ["--ioengine=libaio", "--iodepth=64", "--direct=1"];
  await run("fio", ["--name=verified", where, ...job, ...verify, ...how], { within_ms: SLOW_MS });
}

/** From a process that is not the server: whoever waits for a device on its own ring's thread waits for ever. */
function fallocate(
  path: string,
  { mode, at, length }: { mode: number; at: number; length: number },
): void {
  const ring = new UringRing({ entries: 4 }), fd = openFile(path);
  let result: number | undefined;
  const kind = ring.register((_, answer) => result = answer);
  ring.fallocate(fd, mode, at, length, kind, 0);
  ring.submit(1, 0);
  ring.reap();
  ring.close();
  closeFile(fd);
  check(result === 0, `fallocate of ${path} answered ${result}`);
}

function backingOf({ name }: { name: string }): string {
  return `${FOLDER}/${name}.img`;
}

function sysOf({ device }: TestVolume): string {
  return `/sys/block/${device.replace("/dev/", "")}`;
}

/** Write requests that a device has seen. */
function writesOf(one: TestVolume): number {
  return Number(Deno.readTextFileSync(`${sysOf(one)}/stat`).trim().split(/\s+/)[4]);
}

function readAt(path: string, at: number, length: number): Uint8Array {
  using file = Deno.openSync(path);
  file.seekSync(at, Deno.SeekMode.Start);
  const bytes = new Uint8Array(length);
  for (let filled = 0; filled < length;) {
    const count = file.readSync(bytes.subarray(filled));
    check(count !== null, `${path} ends at ${at + filled}`);
    filled += count ?? 0;
  }
  return bytes;
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

function checkDevices(expected: readonly string[]): void {
  const found = [...Deno.readDirSync("/sys/class/ublk-char")].map(({ name }) => name).sort();
  check(`${found}` === `${expected}`, `there are ${found}, not ${expected}`);
}

function cookieOf(text: string): bigint {
  return BigInt(`0x${text}`);
}

function isThere(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
