/**
 * A served file whose server is killed: its users wait, the next server takes them over, and no holder is
 * left when it is taken away.
 */
import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import { kernelSendsAgain } from "../../../src/dataplane/host/host.ts";
import type { ExportInfo } from "../../../src/dataplane/mod.ts";
import {
  closeFile,
  findHolders,
  findLoops,
  listMounts,
  removeStale,
} from "../../../src/sys/mod.ts";
import { endVerifyingFio, startVerifyingFio, untilWritten } from "../../support/fio_job.ts";
import { type PlaneProcess, startPlane } from "../../support/plane_process.ts";
import { isRunning, kill, run, start, type Started, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MIB = 1 << 20;
const KILLS = Number(Deno.env.get("PSMA_TAKEOVERS") ?? 10);
const needs = requires({ root: true, io_uring: true, fuse: true, loop: true, commands: ["fio"] });

type FuseInfo = Extract<ExportInfo, { frontend: "fuse" }>;

/** What is unanswered is sent again by the kernel, where it can, or replayed from the dead server's memory. */
type How = "resend" | "replay";
const HOW: readonly How[] = kernelSendsAgain() ? ["resend", "replay"] : ["replay"];

/** A volume whose server may be killed and started again. */
class Served implements AsyncDisposable {
  readonly image: string;
  readonly path: string;
  readonly #temp: TempDir;
  plane: PlaneProcess | undefined;
  #fio: Started | undefined;

  constructor(temp: TempDir, readonly how: How, sizeBytes = 64 * MIB) {
    this.#temp = temp;
    this.image = temp.file("image");
    Deno.writeFileSync(this.image, new Uint8Array());
    Deno.truncateSync(this.image, sizeBytes);
    Deno.mkdirSync(temp.file("volume"));
    this.path = temp.file("volume/device");
  }

  /** @returns the loop device. */
  async start(): Promise<string> {
    const volume = { image: this.image, frontend: "fuse" } as const;
    const directory = this.#temp.file("volume"), replay = this.how === "replay";
    this.plane = await startPlane({ directory, replay, volume });
    return (this.plane.exported as FuseInfo).device;
  }

  /** An application on the device. */
  startFio(device: string, sizeMiB: number): Started {
    return this.#fio = startVerifyingFio([`--filename=${device}`, `--size=${sizeMiB}m`]);
  }

  async kill(): Promise<void> {
    await this.plane?.process.end("SIGKILL");
  }

  holders(): number[] {
    return findHolders(this.path).map(({ pid, pidfd }) => {
      closeFile(pidfd);
      return pid;
    });
  }

  async leavesNothing(): Promise<void> {
    deepEqual(await findLoops(this.path), []);
    deepEqual(listMounts().filter(({ at }) => at === this.path), []);
    await waitUntil(() => this.holders().length === 0, { what: "the holder to end" });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.plane?.process.end();
    await removeStale(this.path);
    // Not before: one that waits for the device cannot end.
    await this.#fio?.[Symbol.asyncDispose]();
  }
}

for (const how of HOW) {
  Deno.test({
    name: `${how}: fio sees no error while its device's server is killed ${KILLS} times`,
    ...needs,
    async fn() {
      using temp = tempDir();
      await using served = new Served(temp, how);
      const device = await served.start();
      const fio = served.startFio(device, 48);
      for (let kills = 0; kills < KILLS; kills++) {
        await untilWritten(device, MIB, fio);
        await served.kill();
        equal(await served.start(), device);
        await waitUntil(() => served.holders().length === 1, { what: "one holder, not two" });
      }
      await untilWritten(device, MIB, fio);
      const { write, read } = await endVerifyingFio(fio);
      ok(write.total_ios >= 256 * KILLS && read.total_ios > 0);
      await served.plane?.process.end();
      await served.leavesNothing();
    },
  });

  Deno.test({
    name: `${how}: who reads from a dead server waits, and gets what was written`,
    ...requires({ root: true, io_uring: true, fuse: true, loop: true, commands: ["dd"] }),
    async fn() {
      using temp = tempDir();
      await using served = new Served(temp, how);
      const device = await served.start();
      const bytes = crypto.getRandomValues(new Uint8Array(65_536));
      Deno.writeFileSync(temp.file("bytes"), bytes);
      const dd = (...args: string[]) => run("dd", ["bs=64k", "count=1", "status=none", ...args]);
      await dd(`if=${temp.file("bytes")}`, `of=${device}`, "oflag=direct");
      await served.kill();
      await using reading = start("dd", [
        "bs=64k",
        "count=1",
        "iflag=direct",
        `if=${device}`,
        `of=${temp.file("read")}`,
      ]);
      await waitUntil(() => waitsForDevice(reading.pid), { what: "dd to wait for the device" });
      await served.start();
      equal((await reading.status).code, 0, reading.output());
      deepEqual(Deno.readFileSync(temp.file("read")), bytes);
    },
  });

  Deno.test({
    name:
      `${how}: a holder that is killed is replaced, and the new one carries a take-over as well`,
    ...needs,
    async fn() {
      using temp = tempDir();
      await using served = new Served(temp, how);
      const device = await served.start();
      const fio = served.startFio(device, 16);
      await untilWritten(device, MIB, fio);
      const [first = 0] = served.holders();
      kill(first, "SIGKILL");
      const [second = 0] = await waitUntil(() => {
        const now = served.holders();
        return now.length > 0 && now[0] !== first ? now : undefined;
      }, { what: "another holder" });
      ok(isRunning(second));
      await served.kill();
      equal(await served.start(), device);
      await untilWritten(device, MIB, fio);
      await endVerifyingFio(fio);
    },
  });
}

Deno.test({
  name: "without server and holder the file's users get errors, and the volume is attached anew",
  ...requires({ root: true, io_uring: true, fuse: true, loop: true, commands: ["dd"] }),
  async fn() {
    using temp = tempDir();
    await using served = new Served(temp, HOW[0] ?? "replay");
    const device = await served.start();
    await served.kill();
    for (const pid of served.holders()) kill(pid, "SIGKILL");
    await rejects(run("dd", [`if=${device}`, "of=/dev/null", "bs=4k", "count=1", "iflag=direct"]));
    const again = await served.start();
    await run("dd", [`if=${again}`, "of=/dev/null", "bs=4k", "count=1", "iflag=direct"]);
    await served.plane?.process.end();
    await served.leavesNothing();
  },
});

Deno.test({
  name: "an unmount by force ends a held connection: its users get errors, not silence",
  ...requires({ root: true, io_uring: true, fuse: true, loop: true, commands: ["dd", "umount"] }),
  async fn() {
    using temp = tempDir();
    await using served = new Served(temp, HOW[0] ?? "replay");
    const device = await served.start();
    await served.kill();
    const reading = run("dd", [`if=${device}`, "of=/dev/null", "bs=4k", "count=1", "iflag=direct"]);
    const refused = rejects(reading, /Input\/output error/);
    await run("umount", ["-f", "-l", served.path]);
    await refused;
    const again = await served.start();
    await run("dd", [`if=${again}`, "of=/dev/null", "bs=4k", "count=1", "iflag=direct"]);
  },
});

function waitsForDevice(pid: number): boolean {
  return /\) D /.test(Deno.readTextFileSync(`/proc/${pid}/stat`));
}
