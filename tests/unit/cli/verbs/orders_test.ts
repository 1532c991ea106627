import { deepEqual, throws } from "node:assert/strict";
import { sizeOf, wishOf } from "../../../../src/cli/verbs/orders.ts";

Deno.test("wishOf() takes a deadline, or at once, or nothing, and not two of them", () => {
  deepEqual(wishOf({}), {});
  deepEqual(wishOf({ deadline: "10m" }), { deadline_ms: 600_000 });
  deepEqual(wishOf({ urgent: true }), { deadline_ms: 0 });
  throws(() => wishOf({ deadline: "10m", urgent: true }), { code: "usage/options" });
  throws(() => wishOf({ deadline: "soon" }), { code: "usage/duration" });
});

Deno.test("sizeOf() leaves out what was not said", () => {
  deepEqual(sizeOf(undefined), {});
  deepEqual(sizeOf("2MiB"), { size_bytes: 2 * 2 ** 20 });
});
