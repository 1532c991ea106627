-- The pool of forecasts and its back-test, set-wise over (origin, lead).
--
-- y(i, v)                  the series, i = 1..n                       (given)
-- task                     one row: n, h, scale, first origin, level? (made here)
-- z(i, v)                  (v - y_n) / scale
-- origin(o, weight)        forecast origins; o = n is the forecast itself, weight 0
-- lead(k, wanted, scored)  wanted: stride, 2 stride .. h; scored: spaced evenly in log k, for the back-test
-- season(m)                periods tried, in steps                    (given)
-- fc(member, o, k, f)      what each member says at each origin for each lead

-- A series given as a list of numbers.
-- name: array
CREATE OR REPLACE TEMP TABLE y AS
SELECT generate_subscripts(vs, 1) AS i, unnest(vs) AS v FROM (SELECT '[?]'::DOUBLE[] AS vs);

-- name: length
SELECT count(*) AS n FROM y;

-- Lists: levels, their standard normal quantiles, seasonal periods.
-- name: lists
CREATE OR REPLACE TEMP TABLE level_list AS
SELECT unnest('[?]'::DOUBLE[]) AS level, unnest('[?]'::DOUBLE[]) AS normal;
CREATE OR REPLACE TEMP TABLE season AS SELECT unnest('[?]'::BIGINT[]) AS m;

