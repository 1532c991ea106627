-- Linear quantile regression of growth, direct per lead (Koenker and Bassett 1978):
--   z_t+k - z_t = b0 + b1 k (z_t - z_t-h) / h + b2 (z_t - mean of the last h) + two harmonics of the season
-- fitted by iteratively re-weighted least squares on the check function:
--   weight = (tau or 1 - tau by the sign of the residual) / (|residual| + epsilon)
-- The smoothing by epsilon biases outer levels towards the middle, so the intercept is set at the end to
-- the exact quantile of the residuals.
-- Growth and not level is regressed, because a level's own value carries no information on its change.
-- The harmonics of a level are taken as differences between target and origin, those of a rate at the target.
--
-- Fits are made at five leads and at four origins (the last is the forecast's own, with three levels);
-- in between, coefficients are linear in the lead and a back-test origin uses the newest older fit.

-- Every row that some fit may use; a row's target must lie before the fit's origin.
-- name: design
CREATE OR REPLACE TEMP TABLE qr_task AS
SELECT n, h, first_o, is_level, greatest(least(h, n // 8), 2)::BIGINT AS b,
       coalesce((SELECT min(m) FROM season), 0)::BIGINT AS m,
       greatest(n // 500, 1)::BIGINT AS stride
FROM task;
CREATE OR REPLACE TEMP TABLE qr_point AS
SELECT t, v, (v - lag(v, b) OVER (ORDER BY t)) / b AS slope,
       v - (total - coalesce(lag(total, b) OVER (ORDER BY t), 0)) / least(b, t) AS away
FROM (SELECT i AS t, v, sum(v) OVER (ORDER BY i ROWS UNBOUNDED PRECEDING) AS total FROM z)
CROSS JOIN qr_task;
CREATE OR REPLACE TEMP MACRO wave(t, k, m, harmonic, is_level, phase) AS
  CASE WHEN m = 0 THEN 0.0 ELSE cos(2 * pi() * harmonic * (t + k) / m - phase)
    - CASE WHEN is_level = 1 THEN cos(2 * pi() * harmonic * t / m - phase) ELSE 0 END END;
CREATE OR REPLACE TEMP TABLE qr_lead AS
SELECT DISTINCT round(h ** (j / 4.0))::BIGINT AS k FROM qr_task, range(5) AS r(j);
CREATE OR REPLACE TEMP TABLE qr_row AS
SELECT t, k, ahead.v - p.v AS g, k * slope AS x1, away AS x2,
       wave(t, k, m, 1, is_level, 0) AS x3, wave(t, k, m, 1, is_level, pi() / 2) AS x4,
       wave(t, k, m, 2, is_level, 0) AS x5, wave(t, k, m, 2, is_level, pi() / 2) AS x6
FROM qr_point AS p CROSS JOIN qr_lead CROSS JOIN qr_task JOIN z AS ahead ON ahead.i = t + k
WHERE t > b AND (n - t - k) % stride = 0;

-- name: fits
CREATE OR REPLACE TEMP TABLE qr_fit AS
WITH made AS (
  SELECT DISTINCT (first_o + (n - first_o) * j // 3)::BIGINT AS f FROM qr_task, range(4) AS r(j)
),
wanted AS (
  SELECT f, k, tau FROM made CROSS JOIN qr_lead CROSS JOIN qr_task
  CROSS JOIN (VALUES (0.1), (0.5), (0.9)) AS taus(tau) WHERE tau = 0.5 OR f = n
)
SELECT f, k, tau::DOUBLE AS tau, [0, 0, 0, 0, 0, 0, 0]::DOUBLE[] AS beta, 1e9::DOUBLE AS epsilon
FROM wanted
WHERE (SELECT count(*) FROM qr_row JOIN qr_task ON true WHERE qr_row.k = h AND t + h <= first_o) >= 24;

-- name: count
SELECT count(*) AS fits FROM qr_fit;

-- One step: weights from the residuals of the last coefficients, then the normal equations, solved by
-- Gauss-Jordan elimination; a small ridge keeps a column without variation at zero. The first step
-- has a huge epsilon, which makes it least squares; then epsilon is a hundredth of the residuals'
-- geometric mean, which outliers hardly move.
-- name: iterate
CREATE OR REPLACE TEMP TABLE qr_fit AS
WITH weighed AS (
  SELECT f, k, tau, epsilon, g, x1, x2, x3, x4, x5, x6,
         g - beta[1] - beta[2] * x1 - beta[3] * x2 - beta[4] * x3 - beta[5] * x4
           - beta[6] * x5 - beta[7] * x6 AS r,
         CASE WHEN r >= 0 THEN tau ELSE 1 - tau END / (abs(r) + epsilon) AS w
  FROM qr_fit JOIN qr_row USING (k) WHERE t + k <= f
),
normal AS (
  SELECT f, k, tau, exp(avg(ln(abs(r) + 1e-9))) AS spread, sum(w) * 1e-6 AS ridge,
         sum(w) AS a00, sum(w * x1) AS a01, sum(w * x2) AS a02, sum(w * x3) AS a03,
         sum(w * x4) AS a04, sum(w * x5) AS a05, sum(w * x6) AS a06, sum(w * g) AS g0,
         sum(w * x1 * x1) AS a11, sum(w * x1 * x2) AS a12, sum(w * x1 * x3) AS a13,
         sum(w * x1 * x4) AS a14, sum(w * x1 * x5) AS a15, sum(w * x1 * x6) AS a16,
         sum(w * g * x1) AS g1, sum(w * x2 * x2) AS a22, sum(w * x2 * x3) AS a23,
         sum(w * x2 * x4) AS a24, sum(w * x2 * x5) AS a25, sum(w * x2 * x6) AS a26,
         sum(w * g * x2) AS g2, sum(w * x3 * x3) AS a33, sum(w * x3 * x4) AS a34,
         sum(w * x3 * x5) AS a35, sum(w * x3 * x6) AS a36, sum(w * g * x3) AS g3,
         sum(w * x4 * x4) AS a44, sum(w * x4 * x5) AS a45, sum(w * x4 * x6) AS a46,
         sum(w * g * x4) AS g4, sum(w * x5 * x5) AS a55, sum(w * x5 * x6) AS a56,
         sum(w * g * x5) AS g5, sum(w * x6 * x6) AS a66, sum(w * g * x6) AS g6
  FROM weighed GROUP BY f, k, tau
),
solved AS (
  SELECT f, k, tau, spread, list_reduce(
    list_prepend({'rows': [
      [a00 + ridge, a01, a02, a03, a04, a05, a06, g0],
      [a01, a11 + ridge, a12, a13, a14, a15, a16, g1],
      [a02, a12, a22 + ridge, a23, a24, a25, a26, g2],
      [a03, a13, a23, a33 + ridge, a34, a35, a36, g3],
      [a04, a14, a24, a34, a44 + ridge, a45, a46, g4],
      [a05, a15, a25, a35, a45, a55 + ridge, a56, g5],
      [a06, a16, a26, a36, a46, a56, a66 + ridge, g6]
    ], 'pivot': 0}, list_transform(range(1, 8), lambda j: {'rows': []::DOUBLE[][], 'pivot': j::INTEGER})),
    lambda a, e: {'rows': list_transform(a.rows, lambda line, i: list_transform(line, lambda x, c:
      CASE WHEN i = e.pivot THEN x / a.rows[e.pivot][e.pivot]
           ELSE x - line[e.pivot] / a.rows[e.pivot][e.pivot] * a.rows[e.pivot][c] END)),
      'pivot': e.pivot}) AS reduced
  FROM normal
)
SELECT f, k, tau, list_transform(reduced.rows, lambda line: line[8]) AS beta,
       greatest(spread * 1e-2, 1e-6) AS epsilon
FROM solved;

-- name: centre
CREATE OR REPLACE TEMP TABLE qr_fit AS
WITH remainder AS (
  SELECT f, k, tau, quantile_cont(
    g - beta[2] * x1 - beta[3] * x2 - beta[4] * x3 - beta[5] * x4 - beta[6] * x5 - beta[7] * x6,
    [0.1, 0.5, 0.9]) AS at
  FROM qr_fit JOIN qr_row USING (k) WHERE t + k <= f
  GROUP BY f, k, tau
)
SELECT f, k, tau,
       list_prepend(CASE tau WHEN 0.1 THEN remainder.at[1] WHEN 0.5 THEN remainder.at[2] ELSE remainder.at[3] END,
                    beta[2:]) AS beta
FROM qr_fit JOIN remainder USING (f, k, tau);

-- Growth by fit origin, lead and level, on the leads that are wanted.
-- name: forecast
CREATE OR REPLACE TEMP TABLE qr_growth AS
WITH placed AS (
  SELECT o, target.k, max(f) AS f, max(low.k) AS k0, min(high.k) AS k1
  FROM target JOIN (SELECT DISTINCT f FROM qr_fit) ON f <= o
  JOIN qr_lead AS low ON low.k <= target.k JOIN qr_lead AS high ON high.k >= target.k
  GROUP BY o, target.k
),
featured AS (
  SELECT o, k, f, k0, k1, CASE WHEN k1 = k0 THEN 0 ELSE (k - k0) / (k1 - k0) END AS u, v,
         [1, k * coalesce(slope, 0), away,
          wave(o, k, m, 1, is_level, 0), wave(o, k, m, 1, is_level, pi() / 2),
          wave(o, k, m, 2, is_level, 0), wave(o, k, m, 2, is_level, pi() / 2)] AS x
  FROM placed JOIN qr_point ON t = o CROSS JOIN qr_task
)
SELECT o, featured.k, low.tau, v,
       (1 - u) * list_dot_product(low.beta, x) + u * list_dot_product(high.beta, x) AS growth
FROM featured JOIN qr_fit AS low ON low.f = featured.f AND low.k = k0
JOIN qr_fit AS high ON high.f = featured.f AND high.k = k1 AND high.tau = low.tau;
INSERT INTO fc SELECT 'quantile regression', o, k, v + growth FROM qr_growth WHERE tau = 0.5;
