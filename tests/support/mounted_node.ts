/**
 * An agent with one mounted volume, and a store server to move it to: real processes, which a test kills and starts
 * again under the applications on the file system.
 */
import { equal, ok } from "node:assert/strict";
import { closeFile, findHolders, findLoops, listMounts, removeStale } from "../../src/sys/mod.ts";
import { freePort, run, type Started, startPsma, waitUntil } from "./process.ts";
import { type Requirements, requires } from "./requires.ts";
import type { TempDir } from "./temp.ts";

const MIB = 2 ** 20;
const SIZE_BYTES = 320 * MIB;

export interface MountedView {
  readonly size_bytes: number;
  readonly epoch: number;
  readonly active: { readonly store: string; readonly uri?: string };
  readonly mirror: { readonly state: string } | null;
  readonly exports: readonly { readonly device?: string }[];
  readonly last_cutover: { readonly io_errors: number; readonly digest_mismatches: number } | null;
}

interface Operation {
  readonly id: string;
  readonly state: string;
  readonly error: unknown;
}

/** What a machine needs for it. */
export function mountedNodeNeeds(more: Requirements = {}): { ignore: boolean } {
  return requires({
    io_uring: true,
    root: true,
    fuse: true,
    loop: true,
    filesystems: ["xfs"],
    ...more,
    commands: ["mkfs.xfs", "xfs_repair", ...more.commands ?? []],
  });
}

export class MountedNode implements AsyncDisposable {
  readonly mount: string;
  agent: Started;
  store: Started;
  readonly #served: string;
  readonly #config: string;
  readonly #ports = { api: freePort(), store: freePort(), nbd: freePort() };
  readonly #applications: AsyncDisposable[] = [];

  private constructor(readonly temp: TempDir, mirror: string) {
    this.mount = temp.file("mnt");
    this.#served = temp.file("state/volume-state/data/device");
    this.#config = temp.file("psma.yaml");
    Deno.writeTextFileSync(
      this.#config,
      `
api: { listen: "127.0.0.1:${this.#ports.api}" }
state_dir: ${temp.path}/state
sampling: { interval: 1s }
forecast: { horizon: 1m, interval: 1h }
stores:
  near: { type: embedded, path: ${temp.path}/near }
  far:
    type: psma
    url: "http://127.0.0.1:${this.#ports.store}"
    token_file: ${temp.path}/far/.psma-token
volumes:
  data:
    store: near
    size: ${SIZE_BYTES}
    max_size: 4GiB
    frontend: fuse
    filesystem: { type: xfs, mount: ${this.mount} }
    mirror: { store: far, write_through_timeout: 2s${mirror} }
    scale: { threshold: 100%, approve: advise, cooldown: 0s }
`,
    );
    this.store = this.#startStore();
    this.agent = this.#startAgent();
  }

  /** @param mirror more of the volume's section `mirror`, beginning with a comma. */
  static async start(temp: TempDir, mirror = ""): Promise<MountedNode> {
    const node = new MountedNode(temp, mirror);
    try {
      await node.store.line(/Ready/);
      await node.served();
      return node;
    } catch (error) {
      await node[Symbol.asyncDispose]();
      throw error;
    }
  }

