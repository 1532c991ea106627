/** The sampler: what is seen of a volume, and what happens when a file system or a device is away. */
import { deepEqual, equal, match } from "node:assert/strict";
import { COUNTER, COUNTER_PAGE_BYTES } from "../../../src/codec/mod.ts";
import { type Clock, createLog, silentLog } from "../../../src/core/mod.ts";
import { type FilesystemUse, Sampler } from "../../../src/monitor/sampler.ts";

/** A clock that the test moves; whoever sleeps is woken when the time has come. */
function handClock() {
  let ms = 0;
  const sleepers: { until: number; wake: () => void }[] = [];
  const clock: Clock = {
    nowMs: () => 1e12 + ms,
    monotonicMs: () => ms,
    sleep: (delay, signal) =>
      new Promise((resolve, reject) => {
        sleepers.push({ until: ms + delay, wake: resolve });
        signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
      }),
  };
  const advance = (by: number) => {
    ms += by;
    for (const { until, wake } of sleepers) if (until <= ms) wake();
  };
  return { clock, advance };
}

const USE: FilesystemUse = {
  size_bytes: 1000,
  used_bytes: 400,
  available_bytes: 550,
  inodes_total: 100,
  inodes_used: 7,
};

function page(values: Partial<Record<keyof typeof COUNTER, number>>): Float64Array {
  const page = new Float64Array(COUNTER_PAGE_BYTES / 8);
  for (const [name, value] of Object.entries(values)) {
    page[COUNTER[name as keyof typeof COUNTER]] = value;
  }
  return page;
}

Deno.test("observe() samples a raw volume by what it has allocated, and rates from the second look on", async () => {
  const { clock, advance } = handClock();
  const sampler = new Sampler({
    clock,
    log: silentLog,
    interval_ms: 1000,
    statFilesystem: () => Promise.reject(new Error("asked")),
    readText: () => undefined,
  });
  const counters = page({ allocatedBytes: 4096, writes: 10, writeBytes: 40960 });
  const watched = [{ volume: "raw", page: counters, mount: null, device: null }];
  const [first] = await sampler.observe(watched);
  equal(first?.used_bytes, 4096);
  deepEqual(first?.samples.map(({ metric }) => metric), ["allocated_bytes", "used_bytes"]);

  advance(1000);
  counters[COUNTER.writes] = 110;
  counters[COUNTER.writeBytes] = 40960 + 4096 * 100;
  const [second] = await sampler.observe(watched);
  const values = Object.fromEntries(second?.samples.map((one) => [one.metric, one.value]) ?? []);
  equal(values["write_iops"], 100);
  equal(values["write_bytes_per_s"], 409600);
  equal(values["read_iops"], 0);
  equal(second?.samples[0]?.at_ms, 1e12 + 1000);
  equal(sampler.pressure, undefined);
});

Deno.test("observe() believes the store where the page cannot tell, and samples nothing where nobody can", async () => {
  const { clock } = handClock();
  const sampler = new Sampler({
    clock,
    log: silentLog,
    interval_ms: 1000,
    readText: () => undefined,
  });
  const look = async (allocated_bytes: number | null) => {
    const raw = page({ allocatedBytes: 9999 });
    const [seen] = await sampler.observe([
      { volume: "raw", page: raw, mount: null, device: null, allocated_bytes },
    ]);
    return seen;
  };
  const told = await look(123);
  equal(told?.used_bytes, 123);
  deepEqual(told?.samples.map(({ metric, value }) => [metric, value]), [
    ["allocated_bytes", 123],
    ["used_bytes", 123],
  ]);
  const unknown = await look(null);
  equal(unknown?.used_bytes, 123, "what was last known stays in view");
  equal(unknown?.samples.some(({ metric }) => metric === "used_bytes"), false);
  equal((await look(50))?.used_bytes, 50);

  await sampler.observe([]);
  equal((await look(null))?.used_bytes, 0, "a volume that was closed is new");
});

Deno.test("observe() takes use and inodes from the file system", async () => {
  const { clock } = handClock();
  const sampler = new Sampler({
    clock,
    log: silentLog,
    interval_ms: 1000,
    statFilesystem: (mount) => Promise.resolve({ ...USE, used_bytes: mount.length }),
    readText: () => undefined,
  });
  const [seen] = await sampler.observe([
    { volume: "data", page: page({ allocatedBytes: 1 }), mount: "/srv/data", device: "loop3" },
    { volume: "closed", page: undefined, mount: null, device: null },
  ]);
  equal(seen?.used_bytes, 9);
  deepEqual(seen?.samples.map(({ metric }) => metric), [
    "allocated_bytes",
    "used_bytes",
    "inodes_used",
  ]);
});

