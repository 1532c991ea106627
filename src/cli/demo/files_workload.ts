/**
 * Writes to a mounted file system: files of random content, some of them written anew, and a SQLite
 * database in WAL mode. What should be there is remembered outside the volume.
 */
import { createHash, randomFillSync } from "node:crypto";
import { statfsSync } from "node:fs";
import type { Rng } from "../../core/mod.ts";
import type { Verdict, Workload } from "./application.ts";
import { type Database, openDatabase } from "./sqlite.ts";

const TOUCH_BYTES = 4096;
const TOUCH_BLOCKS = 64;
const REWRITE_SHARE = 0.2;
const ROW_BYTES = 2000;
const ROWS_A_WRITE = 4;

interface Kept {
  readonly bytes: number;
  readonly digest: string;
}

export class FilesWorkload implements Workload {
  readonly #folder: string;
  readonly #rng: Rng;
  readonly #kept = new Map<string, Kept>();
  readonly #touched: Deno.FsFile;
  readonly #block = new Uint8Array(TOUCH_BYTES);
  #database: Database;
  #bytes = 0;
  #rows = 0;
  #row_sum = 0;
  #touches = 0;

  constructor(folder: string, rng: Rng) {
    this.#folder = folder;
    this.#rng = rng;
    Deno.mkdirSync(`${folder}/files`);
    this.#touched = Deno.openSync(`${folder}/touched`, { create: true, read: true, write: true });
    this.#database = openDatabase(this.#databasePath());
    this.#database.exec(
      "pragma journal_mode = wal; pragma synchronous = full;" +
        "create table event (id integer primary key, weight integer not null, body blob not null)",
    );
  }

  write(bytes: number): Promise<void> {
    const names = [...this.#kept.keys()];
    const old = this.#rng.float() < REWRITE_SHARE
      ? names[this.#rng.below(names.length)]
      : undefined;
    this.#writeFile(old ?? `${this.#folder}/files/${names.length}`, bytes);
    this.#writeRows();
    return Promise.resolve();
  }

  touch(): Promise<void> {
    randomFillSync(this.#block);
    this.#touched.seekSync(this.#touches++ % TOUCH_BLOCKS * TOUCH_BYTES, Deno.SeekMode.Start);
    writeAll(this.#touched, this.#block);
    this.#touched.syncDataSync();
    return Promise.resolve();
  }

  close(): Promise<void> {
    this.#database.close();
    this.#touched.close();
    return Promise.resolve();
  }

  kept(): { files: number; bytes: number } {
    return { files: this.#kept.size, bytes: this.#bytes };
  }

  verify(): Promise<Verdict> {
    let mismatches = 0;
    for (const [path, { digest }] of this.#kept) {
      if (digestOfFile(path) !== digest) mismatches++;
    }
    const { blocks, bsize } = statfsSync(this.#folder);
    return Promise.resolve({
      ...this.kept(),
      mismatches,
      sqlite_ok: this.#databaseIsRight(),
      capacity_bytes: blocks * bsize,
    });
  }

  #writeFile(path: string, length: number): void {
    const content = randomFillSync(new Uint8Array(length));
    using file = Deno.openSync(path, { create: true, write: true, truncate: true });
    writeAll(file, content);
    file.syncDataSync();
    this.#bytes += length - (this.#kept.get(path)?.bytes ?? 0);
    this.#kept.set(path, { bytes: length, digest: sha256(content) });
  }

  #writeRows(): void {
    const insert = this.#database.prepare("insert into event (weight, body) values (?, ?)");
    this.#database.exec("begin");
    for (let row = 0; row < ROWS_A_WRITE; row++) {
      const weight = this.#rng.below(1_000_000);
      insert.run(weight, randomFillSync(new Uint8Array(ROW_BYTES)));
      this.#rows++;
      this.#row_sum += weight;
    }
    this.#database.exec("commit");
  }

  /** SQLite's own check, and every row that was committed. */
  #databaseIsRight(): boolean {
    this.#database = openDatabase(this.#databasePath());
    try {
      return databaseIsSound(this.#database, { rows: this.#rows, weight: this.#row_sum });
    } finally {
      this.#database.close();
    }
  }

  #databasePath(): string {
    return `${this.#folder}/events.sqlite`;
  }
}

/** @returns whether SQLite finds no fault, and the rows are those that were written. */
export function databaseIsSound(
  database: Database,
  expected: { readonly rows: number; readonly weight: number },
): boolean {
  const check = database.prepare("pragma integrity_check").get()?.["integrity_check"];
  const sums = database.prepare(
    "select count(*) as rows, coalesce(sum(weight), 0) as weight from event",
  )
    .get();
  return check === "ok" && sums?.["rows"] === expected.rows && sums["weight"] === expected.weight;
}

export function sha256(content: Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

function digestOfFile(path: string): string | undefined {
  try {
    return sha256(Deno.readFileSync(path));
  } catch {
    return undefined;
  }
}

function writeAll(file: Deno.FsFile, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
}
