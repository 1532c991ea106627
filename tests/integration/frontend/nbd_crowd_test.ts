/** A thousand clients that come, work and vanish at any moment, while another's I/O must stay right. */
import assert from "node:assert/strict";
import { type Rng, seededRng } from "../../../src/core/mod.ts";
import {
  encodeClientFlags,
  encodeContextQuery,
  encodeExportQuery,
  encodeExtendedRequest,
  encodeOption,
  encodeRequest,
  NBD_ALLOCATION,
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_EXTENDED_REQUEST_BYTES,
  NBD_HANDSHAKE,
  NBD_INFO,
  NBD_OPTION,
  NBD_REQUEST_BYTES,
} from "../../../src/codec/mod.ts";
import { RawNbd } from "../../support/nbd_raw.ts";
import { SERVED_BYTES, SERVED_MAX_IO, SERVED_SLOTS, servedTest } from "../../support/nbd_served.ts";
import { waitUntil } from "../../support/process.ts";

const CLIENTS = 1000, WARM_UP = 300, AT_ONCE = 25;
const KIB = 1024, MIB = 1 << 20;
/** The first half is the steady client's own; the crowd writes to the second. */
const HALF = SERVED_BYTES / 2;
/** A leak of 64 KiB for each client after the first ones would be twice as much. */
const GROWTH_BYTES_MAX = (CLIENTS - WARM_UP) * 32 * KIB;
const nothing = new Uint8Array();

/** What one client sends, if it is let: negotiation in one of three styles, then requests of all kinds. */
function conversation(rng: Rng): Uint8Array {
  const style = rng.below(3), sizes = rng.below(2) === 1;
  const parts: Uint8Array[] = [
    encodeClientFlags(NBD_HANDSHAKE.fixedNewstyle | NBD_HANDSHAKE.noZeroes),
  ];
  if (style === 1) parts.push(encodeOption(NBD_OPTION.structuredReply, nothing));
  if (style === 2) parts.push(encodeOption(NBD_OPTION.extendedHeaders, nothing));
  const contexts = encodeContextQuery({ name: "data", queries: [NBD_ALLOCATION] });
  parts.push(encodeOption(NBD_OPTION.setMetaContext, contexts));
  const wanted = sizes ? [NBD_INFO.blockSize] : [];
  parts.push(encodeOption(NBD_OPTION.go, encodeExportQuery({ name: "data", wanted })));
  for (let i = rng.below(30); i > 0; i--) parts.push(request(rng, style === 2));
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function request(rng: Rng, extended: boolean): Uint8Array {
  const types = [NBD_CMD.read, NBD_CMD.read, NBD_CMD.write, NBD_CMD.write, NBD_CMD.blockStatus];
  const rare = [NBD_CMD.flush, NBD_CMD.trim, NBD_CMD.cache, NBD_CMD.writeZeroes, 99];
  const from = rng.below(4) > 0 ? types : rare;
  const type = from[rng.below(from.length)] ?? NBD_CMD.read, writes = type === NBD_CMD.write;
  // Now and then one that is larger than a slot.
  const length = 1 + rng.below(rng.below(20) === 0 ? 3 * SERVED_MAX_IO : 64 * KIB);
  const headerBytes = extended ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
  const bytes = new Uint8Array(headerBytes + (writes ? length : 0)).fill(rng.below(256));
  (extended ? encodeExtendedRequest : encodeRequest)(
    new DataView(bytes.buffer),
    0,
    type,
    extended && writes ? NBD_CMD_FLAG.payloadLength : 0,
    0,
    rng.below(2 ** 32),
    HALF + rng.below(HALF),
    length,
  );
  return bytes;
}

/** Sends part of a conversation, perhaps reads the answers, and is gone at some moment of it. */
async function visit(socket: string, rng: Rng, moment: () => Promise<unknown>): Promise<void> {
  using raw = await RawNbd.connect(socket);
  const bytes = conversation(rng), reads = rng.below(3) > 0;
  const sending = raw.write(bytes.subarray(0, rng.below(bytes.length + 1))).catch(() => {});
  const reading = reads ? raw.untilClosed() : Promise.resolve();
  for (let moments = rng.below(5); moments > 0; moments--) await moment();
  raw[Symbol.dispose]();
  await Promise.all([sending, reading]);
}

/** Writes, reads back and compares, until told to stop. @returns rounds. */
async function work(socket: string, isOver: () => boolean): Promise<number> {
  using raw = await RawNbd.enter(socket, "data", { style: "structured" });
  let round = 0;
  for (; !isOver(); round++) {
    const at = (round * 37 * KIB) % (HALF - 64 * KIB);
    const payload = new Uint8Array(64 * KIB).fill(round % 251);
    assert.equal(await raw.ask({ type: NBD_CMD.write, at, payload }), 0);
    const chunks = await raw.askChunks({ type: NBD_CMD.read, at, length: payload.length });
    assert.deepEqual(chunks.map((chunk) => chunk.payload.subarray(8)), [payload]);
  }
  return round;
}

servedTest("a thousand clients leave no slot, descriptor or memory behind", async (served) => {
  const { socket, process } = served;
  const rng = seededRng(Number(Deno.env.get("PSMA_SEED") ?? 20_261_123));
  let left = CLIENTS, warm = 0;
  // Those who left before they were accepted are accepted all the same, later.
  const quiet = async (visited: number) => {
    let now = await process.call("stats", null);
    await waitUntil(async () => {
      now = await process.call("stats", null);
      return now.accepted === visited + 1 && now.connected <= 1 &&
        now.slots_free >= SERVED_SLOTS - 1;
    }, { what: "the crowd to be gone", within_ms: 20_000 });
    return now;
  };
  const crowd = async (until: number) => {
    const one = async () => {
      while (left > until) {
        left--;
        await visit(socket, rng, () => process.call("stats", null));
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, one));
  };
  let over = false;
  const working = work(socket, () => over);
  // What the crowd ran into is told first.
  working.catch(() => {});
  try {
    await crowd(CLIENTS - WARM_UP);
    warm = (await quiet(WARM_UP)).rss_bytes;
    await crowd(0);
  } finally {
    over = true;
  }
  assert.ok(await working > 10, "the steady client was starved");
  const { rss_bytes, turned_away } = await quiet(CLIENTS);
  const grown = rss_bytes - warm;
  assert.ok(grown < GROWTH_BYTES_MAX, `grew by ${(grown / MIB).toFixed(1)} MiB`);
  assert.equal(turned_away, 0);
});
