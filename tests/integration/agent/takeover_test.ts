/**
 * The agent killed under a mounted file system: applications wait and see no error, whatever it was doing, and
 * what it left is taken over or let go of. `deno task test:takeovers` kills it more often.
 */
import { equal, match, ok, rejects } from "node:assert/strict";
import { type Rng, seededRng, systemRng } from "../../../src/core/mod.ts";
import {
  closeFile,
  findHolders,
  findLoops,
  listMounts,
  removeStale,
} from "../../../src/sys/mod.ts";
import { endVerifyingFio, startVerifyingFio, untilWritten } from "../../support/fio_job.ts";
import {
  atAnyMoment,
  freePort,
  psma,
  run,
  start,
  type Started,
  startPsma,
  waitUntil,
} from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const KILLS = Number(Deno.env.get("PSMA_TAKEOVERS") ?? 10);
const SEED = Number(Deno.env.get("PSMA_SEED") ?? systemRng.below(2 ** 32));
const MIB = 2 ** 20;
const SCALE_STEP_BYTES = 64 * MIB;
const LONGEST_LIFE_MS = 4000;

interface View {
  readonly state: string;
  readonly reason?: string | null;
  readonly size_bytes: number;
  readonly mirror: { readonly state: string } | null;
  readonly exports: readonly { readonly device?: string }[];
}

/** An agent with one mounted volume, to be killed and started again. */
class Node implements AsyncDisposable {
  readonly #port = freePort();
  readonly #config: string;
  readonly served: string;
  readonly #applications: Started[] = [];
  agent: Started;

  constructor(readonly temp: TempDir, readonly type: string) {
    this.#config = temp.file("psma.yaml");
    this.served = temp.file("state/volume-state/data/device");
    Deno.writeTextFileSync(
      this.#config,
      `
api: { listen: "127.0.0.1:${this.#port}" }
state_dir: state
sampling: { interval: 1s }
forecast: { horizon: 1m, interval: 1h }
stores:
  near: { type: embedded, path: near }
  far: { type: embedded, path: far }
volumes:
  data:
    store: near
    size: 320MiB
    max_size: 4GiB
    frontend: fuse
    filesystem: { type: ${type}, mount: ${temp.path}/mnt }
    mirror: { store: far, write_through_timeout: 2s, max_rate: 200MiB/s }
    scale: { threshold: 100%, approve: advise, cooldown: 0s }
`,
    );
    this.agent = this.#start();
  }

