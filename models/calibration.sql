-- From back-test residuals to quantiles by lead, then to probabilities.
--
-- The quantile of the error at lead k is a mixture:
--   (1 - p) (1 + 1 / w) Q(residuals of leads near k, scaled) + p Q(prior)
--   w = (n - first origin) / k   effective (non-overlapping) windows,   p = 3 / (3 + w)
-- and then half the weight of the quantile regression in the pool goes to its own spread at that lead.
-- The prior of a level is a random walk with unknown drift whose pace may change by about a third in as
-- long a time as the history covers: variance sigma^2 k (1 + k / n) + (0.35 drift k)^2 k / (k + n); sigma is
-- the larger of the one-step and the sqrt(n)-step estimates, so that a slow change is not taken for noise.
-- The prior of a rate is white noise: variance sigma^2 (1 + k / n).
-- This is done for two cuts: with every residual, for the forecast; and with those known at half the back-test's
-- time, so that the report can say how such an interval did on the half that it had not seen.
-- level_list(level, normal) holds the levels asked for and their standard normal quantiles (given).

-- name: prior
CREATE OR REPLACE TEMP TABLE prior AS
WITH span AS (SELECT n, greatest(floor(sqrt(n)), 1)::BIGINT AS b, is_level, v_n, scale FROM task),
drift AS (SELECT (max_by(v, i) - min_by(v, i)) / greatest(max(i) - 1, 1) AS d FROM z),
change AS (
  SELECT w, (z.v - p.v - w * d) ** 2 / w AS e2
  FROM (SELECT 1 AS w UNION SELECT b FROM span), drift, z, z AS p WHERE p.i = z.i - w
),
-- Squares beyond their 98th percentile count as that: one burst is not the rule.
ordinary AS (SELECT w, quantile_cont(e2, 0.98) AS most FROM change GROUP BY w),
variance AS (SELECT w, avg(least(e2, most)) AS var FROM change JOIN ordinary USING (w) GROUP BY w)
SELECT greatest((SELECT sqrt(max(var)) FROM variance WHERE is_level = 1 OR w = 1),
                abs(v_n) * 1e-3 / scale / n) AS sigma, d AS drift, n
FROM drift, span;

-- name: residuals
CREATE OR REPLACE TEMP TABLE residual AS
SELECT o, k, z.v - f AS r, weight
FROM combined JOIN origin USING (o) JOIN z ON z.i = o + k;
CREATE OR REPLACE TEMP TABLE cuts AS
SELECT n AS cut FROM task UNION SELECT (n + first_o) // 2 FROM task;
CREATE OR REPLACE TEMP TABLE error_quantile AS
WITH grid AS (
  SELECT cut, k, (cut - first_o) / k AS w, 3 / (3 + (cut - first_o) / k) AS p
  FROM lead CROSS JOIN task CROSS JOIN cuts WHERE scored
),
-- Recency-weighted empirical quantiles; a value stands at the middle of its own weight (Hazen).
placed AS (
  SELECT cut, grid.k, r * CASE WHEN is_level = 1 THEN sqrt(grid.k / residual.k) ELSE 1 END AS r, weight
  FROM grid JOIN residual ON residual.k BETWEEN grid.k / 1.7 - 0.5 AND grid.k * 1.7 + 0.5
    AND o + residual.k <= cut
  CROSS JOIN task
),
ranked AS (
  SELECT cut, k, r,
         (sum(weight) OVER (PARTITION BY cut, k ORDER BY r ROWS UNBOUNDED PRECEDING) - weight / 2)
           / sum(weight) OVER (PARTITION BY cut, k) AS place
  FROM placed
),
bounds AS (
  SELECT cut, k, level,
         arg_max(r, place) FILTER (WHERE place <= level) AS r0, max(place) FILTER (WHERE place <= level) AS place0,
         arg_min(r, place) FILTER (WHERE place > level) AS r1, min(place) FILTER (WHERE place > level) AS place1
  FROM ranked CROSS JOIN level_list GROUP BY cut, k, level
),
near AS (
  SELECT cut, k, level, CASE WHEN r0 IS NULL THEN r1 WHEN r1 IS NULL THEN r0
                        ELSE r0 + (r1 - r0) * (level - place0) / (place1 - place0) END AS q
  FROM bounds
),
mixed AS (
  SELECT cut, grid.k, level, normal,
         coalesce((1 - p) * (1 + 1 / greatest(w, 0.5)) * near.q, 0)
           + CASE WHEN near.q IS NULL THEN 1 ELSE p END
             * sqrt(CASE WHEN is_level = 1
                 THEN sigma ** 2 * grid.k * (1 + grid.k / prior.n)
                      + (0.35 * drift * grid.k) ** 2 * grid.k / (grid.k + prior.n)
                 ELSE sigma ** 2 * (1 + grid.k / prior.n) END)
             * normal AS q
  FROM grid CROSS JOIN level_list CROSS JOIN task CROSS JOIN prior
  LEFT JOIN near USING (cut, k, level)
),
regressed AS (
  SELECT edge.k, edge.tau,
         (edge.growth - middle.growth) / CASE edge.tau WHEN 0.1 THEN -1.28155 ELSE 1.28155 END AS spread
  FROM qr_growth AS edge JOIN qr_growth AS middle USING (o, k) JOIN task ON o = n
  WHERE edge.tau <> 0.5 AND middle.tau = 0.5
)
SELECT cut, mixed.k, level,
       q + coalesce(trust * (greatest(spread, 0) * normal - q), 0) AS q
FROM mixed
LEFT JOIN task ON task.n = cut
LEFT JOIN regressed ON task.n IS NOT NULL AND regressed.k = mixed.k AND regressed.tau = CASE WHEN level < 0.5 THEN 0.1 ELSE 0.9 END
CROSS JOIN (SELECT coalesce(sum(weight), 0) * any_value(share) / 2 AS trust
            FROM share LEFT JOIN weight ON member = 'quantile regression');


