/** Generic netlink's bytes against a kernel's own, and against anything. */
import { deepEqual, equal } from "node:assert/strict";
import fc from "fast-check";
import {
  attributesIn,
  decodeAttributes,
  decodeGenericMessage,
  decodeNetlinkError,
  decodeNetlinkMessages,
  encodeAttributes,
  encodeGenericMessage,
  encodeNetlinkMessage,
  GENERIC_CONTROL,
  NETLINK_FLAG,
  NETLINK_TYPE,
  numberIn,
  textAttribute,
  textIn,
} from "../../../src/codec/mod.ts";

/** What Linux 6.18 on x86-64 was asked for the family nlctrl, and how it answered. */
const REQUEST = "20000000100005000700000000000000030100000b0002006e6c6374726c0000";
const ANSWER = "88000000100000000700000066110000010200000b0002006e6c6374726c0000" +
  "06000100100000000800030002000000080004000000000008000500000000002c000600140001000800010003" +
  "000000080002000e00000014000200080001000a000000080002000c0000001c00070018000100080002001000" +
  "00000b0001006e6f746966790000";
const ACKNOWLEDGEMENT = "240000000200000107000000661100000000000020000000100005000700000000000000";
/** The same for a family that there is none of: ENOENT. */
const REFUSAL = "38000000020000000800000066110000feffffff240000001000050008000000000000000301" +
  "00000d0002006e6f6e657375636800000000";

const hex = (text: string) => Uint8Array.fromHex(text);

Deno.test("encodeNetlinkMessage() asks as a kernel understands it", () => {
  const payload = encodeGenericMessage({
    command: GENERIC_CONTROL.getFamily,
    version: 1,
    attributes: [textAttribute(GENERIC_CONTROL.familyName, "nlctrl")],
  });
  const flags = NETLINK_FLAG.request | NETLINK_FLAG.ack;
  const bytes = encodeNetlinkMessage({ type: GENERIC_CONTROL.family, flags, seq: 7, payload });
  equal(bytes.toHex(), REQUEST);
});

Deno.test("decodeNetlinkMessages() reads a kernel's answer with its acknowledgement", () => {
  const [answer, acknowledgement] = decodeNetlinkMessages(hex(ANSWER + ACKNOWLEDGEMENT)) ?? [];
  equal(answer?.seq, 7);
  const { command, version, attributes } = decodeGenericMessage(answer?.payload ?? hex("")) ?? {};
  deepEqual([command, version], [1, 2]);
  equal(numberIn(attributes ?? [], GENERIC_CONTROL.familyId), 16);
  equal(textIn(attributes ?? [], GENERIC_CONTROL.familyName), "nlctrl");
  const groups = attributesIn(attributes ?? [], 7);
  equal(textIn(decodeAttributes(groups[0]?.value ?? hex("")) ?? [], 1), "notify");
  equal(acknowledgement?.type, NETLINK_TYPE.error);
  equal(decodeNetlinkError(acknowledgement?.payload ?? hex("")), 0);
});

Deno.test("decodeNetlinkError() tells the errno", () => {
  const [refusal] = decodeNetlinkMessages(hex(REFUSAL)) ?? [];
  equal(decodeNetlinkError(refusal?.payload ?? hex("")), 2);
});

Deno.test("what is cut short is refused at every length, or was whole before", () => {
  const bytes = hex(ANSWER);
  for (let length = 1; length < bytes.length; length++) {
    equal(decodeNetlinkMessages(bytes.subarray(0, length)), undefined, `${length}`);
  }
  const attributes = hex(ANSWER).subarray(20);
  const whole = decodeAttributes(attributes)?.length ?? 0;
  for (let length = 0; length < attributes.length; length++) {
    const found = decodeAttributes(attributes.subarray(0, length));
    equal(found === undefined || found.length <= whole, true, `${length}`);
  }
});

const attribute = fc.record({
  type: fc.integer({ min: 0, max: 0x3fff }),
  value: fc.uint8Array({ maxLength: 40 }),
});

Deno.test("attributes come back as they were", () => {
  fc.assert(fc.property(fc.array(attribute, { maxLength: 8 }), (attributes) => {
    const back = decodeAttributes(encodeAttributes(attributes)) ?? [];
    deepEqual(
      back.map(({ type, value }) => [type, [...value]]),
      attributes.map(({ type, value }) => [
        type,
        [...value],
      ]),
    );
  }));
});

Deno.test("whatever arrives is read or refused", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    for (const { payload } of decodeNetlinkMessages(bytes) ?? []) decodeGenericMessage(payload);
    decodeAttributes(bytes);
  }));
});
