/** Digest checks against two sides that answer as they are told: whom they blame, and when they give up. */
import { deepEqual, equal, rejects } from "node:assert/strict";
import { DigestChecks } from "../../../src/mirror/checks.ts";
import { CHECK, type Range } from "../../../src/volume/mod.ts";
import { promiseTurns } from "../../support/promise_turns.ts";

const EXTENT = { at: 65_536, length: 65_536, digest: "sent" };

/** @param source,target what each side's digest is. @param isWritten a write went through meanwhile. @param lacks and the target failed it. */
function checksOf({ source, target, isWritten, lacks = false }: {
  source: string;
  target: string;
  isWritten: boolean;
  lacks?: boolean;
}) {
  const told: string[] = [], dirty: number[] = [], verified: number[] = [];
  let state: number = CHECK.pending, locks = 0;
  const checks = new DigestChecks({
    volume: {
      lock: () => Promise.resolve(void locks++),
      unlock: () => void locks--,
    },
    link: {
      writeThrough: isWritten,
      holdsLock: () => true,
      lacks: () => lacks,
      hasCheck: (_: Range, asked: number) => state === asked,
      setCheck: (_: Range, set: number) => void (state = set),
      setVerified: ({ at }: Range) => void verified.push(at),
      map: { markDirty: (at: number) => dirty.push(at) },
    },
    turns: promiseTurns,
    ask: (ranges) => {
      if (isWritten) state = CHECK.tainted;
      return Promise.resolve(ranges.map(() => target));
    },
    digestSource: () => Promise.resolve(source),
    limit: (work) => work,
    onMismatch: (_, strikes) => void told.push(`mismatch ${strikes}`),
    onUnequal: () => void told.push("unequal"),
  });
  const check = async () => {
    state = CHECK.pending;
    await checks.add(EXTENT);
    await checks.settle();
  };
  return { checks, check, told, dirty, verified, locks: () => locks };
}

Deno.test("DigestChecks blames the target for what it did not keep, and fails at the third time", async () => {
  const { check, told, dirty, verified } = checksOf({
    source: "sent",
    target: "other",
    isWritten: false,
  });
  await check();
  await check();
  await rejects(check(), { code: "verify/mismatch" });
  deepEqual(told, ["mismatch 1", "mismatch 2", "mismatch 3"]);
  deepEqual([dirty, verified], [[EXTENT.at, EXTENT.at, EXTENT.at], []]);
});

Deno.test("DigestChecks blames nobody when both sides were read again: the source may have lost its bytes", async () => {
  const { check, checks, told, dirty, locks } = checksOf({
    source: "older",
    target: "sent",
    isWritten: true,
  });
  await check();
  deepEqual([told, dirty, checks.mismatched, locks()], [["unequal"], [EXTENT.at], 1, 0]);
});

Deno.test("DigestChecks takes both sides' word when what was written meanwhile is equal", async () => {
  const { check, checks, told, verified } = checksOf({
    source: "newer",
    target: "newer",
    isWritten: true,
  });
  await check();
  deepEqual([told, verified], [[], [EXTENT.at]]);
  equal(checks.checked, 1);
});

Deno.test("DigestChecks says nothing of what the target is known to lack by now", async () => {
  const { check, checks, told, dirty, verified, locks } = checksOf({
    source: "newer",
    target: "sent",
    isWritten: true,
    lacks: true,
  });
  await check();
  deepEqual([told, dirty, verified, locks()], [[], [EXTENT.at], [], 0]);
  deepEqual([checks.checked, checks.mismatched], [0, 0]);
});
