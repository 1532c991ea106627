-- Damped Holt-Winters, additive trend and optional additive season (Hyndman et al. 2008, ch. 3):
--   e_t = y_t - l - phi b - s_{t-m}
--   l_t = l + phi b + alpha e_t,   b_t = phi b + alpha beta e_t,   s_t = s_{t-m} + gamma e_t
--   f_{o+k} = l_o + (phi + ... + phi^k) b_o + s_{o+k-m ceil(k/m)}
-- (error-correction form: alpha, beta and gamma as in the textbook's component form with
-- beta* = beta and gamma* = gamma / (1 - alpha); beta multiplies alpha.)
-- A run is one setting on one stretch of the series; a fold over the stretch keeps only the state, and
-- all runs advance together, which is why many settings cost little more than one.

-- One row per setting: name, m (0 = no season), alpha, beta, phi, gamma.
-- name: settings
CREATE OR REPLACE TEMP TABLE hw_setting AS
SELECT m, alpha::DOUBLE AS alpha, beta::DOUBLE AS beta, phi::DOUBLE AS phi, gamma::DOUBLE AS gamma
FROM (VALUES
  (0, 0.10, 0.00, 0.00, 0.00), (0, 0.35, 0.00, 0.00, 0.00),
  (0, 0.20, 0.05, 0.98, 0.00), (0, 0.50, 0.05, 0.98, 0.00), (0, 0.90, 0.10, 0.98, 0.00),
  (0, 0.50, 0.30, 0.90, 0.00), (0, 0.90, 0.50, 0.90, 0.00), (0, 0.90, 0.02, 1.00, 0.00)
) AS plain(m, alpha, beta, phi, gamma)
UNION ALL
SELECT m, alpha, beta, phi, gamma FROM season CROSS JOIN (VALUES
  (0.10, 0.00, 0.90, 0.10), (0.30, 0.05, 0.98, 0.20), (0.80, 0.05, 0.98, 0.05)
) AS seasonal(alpha, beta, phi, gamma);

-- The stretch of each run: the last 300 points, or four seasons, before its origin.
-- name: runs
CREATE OR REPLACE TEMP TABLE hw_run AS
WITH stretch AS (
  SELECT o, m, list(v ORDER BY i) AS ys
  FROM origin CROSS JOIN (SELECT DISTINCT m FROM hw_setting)
  JOIN z ON z.i > o - greatest(4 * m, 300) AND z.i <= o
  GROUP BY o, m
)
SELECT o, m, alpha, beta, phi, gamma, ys FROM hw_setting JOIN stretch USING (m)
WHERE len(ys) >= greatest(2 * m, 2);

-- Start without season: l = y_1, b = mean slope of the first five points.
-- name: fold_plain
CREATE OR REPLACE TEMP TABLE hw_state AS
SELECT o, m, alpha, beta, phi, gamma, state.l AS l, state.b AS b, []::DOUBLE[] AS s
FROM (
  SELECT hw_run.*, list_reduce(
    list_prepend({'l': ys[1], 'b': (ys[least(5, len(ys))] - ys[1]) / greatest(least(5, len(ys)) - 1, 1)},
      list_transform(ys[2:], lambda y: {'l': y, 'b': 0.0::DOUBLE})),
    lambda a, x: {
      'l': a.l + phi * a.b + alpha * (x.l - a.l - phi * a.b),
      'b': phi * a.b + alpha * beta * (x.l - a.l - phi * a.b)
    }) AS state
  FROM hw_run WHERE m = 0
);

-- Start with season: l and b from the means of the first two seasons, s = the first season about them.
-- The season list is kept rotated so that its head is the phase that comes next.
-- name: fold_seasonal
INSERT INTO hw_state
WITH began AS (
  SELECT hw_run.*, list_avg(ys[:m]) AS mean1, (list_avg(ys[m + 1:2 * m]) - list_avg(ys[:m])) / m AS slope
  FROM hw_run WHERE m > 0
)
SELECT o, m, alpha, beta, phi, gamma, state.l, state.b, state.s
FROM (
  SELECT began.*, list_reduce(
    list_prepend({
        'l': mean1 + slope * (m - 1) / 2.0, 'b': slope,
        's': list_transform(ys[:m], lambda y, j: y - mean1 - slope * (j - (m + 1) / 2.0))
      },
      list_transform(ys[m + 1:], lambda y: {'l': y, 'b': 0.0::DOUBLE, 's': []::DOUBLE[]})),
    lambda a, x: {
      'l': a.l + phi * a.b + alpha * (x.l - a.l - phi * a.b - a.s[1]),
      'b': phi * a.b + alpha * beta * (x.l - a.l - phi * a.b - a.s[1]),
      's': list_append(a.s[2:], a.s[1] + gamma * (x.l - a.l - phi * a.b - a.s[1]))
    }) AS state
  FROM began
);

-- name: forecast
INSERT INTO fc
SELECT CASE WHEN m = 0 THEN 'holt' ELSE 'holt-winters ' || m END
         || ' (' || alpha || ', ' || beta || ', ' || phi || ', ' || gamma || ')',
       o, k,
       l + CASE WHEN phi = 1 THEN k ELSE phi * (1 - phi ** k) / (1 - phi) END * b
         + CASE WHEN m = 0 THEN 0 ELSE s[(k - 1) % m + 1] END
FROM target JOIN hw_state USING (o);