-- Parameters: h and stride in steps (h a multiple of stride), 1 for a level and 0 for a rate.
-- name: task
CREATE OR REPLACE TEMP TABLE task AS
WITH steps AS (SELECT i, v, abs(v - lag(v) OVER (ORDER BY i)) AS d FROM y),
ordinary AS (SELECT quantile_cont(d, 0.98) AS most FROM steps)
SELECT max(i)::BIGINT AS n, h, stride, is_level, max_by(v, i) AS v_n,
       coalesce(nullif(avg(d) FILTER (WHERE d <= most), 0), nullif(avg(d), 0), 1) AS scale,
       greatest(least(6, max(i) // 2), max(i) - least(max(i) * 3 // 5, 12 * h), 2)::BIGINT AS first_o
FROM steps, ordinary, (SELECT ?::BIGINT AS h, ?::BIGINT AS stride, ?::INTEGER AS is_level)
GROUP BY h, stride, is_level;
CREATE OR REPLACE TEMP TABLE z AS SELECT i, (v - v_n) / scale AS v FROM y, task;
CREATE OR REPLACE TEMP TABLE origin AS
WITH spaced AS (
  SELECT DISTINCT round(first_o + (n - 1 - first_o) * j / 31.0)::BIGINT AS o
  FROM task, range(32) AS r(j) WHERE n > first_o
)
SELECT o, 0.5 ** ((n - o) / greatest((n - first_o) / 2.0, 1)) AS weight FROM spaced, task
UNION ALL SELECT n, 0 FROM task;
CREATE OR REPLACE TEMP TABLE lead AS
SELECT k, bool_or(wanted) AS wanted, bool_or(NOT wanted) AS scored
FROM (
  SELECT j * stride AS k, true AS wanted FROM task, range(1, h // stride + 1) AS r(j)
  UNION ALL SELECT round(h ** (j / 15.0))::BIGINT, false FROM task, range(16) AS r(j)
)
GROUP BY k;
CREATE OR REPLACE TEMP TABLE target AS
SELECT o, k, weight FROM origin CROSS JOIN lead CROSS JOIN task
WHERE o = n OR (scored AND o + k <= n);
CREATE OR REPLACE TEMP TABLE fc (member VARCHAR, o BIGINT, k BIGINT, f DOUBLE);

-- naive: z_o. drift: z_o + k (z_o - z_{o-b}) / b. line: least squares over the last b points, as
-- predict_linear does. mean: of the last b points. The look-backs b follow the horizon.
-- name: simple
CREATE OR REPLACE TEMP TABLE lookback AS
SELECT o, greatest(least(reach * h // 4, o - 1), 1) AS b, label
FROM origin CROSS JOIN task CROSS JOIN (VALUES ('quarter', 1), ('one', 4), ('four', 16)) AS look(label, reach);
CREATE OR REPLACE TEMP TABLE local_fit AS
SELECT o, b, label, avg(z.v) AS mean,
       coalesce(regr_slope(z.v, z.i), 0) AS slope, coalesce(regr_intercept(z.v, z.i), avg(z.v)) AS base,
       (max_by(z.v, z.i) - min_by(z.v, z.i)) / b AS drift
FROM lookback JOIN z ON z.i BETWEEN o - b AND o
GROUP BY o, b, label;
INSERT INTO fc
SELECT 'naive', o, k, z.v FROM target JOIN z ON z.i = o
UNION ALL
SELECT kind || ' ' || label, o, k,
       CASE kind WHEN 'drift' THEN z.v + k * drift WHEN 'line' THEN base + slope * (o + k) ELSE mean END
FROM target JOIN local_fit USING (o) JOIN z ON z.i = o
CROSS JOIN (VALUES ('drift'), ('line'), ('mean')) AS kinds(kind);

-- With c = ceil(k / m): seasonal naive z_{o+k-cm}; anchored: z_o + z_{o+k-cm} - z_{o-cm}; profile: the
-- mean of that phase over up to four seasons, each anchored at the mean of the season before its origin.
-- name: seasonal
CREATE OR REPLACE TEMP TABLE season_mean AS
SELECT m, i, avg(v) OVER (PARTITION BY m ORDER BY i ROWS BETWEEN m - 1 PRECEDING AND CURRENT ROW) AS mean
FROM z CROSS JOIN season;
INSERT INTO fc
WITH cycle AS (
  SELECT o, k, m, ceil(k / m)::BIGINT * m AS back FROM target CROSS JOIN season
)
SELECT 'seasonal naive ' || m, o, k, p.v FROM cycle JOIN z AS p ON p.i = greatest(o + k - back, 1)
UNION ALL
SELECT 'seasonal anchored ' || m, o, k, z.v + p.v - a.v
FROM cycle JOIN z ON z.i = o JOIN z AS p ON p.i = greatest(o + k - back, 1)
JOIN z AS a ON a.i = greatest(o - back, 1)
UNION ALL
SELECT 'seasonal profile ' || cycle.m, o, k, any_value(now.mean) + avg(p.v - then_.mean)
FROM cycle CROSS JOIN range(4) AS r(j)
JOIN z AS p ON p.i = greatest(o + k - back - j * cycle.m, 1)
JOIN season_mean AS now ON now.m = cycle.m AND now.i = o
JOIN season_mean AS then_ ON then_.m = cycle.m AND then_.i = greatest(o - back - j * cycle.m, 1)
WHERE j = 0 OR o - back - j * cycle.m >= 1
GROUP BY cycle.m, o, k;

-- Error of each member: mean over origins and leads of |z - f| relative to naive's ordinary error at that
-- lead (the mean without its largest tenth), cut at five so that one burst does not decide, origins
-- weighted by recency. Weight: error^-6 among those within 1.5 of the best; Holt-Winters settings
-- compete with one another first, so that a family does not vote many times. A history too short for
-- any back-test leaves the drift, which the next section halves.
-- name: weigh
CREATE OR REPLACE TEMP TABLE lead_error AS
WITH error AS (SELECT k, abs(z.v - f) AS e FROM fc JOIN z ON z.i = o + k WHERE member = 'naive'),
ordinary AS (SELECT k, quantile_cont(e, 0.9) AS most FROM error GROUP BY k)
SELECT k, avg(e) + 0.05 AS naive_error FROM error JOIN ordinary USING (k) WHERE e <= most GROUP BY k;
CREATE OR REPLACE TEMP MACRO relative(e, naive_error) AS least(abs(e) / naive_error, 5);
CREATE OR REPLACE TEMP TABLE member_error AS
WITH scored AS (
  SELECT member, sum(origin.weight * relative(z.v - f, naive_error)) / sum(origin.weight) AS error
  FROM fc JOIN origin USING (o) JOIN z ON z.i = o + k JOIN lead_error USING (k)
  GROUP BY member
  -- A member that could speak at few origins only has not been tested.
  QUALIFY count(*) >= 0.6 * max(count(*)) OVER ()
),
best_of_family AS (
  SELECT member, error FROM scored
  QUALIFY row_number() OVER (PARTITION BY split_part(member, ' (', 1) ORDER BY error, member) = 1
)
SELECT member, error, CASE WHEN error <= 1.5 * min(error) OVER () THEN (error + 0.01) ** -6 ELSE 0 END AS score
FROM best_of_family;
CREATE OR REPLACE TEMP TABLE weight AS
SELECT member, score / sum(score) OVER () AS weight FROM member_error
UNION ALL
SELECT 'drift four', 1 WHERE NOT EXISTS (FROM member_error);

-- The weighted mean, shrunk towards naive by the share that did best in the back-test; a share has to
-- earn its distance from naive by one per cent of error for each tenth.
-- name: combine
CREATE OR REPLACE TEMP TABLE pooled AS
SELECT naive.o, naive.k, coalesce(sum(weight * fc.f) / sum(weight), any_value(naive.f)) AS f,
       any_value(naive.f) AS naive
FROM fc AS naive
LEFT JOIN (fc JOIN weight ON weight.member = fc.member AND weight > 0)
  ON fc.o = naive.o AND fc.k = naive.k
WHERE naive.member = 'naive'
GROUP BY naive.o, naive.k;
CREATE OR REPLACE TEMP TABLE share AS
WITH tried AS (
  SELECT s / 10.0 AS share,
         sum(origin.weight * relative(z.v - (s / 10.0 * f + (1 - s / 10.0) * naive), naive_error))
           * (1 + 0.01 * s) AS error
  FROM pooled JOIN origin USING (o) JOIN z ON z.i = o + k JOIN lead_error USING (k)
  CROSS JOIN range(0, 11) AS r(s)
  GROUP BY s
)
SELECT coalesce(min_by(share, error), 0.5) AS share FROM tried;
CREATE OR REPLACE TEMP TABLE combined AS
SELECT o, k, share * f + (1 - share) * naive AS f FROM pooled CROSS JOIN share;

-- What the report names: each member's weight after the shrinking.
-- name: report
SELECT member AS name, round(sum(weight), 4) AS weight FROM (
  SELECT member, weight * share AS weight FROM weight CROSS JOIN share
  UNION ALL SELECT 'naive', 1 - share FROM share
) GROUP BY member HAVING sum(weight) >= 0.005 ORDER BY 2 DESC, 1;
