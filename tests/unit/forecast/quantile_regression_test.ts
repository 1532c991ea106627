/** The regression in SQL finds quantiles that are known by construction. */
import { equal, ok } from "node:assert/strict";
import { seededRng } from "../../../src/core/mod.ts";
import type { Database } from "../../../src/forecast/database.ts";
import { REGRESSION_STEPS } from "../../../src/forecast/model.ts";
import { sql } from "../../../src/forecast/sql.ts";
import { withDatabase } from "../../support/duckdb.ts";

Deno.test("iterated fits find the coefficients of a process whose spread grows with a feature", () =>
  withDatabase((database) => {
    // Quantile tau of g given x: 2 + tau + 3 x1 + tau x2.
    const rng = seededRng(5);
    const rows = Array.from({ length: 4000 }, (_, t) => {
      const [x1, x2, u] = [rng.float() * 4 - 2, rng.float() * 3, rng.float()];
      return `(${t}, 1, ${2 + 3 * x1 + (1 + x2) * u}, ${x1}, ${x2}, 0, 0, 0, 0)`;
    });
    database.run(`
      CREATE TEMP TABLE qr_row (t BIGINT, k BIGINT, g DOUBLE, x1 DOUBLE, x2 DOUBLE, x3 DOUBLE,
                                x4 DOUBLE, x5 DOUBLE, x6 DOUBLE);
      INSERT INTO qr_row VALUES ${rows.join(",")};`);
    fit(database, [0.1, 0.5, 0.9]);
    for (
      const row of database.rows(
        "SELECT tau, unnest(beta) AS b, generate_subscripts(beta, 1) AS j FROM qr_fit",
      )
    ) {
      const tau = Number(row["tau"]);
      const want = [2 + tau, 3, tau, 0, 0, 0, 0][Number(row["j"]) - 1] ?? NaN;
      ok(
        Math.abs(Number(row["b"]) - want) < 0.2,
        `tau ${tau}, b${row["j"]} = ${row["b"]}, not ${want}`,
      );
    }
  }));

Deno.test("the share of rows below each fitted quantile is its level, outliers or not", () =>
  withDatabase((database) => {
    const rng = seededRng(6);
    const rows = Array.from({ length: 1500 }, (_, t) => {
      const x1 = rng.float();
      const noise = rng.float() < 0.02 ? 1000 : rng.float();
      return `(${t}, 1, ${5 * x1 + noise}, ${x1}, 0, 0, 0, 0, 0)`;
    });
    database.run(`
      CREATE TEMP TABLE qr_row (t BIGINT, k BIGINT, g DOUBLE, x1 DOUBLE, x2 DOUBLE, x3 DOUBLE,
                                x4 DOUBLE, x5 DOUBLE, x6 DOUBLE);
      INSERT INTO qr_row VALUES ${rows.join(",")};`);
    fit(database, [0.1, 0.5, 0.9]);
    const shares = database.rows(
      `SELECT tau, avg(CASE WHEN g <= beta[1] + beta[2] * x1 THEN 1.0 ELSE 0.0 END) AS share
       FROM qr_fit, qr_row GROUP BY tau ORDER BY tau`,
    );
    equal(shares.length, 3);
    for (const { tau, share } of shares) {
      ok(Math.abs(Number(share) - Number(tau)) < 0.002, `${share} of the rows lie below ${tau}`);
    }
  }));

function fit(database: Database, taus: readonly number[]): void {
  database.run(
    `CREATE TEMP TABLE qr_fit AS SELECT 1000000::BIGINT AS f, 1::BIGINT AS k, unnest([${taus}])::DOUBLE AS tau,
     [0, 0, 0, 0, 0, 0, 0]::DOUBLE[] AS beta, 1e9::DOUBLE AS epsilon`,
  );
  for (let step = 0; step < REGRESSION_STEPS; step++) {
    database.run(sql("quantile_regression", "iterate"));
  }
  database.run(sql("quantile_regression", "centre"));
}
