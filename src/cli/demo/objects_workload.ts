/**
 * Writes to an NBD export, without root: objects of random content one after another on the raw device,
 * some of them written anew, and the image of a SQLite database as one object more. Where each object is
 * and what its digest should be is remembered outside the volume.
 */
import { randomFillSync } from "node:crypto";
import { PsmaError, type Rng } from "../../core/mod.ts";
import type { NbdDevice } from "../parts.ts";
import type { Verdict, Workload } from "./application.ts";
import { databaseIsSound, sha256 } from "./files_workload.ts";
import { type Database, openDatabase } from "./sqlite.ts";

const BLOCK_BYTES = 4096;
const TOUCH_BLOCKS = 64;
const REWRITE_SHARE = 0.2;
const ROW_BYTES = 500;
const ROWS_A_WRITE = 2;
/** Room for the database's image, in front of the objects. */
const IMAGE_BYTES_MAX = 4 * 1024 ** 2;
const IMAGE_EVERY = 20;
const IO_BYTES = 512 * 1024;

interface Stored {
  readonly at: number;
  readonly length: number;
  digest: string;
}

export interface ObjectsOptions {
  readonly open: () => Promise<NbdDevice>;
  /** A folder outside the volume, for the database that is imaged. */
  readonly scratch: string;
  readonly rng: Rng;
}

export class ObjectsWorkload implements Workload {
  readonly #options: ObjectsOptions;
  readonly #objects: Stored[] = [];
  readonly #database: Database;
  #device: NbdDevice;
  #next_at = TOUCH_BLOCKS * BLOCK_BYTES + IMAGE_BYTES_MAX;
  #image: Stored | undefined;
  #image_rows = { rows: 0, weight: 0 };
  #bytes = 0;
  #rows = 0;
  #weight = 0;
  #touches = 0;
  #writes = 0;

  private constructor(options: ObjectsOptions, device: NbdDevice) {
    this.#options = options;
    this.#device = device;
    this.#database = openDatabase(`${options.scratch}/events.sqlite`);
    this.#database.exec(
      "create table event (id integer primary key, weight integer not null, body blob not null)",
    );
  }

  static async open(options: ObjectsOptions): Promise<ObjectsWorkload> {
    return new ObjectsWorkload(options, await options.open());
  }

  async write(bytes: number): Promise<void> {
    const length = Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES;
    const { rng } = this.#options;
    const old = rng.float() < REWRITE_SHARE
      ? this.#objects[rng.below(this.#objects.length)]
      : undefined;
    const object = old ?? await this.#place(length);
    const content = randomFillSync(new Uint8Array(object.length));
    await this.#writeAt(object.at, content);
    object.digest = sha256(content);
    if (this.#writes++ % IMAGE_EVERY === 0) await this.#storeImage();
    await this.#device.flush();
  }

  async touch(): Promise<void> {
    const at = this.#touches++ % TOUCH_BLOCKS * BLOCK_BYTES;
    await this.#device.write(at, randomFillSync(new Uint8Array(BLOCK_BYTES)));
    await this.#device.flush();
  }

  async close(): Promise<void> {
    await this.#storeImage();
    await this.#device.flush();
    await this.#device.close();
    this.#database.close();
  }

  kept(): { files: number; bytes: number } {
    return { files: this.#objects.length, bytes: this.#bytes };
  }

  async verify(): Promise<Verdict> {
    this.#device = await this.#options.open();
    try {
      let mismatches = 0;
      for (const object of this.#objects) {
        if (sha256(await this.#readAt(object)) !== object.digest) mismatches++;
      }
      const sqlite_ok = await this.#imageIsSound();
      return { ...this.kept(), mismatches, sqlite_ok, capacity_bytes: this.#device.size_bytes };
    } finally {
      await this.#device.close();
    }
  }

  /** Room behind the last object; a device that has grown is seen by a new connection. */
  async #place(length: number): Promise<Stored> {
    if (this.#next_at + length > this.#device.size_bytes) await this.#reopen();
    if (this.#next_at + length > this.#device.size_bytes) {
      throw new PsmaError("io/full", "Cannot write an object: the device is full");
    }
    const object = { at: this.#next_at, length, digest: "" };
    this.#objects.push(object);
    this.#next_at += length;
    this.#bytes += length;
    return object;
  }

  async #reopen(): Promise<void> {
    await this.#device.flush();
    await this.#device.close();
    this.#device = await this.#options.open();
  }

  /** Adds rows to the database and stores the file that it is. */
  async #storeImage(): Promise<void> {
    const insert = this.#database.prepare("insert into event (weight, body) values (?, ?)");
    for (let row = 0; row < ROWS_A_WRITE; row++) {
      const weight = this.#options.rng.below(1_000_000);
      insert.run(weight, randomFillSync(new Uint8Array(ROW_BYTES)));
      this.#rows++;
      this.#weight += weight;
    }
    const content = Deno.readFileSync(`${this.#options.scratch}/events.sqlite`);
    const at = TOUCH_BLOCKS * BLOCK_BYTES;
    const padded = new Uint8Array(Math.ceil(content.length / BLOCK_BYTES) * BLOCK_BYTES);
    padded.set(content);
    await this.#writeAt(at, padded);
    this.#image = { at, length: content.length, digest: sha256(content) };
    this.#image_rows = { rows: this.#rows, weight: this.#weight };
  }

  /** Reads the image back, and opens the database that it is. */
  async #imageIsSound(): Promise<boolean> {
    if (this.#image === undefined) return false;
    const content = (await this.#readAt({
      at: this.#image.at,
      length: Math.ceil(this.#image.length / BLOCK_BYTES) * BLOCK_BYTES,
    })).subarray(0, this.#image.length);
    if (sha256(content) !== this.#image.digest) return false;
    const path = `${this.#options.scratch}/read-back.sqlite`;
    Deno.writeFileSync(path, content);
    const database = openDatabase(path);
    try {
      return databaseIsSound(database, this.#image_rows);
    } finally {
      database.close();
    }
  }

  async #writeAt(at: number, content: Uint8Array): Promise<void> {
    const parts = Math.ceil(content.length / IO_BYTES);
    await Promise.all(Array.from({ length: parts }, (_, part) => {
      const from = part * IO_BYTES;
      return this.#device.write(at + from, content.slice(from, from + IO_BYTES));
    }));
  }

  async #readAt({ at, length }: { at: number; length: number }): Promise<Uint8Array> {
    const content = new Uint8Array(length);
    for (let done = 0; done < length; done += IO_BYTES) {
      const part = Math.min(IO_BYTES, length - done);
      content.set(await this.#device.read(at + done, part), done);
    }
    return content;
  }
}