  #start(): Started {
    return startPsma(["run", "--config", this.#config]);
  }

  /** Waits until the agent serves. @returns the loop device. */
  async device(): Promise<string> {
    await this.agent.line(/data is served at/);
    const { exports } = await this.view();
    const [{ device = "" } = {}] = exports;
    return device;
  }

  async killAndStart(): Promise<void> {
    await this.agent.end("SIGKILL");
    this.agent = this.#start();
  }

  psma(...args: string[]) {
    return psma([...args, "--config", this.#config]);
  }

  /** The agent may be trying to attach at that moment, which it says. */
  async refusesDetach(why: RegExp): Promise<void> {
    await waitUntil(async () => why.test(await this.#detach()), { what: `${why}` });
  }

  async detachByForce(): Promise<void> {
    await waitUntil(async () => await this.#detach("--force") === "", { what: "the detach" });
  }

  /** @returns what it says when it fails, else nothing. */
  async #detach(...more: string[]): Promise<string> {
    try {
      await this.psma("volume", "detach", "data", ...more);
      return "";
    } catch (error) {
      return `${error}`;
    }
  }

  async view(): Promise<View> {
    const response = await fetch(`http://127.0.0.1:${this.#port}/v1/volumes/data`);
    return await response.json();
  }

  /** Asks for a scaling event; one that is under way is fine. */
  async scale(size_bytes: number): Promise<void> {
    const token = Deno.readTextFileSync(this.temp.file("state/api.token")).trim();
    const response = await fetch(`http://127.0.0.1:${this.#port}/v1/volumes/data/scale`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify({ size_bytes }),
    });
    const answer = await response.text();
    ok(response.ok || response.status === 409, answer);
  }

  startFio(): Started {
    const fio = startVerifyingFio([`--directory=${this.temp.file("mnt")}`, "--size=48m"]);
    this.#applications.push(fio);
    return fio;
  }

  startSqlite(): Started {
    const script = new URL("../../support/sqlite_program.ts", import.meta.url).pathname;
    const args = ["run", "-A", "--quiet", script, this.temp.file("mnt/rows.db")];
    const application = start(Deno.execPath(), args);
    this.#applications.push(application);
    return application;
  }

  async leavesNothing(): Promise<void> {
    equal((await findLoops(this.served)).length, 0);
    equal(listMounts().some(({ at }) => at.startsWith(this.temp.path)), false);
    await waitUntil(() => {
      const holders = findHolders(this.served);
      holders.forEach(({ pidfd }) => closeFile(pidfd));
      return holders.length === 0;
    }, { what: "the holder to end" });
  }

  /** Checks the file system in the file that holds the volume's bytes now. */
  async checkFilesystem(store: string): Promise<void> {
    const path = this.temp.file(store);
    const [folder] = [...Deno.readDirSync(path)].filter((entry) => entry.isDirectory);
    const bytes = `${path}/${folder?.name}/data`;
    if (this.type === "xfs") await run("xfs_repair", ["-n", "-f", bytes]);
    else await run("e2fsck", ["-f", "-n", bytes]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.agent.end();
    await removeStale(this.served);
    // Not before: one that waits for the file system cannot end.
    for (const application of this.#applications) await application[Symbol.asyncDispose]();
  }
}

function needs(type: string) {
  return requires({
    io_uring: true,
    root: true,
    fuse: true,
    loop: true,
    commands: ["fio", `mkfs.${type}`, "xfs_repair", "e2fsck"],
    filesystems: [type],
  });
}

for (const type of ["xfs", "ext4"]) {
  Deno.test({
    name: `agent: fio and SQLite on ${type} see no error while it is killed ${KILLS} times`,
    ...needs(type),
    async fn() {
      using temp = tempDir();
      await using node = new Node(temp, type);
      const device = await node.device();
      const fio = node.startFio(), sqlite = node.startSqlite();
      await sqlite.line(/^committed \d+$/m);
      for (let kills = 0; kills < KILLS; kills++) {
        await untilWritten(device, MIB, fio);
        await node.killAndStart();
        equal(await node.device(), device);
      }
      await untilWritten(device, MIB, fio);
      const { read, write } = await endVerifyingFio(fio);
      ok(read.total_ios > 256 && write.total_ios > 256);
      equal((await sqlite.end()).code, 0, sqlite.output());
      match(sqlite.output(), /^whole \d+$/m);
      equal((await node.agent.end()).code, 0, node.agent.output());
      await node.leavesNothing();
      await node.checkFilesystem("near");
    },
  });
}

Deno.test({
  name: `agent: fio on xfs sees no error while it is killed ${KILLS} times as it scales`,
  ...needs("xfs"),
  async fn() {
    using temp = tempDir();
    const rng: Rng = seededRng(SEED);
    await using node = new Node(temp, "xfs");
    const device = await node.device();
    const fio = node.startFio();
    await untilWritten(device, MIB, fio);
    let asked_bytes = (await node.view()).size_bytes;
    const seen: string[] = [];
    for (let kills = 0; kills < KILLS; kills++) {
      const { size_bytes } = await node.view();
      if (size_bytes >= asked_bytes) asked_bytes += SCALE_STEP_BYTES;
      await node.scale(asked_bytes);
      await atAnyMoment(rng, LONGEST_LIFE_MS);
      seen.push((await node.view()).mirror?.state ?? "none");
      await node.killAndStart();
      equal(await node.device(), device, `seed ${SEED}`);
    }
    let last: View | undefined;
    await waitUntil(async () => {
      // One that a kill interrupted may be under way: then this one is not heard.
      await node.scale(asked_bytes);
      last = await node.view();
      return last.size_bytes >= asked_bytes && last.mirror === null;
    }, {
      what: () =>
        `${asked_bytes} bytes, not ${
          JSON.stringify(last)
        }; seed ${SEED}, ${seen}\n${node.agent.output()}`,
      every_ms: 500,
    });
    await untilWritten(device, MIB, fio);
    await endVerifyingFio(fio);
    await waitUntil(() => deviceBytes(device) === asked_bytes, { what: "the device to grow" });
    equal((await node.agent.end()).code, 0, node.agent.output());
    await node.leavesNothing();
  },
});

Deno.test({
  name: "agent: while the volume's bytes are away its users wait, and go on when they are back",
  ...needs("ext4"),
  async fn() {
    using temp = tempDir();
    await using node = new Node(temp, "ext4");
    const device = await node.device();
    const fio = node.startFio();
    await untilWritten(device, MIB, fio);
    await node.agent.end("SIGKILL");
    Deno.renameSync(temp.file("near"), temp.file("away"));
    await node.killAndStart();
    await node.agent.line(/Cannot open/);
    await node.refusesDetach(/its users wait for it/);
    Deno.renameSync(temp.file("away"), temp.file("near"));
    equal(await node.device(), device);
    await untilWritten(device, MIB, fio);
    await endVerifyingFio(fio);
  },
});

Deno.test({
  name: "agent: detach --force fails those who wait for a volume that cannot be taken over",
  ...needs("ext4"),
  async fn() {
    using temp = tempDir();
    await using node = new Node(temp, "ext4");
    const device = await node.device();
    await node.agent.end("SIGKILL");
    Deno.renameSync(temp.file("near"), temp.file("away"));
    const reading = run("dd", [`if=${device}`, "of=/dev/null", "bs=4k", "count=1", "iflag=direct"]);
    const refused = rejects(reading, /Input\/output error/);
    await node.killAndStart();
    await node.agent.line(/Cannot open/);
    await node.detachByForce();
    await refused;
    await node.leavesNothing();
    Deno.renameSync(temp.file("away"), temp.file("near"));
  },
});

function deviceBytes(device: string): number {
  const sectors = Deno.readTextFileSync(`/sys/block/${device.slice("/dev/".length)}/size`);
  return Number(sectors) * 512;
}
