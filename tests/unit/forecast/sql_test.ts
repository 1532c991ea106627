/** The SQL of `models/` is found by section. */
import { deepEqual, ok, throws } from "node:assert/strict";
import { splitSections, sql, sqlSections } from "../../../src/forecast/sql.ts";

Deno.test("splitSections() keeps comments inside a section and drops the introduction", () => {
  const text = "-- about the file\n\n-- name: one\nSELECT 1;\n-- why\n-- name: two\nSELECT 2;\n";
  deepEqual([...splitSections(text)], [["one", "SELECT 1;\n-- why"], ["two", "SELECT 2;"]]);
});

Deno.test("sql() knows every file and refuses a section that is not there", () => {
  for (
    const file of [
      "schema",
      "rollup",
      "pool",
      "holt_winters",
      "quantile_regression",
      "calibration",
    ]
  ) {
    ok(sqlSections(file).size > 0, file);
  }
  throws(() => sql("pool", "nothing"), /section nothing of models\/pool.sql is missing/);
});
