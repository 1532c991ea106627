/** Tasks and their origins as the protocol of forecasting competitions has them. */
import { deepEqual, equal, throws } from "node:assert/strict";
import { casesOf, originsOf, parseTasks } from "../../../../src/forecast/backtest/task.ts";

const HEADER = "task,set,file,value,step_s,agg,m,m2,h,n_min,n_max,n_origins,nonneg,kind";
const LINE = "fill,set,a.csv.gz,used_bytes,60,last,1,0,4,6,8,3,1,capacity";

function task(over: Partial<Record<string, string>> = {}) {
  const names = HEADER.split(",");
  const cells = LINE.split(",").map((cell, at) => over[names[at] ?? ""] ?? cell);
  return parseTasks(`${HEADER}\n${cells.join(",")}\n`);
}

Deno.test("parseTasks() reads a line into numbers", () => {
  const [one] = task();
  equal(one?.task, "fill");
  equal(one?.step_s, 60);
  equal(one?.nonneg, true);
  equal(one?.kind, "capacity");
});

Deno.test("parseTasks() names the line and the column that it cannot read", () => {
  throws(() => task({ h: "0" }), { code: "usage/tasks", message: /h of line 2 is 0/ });
  throws(() => task({ agg: "sum" }), { code: "usage/tasks", message: /last, mean, raw/ });
  throws(() => task({ set: "" }), { code: "usage/tasks", message: /line 2 has no set/ });
  throws(() => parseTasks('a,b\n"x'), { code: "usage/tasks", message: /not CSV/ });
});

Deno.test("originsOf() spaces origins from the middle to the last with a horizon left", () => {
  const spec = { h: 4, n_min: 6, n_origins: 3 };
  deepEqual(originsOf(20, spec), [10, 13, 16]);
  deepEqual(originsOf(20, { ...spec, n_origins: 1 }), [16]);
  // 10.0, 11.5, 13.0: a half goes to the even neighbour.
  deepEqual(originsOf(17, { ...spec, n_min: 10 }), [10, 12, 13]);
  deepEqual(originsOf(13, spec), [6, 8, 9]);
  deepEqual(originsOf(10, spec), [6]);
  deepEqual(originsOf(9, spec), []);
});

Deno.test("casesOf() trains on the last n_max points and leaves out what never changed", () => {
  const [one] = task();
  if (one === undefined) throw new Error("there is a task");
  const values = Array.from({ length: 20 }, (_, at) => at);
  deepEqual(
    casesOf(one, "a", values).map(({ origin, training, actual }) => [
      origin,
      training[0],
      training.at(-1),
      actual,
    ]),
    [
      [10, 2, 9, [10, 11, 12, 13]],
      [13, 5, 12, [13, 14, 15, 16]],
      [16, 8, 15, [16, 17, 18, 19]],
    ],
  );
  const late = values.map((value) => value < 12 ? 0 : value);
  deepEqual(casesOf(one, "a", late).map(({ origin }) => origin), [13, 16]);
});