  #startStore(): Started {
    const { store, nbd } = this.#ports;
    const listen = ["--listen", `127.0.0.1:${store}`, "--nbd-listen", `127.0.0.1:${nbd}`];
    return startPsma(["store", "serve", "--path", this.temp.file("far"), ...listen]);
  }

  #startAgent(): Started {
    return startPsma(["run", "--config", this.#config]);
  }

  /** Waits until the agent serves the volume. */
  async served(): Promise<void> {
    await this.agent.line(/data is served at/);
  }

  /** Ends it with its applications, after everything else. */
  use<T extends AsyncDisposable>(application: T): T {
    this.#applications.push(application);
    return application;
  }

  /** `kill -9`, and the next agent takes over. */
  async killAgent(): Promise<void> {
    await this.agent.end("SIGKILL");
    this.agent = this.#startAgent();
    await this.served();
  }

  /** `kill -9` of the store server, which comes back at once. */
  async killStore(): Promise<void> {
    await this.store.end("SIGKILL");
    this.store = this.#startStore();
    await this.store.line(/Ready/);
  }

  async view(): Promise<MountedView> {
    return await this.#ask("GET", "/v1/volumes/data") as MountedView;
  }

  /** Moves the volume to the store, or within it, and grows it. */
  async scale(size_bytes: number): Promise<void> {
    const { epoch } = await this.view();
    await this.order("scale", { size_bytes });
    const { exports: [exported], ...after } = await this.view();
    equal(after.size_bytes, size_bytes);
    equal(after.active.store, "far");
    ok(after.epoch > epoch);
    equal(after.last_cutover?.io_errors, 0);
    equal(after.last_cutover?.digest_mismatches, 0);
    await waitUntil(() => deviceBytes(exported?.device ?? "") === size_bytes, {
      what: "the device to grow",
    });
  }

  /** Goes back to the backup, which is followed. */
  async rollBack(): Promise<void> {
    const { epoch, size_bytes } = await this.view();
    await this.order("rollback", {});
    const after = await this.view();
    ok(after.epoch > epoch);
    equal(after.size_bytes, size_bytes);
    equal(after.last_cutover?.io_errors, 0);
  }

  /** Has work done by the agent and waits for its end. @throws {Error} when it failed. */
  async order(verb: string, body: Readonly<Record<string, unknown>>): Promise<void> {
    const { id } = await this.#ask("POST", `/v1/volumes/data/${verb}`, body) as Operation;
    const { error } = await waitUntil(async () => {
      const now = await this.#ask("GET", `/v1/operations/${id}`) as Operation;
      return now.state === "running" ? undefined : now;
    }, { what: () => `${verb} to end: ${this.agent.output()}` });
    equal(error, null, JSON.stringify(error));
  }

  /** Lets go of the volume and attaches it again: what is read then comes from the store. */
  async remount(): Promise<void> {
    for (const verb of ["detach", "attach"]) {
      await this.#ask("POST", `/v1/volumes/data/${verb}`, {});
    }
  }

  async #ask(method: string, path: string, body?: unknown): Promise<unknown> {
    const token = Deno.readTextFileSync(this.temp.file("state/api.token")).trim();
    const response = await fetch(`http://127.0.0.1:${this.#ports.api}${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const answer = await response.text();
    ok(response.ok, `${method} ${path}: ${answer}`);
    return JSON.parse(answer);
  }

  /** Ends the agent in order; then nothing of it is left, and the file system in the store's file is whole. */
  async endWhole(): Promise<void> {
    const { active } = await this.view();
    equal((await this.agent.end()).code, 0, this.agent.output());
    equal((await findLoops(this.#served)).length, 0);
    equal(listMounts().some(({ at }) => at.startsWith(this.temp.path)), false);
    await waitUntil(() => {
      const holders = findHolders(this.#served);
      holders.forEach(({ pidfd }) => closeFile(pidfd));
      return holders.length === 0;
    }, { what: "the holder to end" });
    await this.store.end();
    // The backup's file system is as a crash would have left it: only the active one was unmounted.
    const bytes = active.store === "far"
      ? `${this.temp.file("far")}/${folderOf(active.uri ?? "")}/data`
      : new URL(active.uri ?? "").pathname;
    await run("xfs_repair", ["-n", "-f", bytes]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.agent.end();
    await this.store.end();
    await removeStale(this.#served);
    // Not before: one that waits for the file system cannot end.
    for (const application of this.#applications.reverse()) {
      await application[Symbol.asyncDispose]();
    }
    for (const process of [this.agent, this.store]) await process[Symbol.asyncDispose]();
  }
}

/** An export is called as the folder is, with the epoch behind it. */
function folderOf(uri: string): string {
  return new URL(uri).pathname.slice(1).replace(/@\d+$/, "");
}

function deviceBytes(device: string): number {
  const sectors = Deno.readTextFileSync(`/sys/block/${device.slice("/dev/".length)}/size`);
  return Number(sectors) * 512;
}