-- Between scored leads the error quantiles are linear in k. Monotone in the level by a running maximum.
-- Parameters: lower bound (-inf for none).
-- name: quantiles
CREATE OR REPLACE TEMP TABLE forecast AS
WITH bracket AS (
  SELECT lead.k, max(low.k) AS k0, min(high.k) AS k1
  FROM lead JOIN lead AS low ON low.scored AND low.k <= lead.k
  JOIN lead AS high ON high.scored AND high.k >= lead.k
  GROUP BY lead.k
),
spread AS (
  SELECT bracket.k, a.level,
         a.q + (b.q - a.q) * CASE WHEN k1 = k0 THEN 0 ELSE (bracket.k - k0) / (k1 - k0) END AS q
  FROM bracket JOIN task ON true JOIN error_quantile AS a ON a.k = k0 AND a.cut = n
  JOIN error_quantile AS b ON b.k = k1 AND b.level = a.level AND b.cut = n
)
SELECT spread.k, level,
       greatest(?::DOUBLE, v_n + scale * max(f + q) OVER (PARTITION BY spread.k ORDER BY level)) AS value
FROM spread JOIN combined ON combined.k = spread.k CROSS JOIN task WHERE combined.o = n;

-- name: answer
SELECT k, level, value FROM forecast JOIN lead USING (k) WHERE wanted ORDER BY k, level;

-- How the combined forecast did at the origins of the back-test's second half, with error quantiles made of
-- what was known at its beginning. Origins overlap; the windows told are those that do not.
-- name: backtest
SELECT CASE WHEN count(*) = 0 THEN 0 ELSE greatest((any_value(n) - any_value(low.cut)) // any_value(h), 1) END AS windows,
       avg(CASE WHEN r BETWEEN low.q AND high.q THEN 1.0 ELSE 0.0 END) AS coverage80,
       avg((pinball(r, low.q, 0.1) + pinball(r, mid.q, 0.5) + pinball(r, high.q, 0.9)) / 3) * any_value(scale) AS pinball
FROM residual CROSS JOIN task
JOIN error_quantile AS low ON low.k = residual.k AND low.level = 0.1 AND low.cut < n AND residual.o >= low.cut
JOIN error_quantile AS mid ON mid.k = residual.k AND mid.level = 0.5 AND mid.cut = low.cut
JOIN error_quantile AS high ON high.k = residual.k AND high.level = 0.9 AND high.cut = low.cut;

-- name: macros
CREATE TEMP MACRO pinball(y, q, tau) AS CASE WHEN y >= q THEN tau * (y - q) ELSE (1 - tau) * (q - y) END;
-- Abramowitz and Stegun 26.2.17: |error| < 7.5e-8.
CREATE TEMP MACRO normal_tail(x) AS
  exp(-x * x / 2) * 0.3989422804014327 * (
    0.319381530 / (1 + 0.2316419 * x) - 0.356563782 / (1 + 0.2316419 * x) ** 2
    + 1.781477937 / (1 + 0.2316419 * x) ** 3 - 1.821255978 / (1 + 0.2316419 * x) ** 4
    + 1.330274429 / (1 + 0.2316419 * x) ** 5);
CREATE TEMP MACRO normal_cdf(x) AS CASE WHEN x >= 0 THEN 1 - normal_tail(x) ELSE normal_tail(-x) END;
CREATE TEMP MACRO uniform(a, b, salt) AS (hash(a, b, salt) % 4294967296 + 0.5) / 4294967296;

-- First passage. Marginal quantiles do not say how often a path touches the limit; so 400 paths are drawn
-- whose value at each lead has the forecast's marginal distribution and whose ranks move together in time
-- like those of a simple process: for a level, errors add up
-- (a Brownian copula: W_j / sqrt(j) at the j-th wanted lead); for a rate, they fade (rho = 0.8 a step).
-- The tails beyond the outermost levels are extended by the outermost level's own slope in the normal scale.
-- Parameters: limit.
-- name: first_passage
WITH noise AS (
  SELECT p, j, k, sqrt(-2 * ln(uniform(p, k, 1))) * cos(2 * pi() * uniform(p, k, 2)) AS e
  FROM range(400) AS r(p), (SELECT row_number() OVER (ORDER BY k) AS j, k FROM lead WHERE wanted)
),
walk AS (
  SELECT p, k, CASE WHEN is_level = 1
    THEN sum(e) OVER path / sqrt(j)
    ELSE sum(e * 0.8 ** -j) OVER path * 0.8 ** j / sqrt((1 - 0.64 ** j) / 0.36) END AS x
  FROM noise CROSS JOIN task
  WINDOW path AS (PARTITION BY p ORDER BY j)
),
pieces AS (
  SELECT k, value AS v0, normal AS x0,
         lead(value) OVER levels AS v1, lead(normal) OVER levels AS x1,
         row_number() OVER levels = 1 AS first_piece, row_number() OVER levels = count(*) OVER (PARTITION BY k) - 1 AS last_piece
  FROM forecast JOIN level_list USING (level)
  WINDOW levels AS (PARTITION BY k ORDER BY level)
)
SELECT avg(CASE WHEN hit THEN 1.0 ELSE 0.0 END) AS probability FROM (
  SELECT p, bool_or(v0 + (v1 - v0) * (x - x0) / (x1 - x0) >= ?::DOUBLE) AS hit
  FROM walk JOIN pieces ON pieces.k = walk.k AND v1 IS NOT NULL
    AND (x >= x0 OR first_piece) AND (x < x1 OR last_piece)
  GROUP BY p
);
