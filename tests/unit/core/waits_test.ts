/** Waits that end early, and what they leave behind. */
import { equal, rejects } from "node:assert/strict";
import { Breaker, Signal } from "../../../src/core/mod.ts";

const turns = { deferred: <T>() => Promise.withResolvers<T>() };
const never = new Promise<never>(() => {});

Deno.test("Signal ends the waits of now when it is told, and not those that begin later", async () => {
  const signal = new Signal(turns);
  const waits = [signal.or(never), signal.or(never)];
  signal.tell();
  await Promise.all(waits);
  let isOver = false;
  void signal.or(never).then(() => isOver = true);
  await Promise.resolve();
  equal(isOver, false);
  equal(signal.waiting, 1);
});

Deno.test("Signal keeps nothing of waits that ended by themselves, well or not", async () => {
  const signal = new Signal(turns);
  for (let i = 0; i < 100; i++) await signal.or(Promise.resolve(i));
  await signal.or(Promise.reject(new Error("it went wrong")));
  equal(signal.waiting, 0);
});

Deno.test("Breaker passes on what becomes of the work, and keeps nothing of it", async () => {
  const breaker = new Breaker(turns);
  equal(await breaker.guard(Promise.resolve(7)), 7);
  await rejects(breaker.guard(Promise.reject(new Error("the work failed"))), /the work failed/);
  equal(breaker.waiting, 0);
});

Deno.test("Breaker fails what is under way when it breaks, and what comes after", async () => {
  const breaker = new Breaker(turns);
  const under = breaker.guard(never);
  breaker.break(new Error("given up"));
  breaker.break(new Error("once more"));
  await rejects(under, /given up/);
  await rejects(breaker.guard(never), /given up/);
});
