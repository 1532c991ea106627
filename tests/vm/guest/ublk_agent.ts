/** The agent's side of ublk: it attaches, is killed under load, takes over, and detaches. */
import { UblkControlRing } from "../../../src/sys/mod.ts";
import { run, waitUntil } from "../../support/process.ts";
import { GuestAgent } from "./agent.ts";
import { check, step } from "./steps.ts";

const SLOW_MS = 300_000;
const agent = new GuestAgent(
  "  data: { size: 64MiB, max_size: 256MiB, frontend: auto, filesystem: { type: ext4, mount: /mnt/data } }",
);

const device = await step("auto is a ublk device with a mounted file system", async () => {
  await agent.start();
  const [exported] = (await agent.attached("data")).exports;
  check(exported?.frontend === "ublk", JSON.stringify(exported));
  check(exported?.mount === "/mnt/data", JSON.stringify(exported));
  return exported?.device ?? "";
});

await step("the agent is killed under fio, comes back, and fio saw no error", async () => {
  const job = ["--directory=/mnt/data", "--rw=randwrite", "--bsrange=4k-64k", "--size=12M"];
  const verify = ["--loops=4", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1"];
  const how = ["--ioengine=libaio", "--iodepth=32", "--direct=1"];
  const before = writes();
  const fio = run("fio", ["--name=verified", ...job, ...verify, ...how], { within_ms: SLOW_MS });
  await waitUntil(() => writes() > before + 50, { what: "fio to write", within_ms: SLOW_MS });
  await agent.kill();
  await agent.start();
  const [exported] = (await agent.attached("data")).exports;
  check(exported?.device === device, `the volume moved to ${exported?.device}`);
  await fio;
  check(/took over what is attached/.test(agent.output()), agent.output());
});

await step("the volume moves to a larger store volume, and its file system grows", async () => {
  await agent.do("data", "scale", { size_bytes: 160 * 1024 ** 2 });
  await waitUntil(async () => {
    const { stdout } = await run("df", ["-k", "/mnt/data"]);
    return Number(stdout.trim().split("\n").at(-1)?.split(/\s+/)[1]) > 120 * 1024;
  }, { what: "the file system to grow", within_ms: SLOW_MS });
});

await step("a detach leaves nothing", async () => {
  await agent.do("data", "detach");
  const left = [...Deno.readDirSync("/sys/class/ublk-char")].map(({ name }) => name);
  check(left.length === 0, `there are ${left}`);
  using control = new UblkControlRing();
  check(control.info(0) === undefined, "the driver still knows the device");
  await agent.kill();
});

function writes(): number {
  const text = Deno.readTextFileSync(`/sys/block/${device.replace("/dev/", "")}/stat`);
  return Number(text.trim().split(/\s+/)[4]);
}
