/**
 * A PostgreSQL server with data checksums, as an unprivileged user, on a folder of a test's; pgbench's bank as its
 * application; and everything that PostgreSQL has to check itself with.
 */
import { equal, match, ok } from "node:assert/strict";
import { dirname } from "node:path";
import { type Output, run, type RunOptions, start, type Started, waitUntil } from "./process.ts";
import { findCommand } from "./requires.ts";

/** The user that Debian's package makes. */
const USER = "postgres";
/** pgbench's bank: 100,000 accounts, some 15 MiB, for each. */
const SCALE = 3;
const CLIENTS = 4;
/** How long one run of pgbench takes; the next one begins at once. */
const RUN_SECONDS = 2;

export class Postgres implements AsyncDisposable {
  /** Transactions that pgbench's clients were told are committed. */
  transactions = 0;
  runs = 0;
  #stopped = false;
  #working: Promise<void> | undefined;
  #server: Started;

  private constructor(readonly folder: string, readonly sockets: string) {
    this.#server = this.#start();
  }

  /** Makes the cluster and the bank. @param sockets a folder that is short and not on the volume. */
  static async create(folder: string, sockets: string): Promise<Postgres> {
    for (const path of [folder, sockets]) {
      Deno.mkdirSync(path);
      letThrough(dirname(path));
      await run("chown", [USER, path]);
    }
    await asUser("initdb", ["--data-checksums", "--auth=trust", "--no-locale", folder]);
    const postgres = new Postgres(folder, sockets);
    try {
      await postgres.#answers();
      await postgres.#tool("pgbench", ["--initialize", "--quiet", `--scale=${SCALE}`]);
      return postgres;
    } catch (error) {
      await postgres[Symbol.asyncDispose]();
      throw error;
    }
  }

  #start(): Started {
    const settings = ["listen_addresses=", `unix_socket_directories=${this.sockets}`]
      // Small, so that the volume is read too, and checkpoints write while everything else happens.
      .concat("shared_buffers=16MB", "max_wal_size=64MB", "checkpoint_timeout=30s");
    const args = ["-D", this.folder, ...settings.flatMap((setting) => ["-c", setting])];
    return start("setpriv", [...PRIVILEGES, commandOf("postgres"), ...args], { cwd: "/" });
  }

  async #answers(): Promise<void> {
    await waitUntil(
      () => this.#tool("pg_isready", []).then(() => true, () => false),
      { what: () => `PostgreSQL: ${this.#server.output()}` },
    );
  }

  /** Keeps clients at work until {@linkcode Postgres.endWork}: one run of pgbench after another. */
  work(): void {
    this.#stopped = false;
    this.#working = this.#work();
    // Told by endWork: until then it must not hide what made the test fail.
    this.#working.catch(() => {});
  }

  async #work(): Promise<void> {
    while (!this.#stopped) {
      const { stdout } = await this.#tool("pgbench", [
        `--client=${CLIENTS}`,
        "--jobs=2",
        `--time=${RUN_SECONDS}`,
        "--no-vacuum",
      ], { within_ms: 90_000 });
      match(stdout, /number of failed transactions: 0 /);
      const [, count = "NaN"] = /actually processed: (\d+)/.exec(stdout) ?? [];
      this.transactions += Number(count);
      this.runs++;
    }
  }

  /** Waits for so many more whole runs. Throws what a client saw. */
  async worked(runs = 1): Promise<void> {
    const enough = this.runs + runs;
    const reached = waitUntil(() => this.runs >= enough, { what: "pgbench" });
    await Promise.race([reached, this.#working]);
    await reached;
  }

  /** Throws what a client saw. */
  async endWork(): Promise<void> {
    this.#stopped = true;
    await this.#working;
  }

  /** Everything that can be asked while it runs: indexes against tables, and the bank's books. */
  async checkBooks(): Promise<void> {
    await this.#tool("pg_amcheck", [
      "--database=postgres",
      "--install-missing",
      "--heapallindexed",
      "--parent-check",
    ]);
    equal(await this.#ask("show data_checksums"), "on");
    equal(await this.#ask("select count(*) from pgbench_accounts"), `${SCALE * 100_000}`);
    // Every acknowledged transaction left one line, and moved one sum in three books.
    equal(await this.#ask("select count(*) from pgbench_history"), `${this.transactions}`);
    const sums = await this.#ask(`select
      (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
      (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)`);
    equal(new Set(sums.split("|")).size, 1, sums);
  }

  /** Ends it in order; it must have had nothing to complain of. */
  async end(): Promise<void> {
    equal((await this.#server.end("SIGINT")).code, 0, this.#server.output());
    const said = this.#server.output();
    ok(!/PANIC|could not (read|write|fsync)|invalid page/.test(said), said);
  }

  /** Compares every page with its checksum, after its end. What the file system has cached is not read from the volume. */
  async checkPages(): Promise<void> {
    await asUser("pg_checksums", ["--check", "-D", this.folder]);
  }

  /** Starts it again where it was ended. */
  async restart(): Promise<void> {
    this.#server = this.#start();
    await this.#answers();
  }

  async #ask(sql: string): Promise<string> {
    const { stdout } = await this.#tool("psql", ["-XAtc", sql, "postgres"]);
    return stdout.trim();
  }

  #tool(command: string, args: readonly string[], options: RunOptions = {}): Promise<Output> {
    return asUser(command, [`--host=${this.sockets}`, ...args], options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    await this.#server.end("SIGQUIT");
    await this.#working?.catch(() => {});
    await this.#server[Symbol.asyncDispose]();
  }
}

const PRIVILEGES = [`--reuid=${USER}`, `--regid=${USER}`, "--clear-groups", "--"];

function asUser(command: string, args: readonly string[], options: RunOptions = {}) {
  const env = { PGUSER: USER, PGDATABASE: "postgres", LC_ALL: "C" };
  const whole = [...PRIVILEGES, commandOf(command), ...args];
  return run("setpriv", whole, { cwd: "/", env, ...options });
}

/** Beside initdb: what stands on PATH itself may be a wrapper that chooses a cluster of the machine's. */
function commandOf(name: string): string {
  return `${dirname(Deno.realPathSync(findCommand("initdb") ?? "/"))}/${name}`;
}

/** Lets an unprivileged user reach what is below a temporary folder, whose own folders are closed to all. */
function letThrough(path: string): void {
  for (let folder = path; folder !== "/"; folder = dirname(folder)) {
    const { mode } = Deno.statSync(folder);
    if (mode !== null && (mode & 0o001) === 0) Deno.chmodSync(folder, mode & 0o7777 | 0o011);
  }
}
