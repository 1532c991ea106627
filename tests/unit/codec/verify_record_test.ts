import { deepEqual, equal } from "node:assert/strict";
import { decodeVerifyRecord, encodeVerifyRecord } from "../../../src/codec/mod.ts";
import { freshVerify } from "../../support/mirrored_volume.ts";

const record = { ...freshVerify(1 << 20), later: [3, 9], mismatches: [{ at: 0, length: 65_536 }] };

Deno.test("decodeVerifyRecord() reads what was written", () => {
  deepEqual(decodeVerifyRecord(encodeVerifyRecord(record)), record);
});

Deno.test("decodeVerifyRecord() finds no verify in what is damaged or cut short", () => {
  const bytes = encodeVerifyRecord(record);
  for (let at = 0; at < bytes.length; at++) {
    const spoilt = bytes.slice();
    spoilt[at] = (spoilt[at] as number) ^ 1;
    equal(decodeVerifyRecord(spoilt), undefined, `${at}`);
    equal(decodeVerifyRecord(bytes.slice(0, at)), undefined, `${at} bytes`);
  }
});
