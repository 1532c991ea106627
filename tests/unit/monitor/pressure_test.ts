/** Pressure stall information, from texts of real kernels. */
import { deepEqual, equal } from "node:assert/strict";
import { decodePressure } from "../../../src/monitor/pressure.ts";

Deno.test("decodePressure() reads the time that some task waited", () => {
  const text = "some avg10=12.50 avg60=0.06 avg300=0.22 total=9428714\n" +
    "full avg10=2.00 avg60=0.05 avg300=0.19 total=8671103\n";
  deepEqual(decodePressure(text), { some_total_us: 9428714 });
});

Deno.test("decodePressure() knows nothing from anything else", () => {
  for (const text of ["", "full avg10=1.00\n", "some\n", "some avg10=1.00 total=x"]) {
    equal(decodePressure(text), undefined);
  }
});
