/** Holt-Winters as a fold in SQL says the same as the textbook's recursion written out. */
import { equal, ok } from "node:assert/strict";
import { seededRng } from "../../../src/core/mod.ts";
import { sql } from "../../../src/forecast/sql.ts";
import { giveSeries, withDatabase } from "../../support/duckdb.ts";

interface Setting {
  readonly m: number;
  readonly alpha: number;
  readonly beta: number;
  readonly phi: number;
  readonly gamma: number;
}

const HORIZON = 30;

Deno.test("the fold agrees with the recursion to 12 digits, with and without a season", () =>
  withDatabase((database) => {
    const rng = seededRng(11);
    const series = Array.from(
      { length: 200 },
      (_, i) => 50 + 0.3 * i + 8 * Math.sin(2 * Math.PI * i / 12) + 4 * rng.float(),
    );
    const origins = [40, 121, 200];
    giveSeries(database, "z", series);
    database.run(`
      CREATE TEMP TABLE origin AS SELECT unnest([${origins}])::BIGINT AS o;
      CREATE TEMP TABLE season AS SELECT 12::BIGINT AS m;
      CREATE TEMP TABLE target AS
        SELECT o, k, 1 AS weight FROM origin, range(1, ${HORIZON + 1}) AS r(k);
      CREATE TEMP TABLE fc (member VARCHAR, o BIGINT, k BIGINT, f DOUBLE);`);
    for (const section of ["settings", "runs", "fold_plain", "fold_seasonal", "forecast"]) {
      database.run(sql("holt_winters", section));
    }
    const settings = database.rows("FROM hw_setting").map((row): Setting => ({
      m: Number(row["m"]),
      alpha: Number(row["alpha"]),
      beta: Number(row["beta"]),
      phi: Number(row["phi"]),
      gamma: Number(row["gamma"]),
    }));
    let compared = 0;
    for (const setting of settings) {
      for (const origin of origins) {
        const want = recursion(series.slice(0, origin), setting);
        const got = database.rows(
          `SELECT k, l + CASE WHEN phi = 1 THEN k ELSE phi * (1 - phi ** k) / (1 - phi) END * b
                  + CASE WHEN m = 0 THEN 0 ELSE s[(k - 1) % m + 1] END AS f
           FROM target JOIN hw_state USING (o)
           WHERE o = ? AND m = ? AND alpha = ? AND beta = ? AND phi = ? AND gamma = ? ORDER BY k`,
          origin,
          ...[setting.m, setting.alpha, setting.beta, setting.phi, setting.gamma],
        ).map((row) => Number(row["f"]));
        equal(got.length, HORIZON);
        got.forEach((f, index) => {
          const reference = want[index] ?? NaN;
          ok(Math.abs(f - reference) <= 1e-12 * Math.abs(reference), `${f} is not ${reference}`);
          compared++;
        });
      }
    }
    ok(compared > 900);
    equal(database.row("SELECT count(*) AS c FROM fc")["c"], compared);
  }));

/** Component form (Hyndman et al. 2008, table 2.1): level, slope and season each from its own equation. */
function recursion(ys: readonly number[], setting: Setting): number[] {
  const { m, alpha, beta, phi, gamma } = setting;
  const at = (i: number) => ys[i] ?? NaN;
  const mean = (from: number) => ys.slice(from, from + m).reduce((sum, y) => sum + y, 0) / m;
  const early = Math.min(5, ys.length);
  let slope = m === 0 ? (at(early - 1) - at(0)) / (early - 1) : (mean(m) - mean(0)) / m;
  let level = m === 0 ? at(0) : mean(0) + slope * (m - 1) / 2;
  const seasons = Array.from(
    { length: m },
    (_, j) => at(j) - mean(0) - slope * (j + 1 - (m + 1) / 2),
  );
  for (let t = m === 0 ? 1 : m; t < ys.length; t++) {
    const season = m === 0 ? 0 : seasons[t - m] ?? NaN;
    const before = level;
    const expected = before + phi * slope + season;
    level = alpha * (at(t) - season) + (1 - alpha) * (before + phi * slope);
    slope = beta * (level - before) + (1 - beta) * phi * slope;
    seasons.push(season + gamma * (at(t) - expected));
  }
  let damped = 0;
  return Array.from({ length: HORIZON }, (_, index) => {
    damped += phi ** (index + 1);
    const season = m === 0 ? 0 : seasons[ys.length - m + index % m] ?? NaN;
    return level + damped * slope + season;
  });
}