/** A line of /proc/diskstats: sectors of 512 bytes. */
function diskstats(device: string, read_sectors: number, write_sectors: number, busy_ms: number) {
  return `7 3 ${device} 1 0 ${read_sectors} 4 5 0 ${write_sectors} 8 0 ${busy_ms} 11\n`;
}

Deno.test("observe() samples what the volume's device did since the look before", async () => {
  const { clock, advance } = handClock();
  const lines: string[] = [];
  let text = "";
  const sampler = new Sampler({
    clock,
    log: createLog({ level: "debug", write: (line) => lines.push(line), clock }),
    interval_ms: 1000,
    readText: (path) => path === "/proc/diskstats" ? text : undefined,
  });
  const look = async (device: string | null, stats: string) => {
    advance(1000);
    text = stats;
    const [seen] = await sampler.observe([{ volume: "data", page: page({}), mount: null, device }]);
    return seen?.samples.filter(({ metric }) => metric.startsWith("device_"))
      .map(({ metric, value }) => [metric, value]);
  };
  deepEqual(await look("loop3", diskstats("loop3", 100, 1000, 2 ** 32 - 100)), []);
  deepEqual(
    await look("loop3", diskstats("loop4", 9, 9, 9) + diskstats("loop3", 108, 1016, 150)),
    [
      ["device_write_bytes_per_s", 8192],
      ["device_read_bytes_per_s", 4096],
      ["device_busy_ratio", 0.25],
    ],
    "its times wrap at 32 bits",
  );
  deepEqual(lines, []);
  deepEqual(await look("loop3", diskstats("loop3", 0, 8, 1)), [], "it began again");
  deepEqual(lines.map((line) => /counters are odd .*/.exec(line)?.[0]), [
    'counters are odd of="device loop3" odd=reset rates=false',
  ]);
  deepEqual(await look("loop5", diskstats("loop5", 0, 8000, 1)), [], "another device is new");
  deepEqual(await look(null, ""), []);
  deepEqual(await look("loop5", diskstats("loop5", 0, 8000, 1)), [], "it was away meanwhile");
  equal(lines.length, 1);
  advance(9000);
  deepEqual(await look("loop5", diskstats("loop5", 0, 9000, 1)), []);
  match(lines[1] ?? "", /of="volume data" odd=gap/);
  match(lines[2] ?? "", /of="device loop5" odd=gap/);
});

Deno.test("observe() does not wait for, ask twice or sample a file system that does not answer", async () => {
  const { clock, advance } = handClock();
  const answers: ((use: FilesystemUse) => void)[] = [];
  const sampler = new Sampler({
    clock,
    log: silentLog,
    interval_ms: 1000,
    statFilesystem: () => new Promise((resolve) => answers.push(resolve)),
    readText: () => undefined,
  });
  const watched = [{ volume: "data", page: page({}), mount: "/srv/data", device: null }];
  const look = async () => {
    const looking = sampler.observe(watched);
    advance(2000);
    return (await looking)[0];
  };
  const hung = await look();
  equal(hung?.filesystem, null);
  equal(hung?.samples.some(({ metric }) => metric === "used_bytes"), false);
  await look();
  equal(answers.length, 1);

  answers[0]?.(USE);
  const [seen] = await sampler.observe(watched);
  deepEqual(seen?.filesystem, USE);
  equal(seen?.used_bytes, 400);
});

Deno.test("observe() takes no use from a mount point that the volume's file system is not mounted on", async () => {
  const { clock } = handClock();
  const sampler = new Sampler({ clock, log: silentLog, interval_ms: 1000 });
  const watched = { volume: "data", page: page({ allocatedBytes: 4096 }), device: "loop-none" };
  // The root is mounted, but from another device; the other path is no mount point at all.
  for (const mount of ["/", "/proc/self"]) {
    const [seen] = await sampler.observe([{ ...watched, mount }]);
    equal(seen?.filesystem, null);
    equal(seen?.used_bytes, 0);
    equal(seen?.samples.some(({ metric }) => metric === "used_bytes"), false);
  }
});
