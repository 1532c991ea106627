-- From the journal's samples to raw rows and roll-ups of 1 min, 5 min and 1 h, and back to points.
-- A roll-up row is a mergeable summary, so late samples merge like any others.

-- name: incoming
CREATE OR REPLACE TEMP TABLE incoming (series_id INTEGER, at_ms BIGINT, value DOUBLE);

-- The samples come as three lists of numbers: DuckDB parses a list out of one string far faster than a
-- list of literals.
-- name: take
INSERT INTO incoming
SELECT unnest('[?]'::INTEGER[]), unnest('[?]'::BIGINT[]), unnest('[?]'::DOUBLE[]);

-- name: raw
INSERT INTO raw SELECT series_id, at_ms, value FROM incoming;

-- name: summarise
CREATE OR REPLACE TEMP TABLE summary AS
SELECT level_ms, series_id, (at_ms // level_ms) * level_ms AS slot_ms,
       count(*) AS samples, sum(value) AS total, min(value) AS low, max(value) AS high,
       max(at_ms) AS last_at_ms, arg_max(value, at_ms) AS last_value
FROM incoming CROSS JOIN retention
WHERE level_ms > 0
GROUP BY ALL;

-- name: merge
INSERT INTO summary BY NAME
SELECT rollup.* FROM rollup SEMI JOIN summary USING (level_ms, series_id, slot_ms);
DELETE FROM rollup USING (SELECT DISTINCT level_ms, series_id, slot_ms FROM summary) AS touched
WHERE rollup.level_ms = touched.level_ms AND rollup.series_id = touched.series_id
  AND rollup.slot_ms = touched.slot_ms;
INSERT INTO rollup BY NAME
SELECT level_ms, series_id, slot_ms, sum(samples)::BIGINT AS samples, sum(total) AS total,
       min(low) AS low, max(high) AS high, max(last_at_ms) AS last_at_ms,
       arg_max(last_value, last_at_ms) AS last_value
FROM summary
GROUP BY ALL;
DROP TABLE summary;
DROP TABLE incoming;

-- name: expire_raw
DELETE FROM raw WHERE at_ms < ?::BIGINT - (SELECT keep_ms FROM retention WHERE level_ms = 0);

-- name: expire_rollup
DELETE FROM rollup USING retention
WHERE rollup.level_ms = retention.level_ms AND slot_ms < ?::BIGINT - keep_ms;

-- The points of one series from the finest source that the step asks for; where that source's
-- retention has ended, the next coarser one goes on. A level's roll-up row stands at its last
-- sample, a rate's at the middle of its slot.
-- Parameters: series, finest source (0 = raw, else level_ms), 1 for a level and 0 for a rate.
-- name: points
CREATE OR REPLACE TEMP TABLE points AS
WITH task AS (SELECT ?::INTEGER AS series_id, ?::INTEGER AS finest_ms, ?::INTEGER AS is_level),
candidates AS (
  SELECT 0 AS source_ms, at_ms, at_ms AS slot_ms, value
  FROM raw, task WHERE raw.series_id = task.series_id AND finest_ms = 0
  UNION ALL
  SELECT level_ms, CASE WHEN is_level = 1 THEN last_at_ms ELSE slot_ms + level_ms // 2 END, slot_ms,
         CASE WHEN is_level = 1 THEN last_value ELSE total / samples END
  FROM rollup, task WHERE rollup.series_id = task.series_id AND level_ms >= finest_ms
),
reach AS (SELECT source_ms, min(slot_ms) AS from_ms FROM candidates GROUP BY source_ms),
border AS (
  SELECT source_ms,
         min(from_ms) OVER (ORDER BY source_ms ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS until_ms
  FROM reach
)
SELECT at_ms, value FROM candidates JOIN border USING (source_ms)
WHERE until_ms IS NULL OR slot_ms + source_ms <= until_ms;

-- Points rolled up to a step for a chart. Parameters: step, step, 1 for a level, from, to.
-- name: history
SELECT (at_ms // ?::BIGINT) * ?::BIGINT AS at_ms,
       CASE WHEN ?::INTEGER = 1 THEN arg_max(value, at_ms) ELSE avg(value) END AS value
FROM points
WHERE at_ms BETWEEN ?::BIGINT AND ?::BIGINT
GROUP BY 1
ORDER BY 1;

-- What the choice of a step needs to know: how many points, over what time, how far apart.
-- name: sampling
SELECT count(*) AS points, min(at_ms) AS first_ms, max(at_ms) AS last_ms, median(gap) AS gap_ms
FROM (SELECT at_ms, at_ms - lag(at_ms) OVER (ORDER BY at_ms) AS gap
      FROM (FROM points WHERE at_ms <= ?::BIGINT ORDER BY at_ms DESC LIMIT 5000));

-- A regular series that ends at the newest sample: slot i holds its last value (a level) or its mean
-- (a rate); empty slots are filled linearly between their neighbours.
-- Parameters: last_ms, step, 1 for a level, last_ms, slots at most.
-- name: regular
CREATE OR REPLACE TEMP TABLE y AS
WITH slots AS (
  SELECT (?::BIGINT - at_ms) // ?::BIGINT AS back,
         CASE WHEN ?::INTEGER = 1 THEN arg_max(value, at_ms) ELSE avg(value) END AS value
  FROM points WHERE at_ms <= ?::BIGINT
  GROUP BY 1
),
recent AS (SELECT back, value FROM slots WHERE back < ?::BIGINT),
depth AS (SELECT max(back) AS deepest FROM recent),
grid AS (SELECT deepest - back AS i, back FROM depth, range(0, deepest + 1) AS r(back)),
known AS (
  SELECT i, value,
         last_value(CASE WHEN value IS NULL THEN NULL ELSE i END IGNORE NULLS) OVER before AS i0,
         last_value(value IGNORE NULLS) OVER before AS v0,
         first_value(CASE WHEN value IS NULL THEN NULL ELSE i END IGNORE NULLS) OVER after AS i1,
         first_value(value IGNORE NULLS) OVER after AS v1
  FROM grid LEFT JOIN recent USING (back)
  WINDOW before AS (ORDER BY i ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW),
         after AS (ORDER BY i ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)
)
SELECT i + 1 AS i,
       CASE WHEN value IS NOT NULL THEN value
            WHEN i1 IS NULL THEN v0
            WHEN i0 IS NULL THEN v1
            ELSE v0 + (v1 - v0) * (i - i0) / (i1 - i0) END::DOUBLE AS v
FROM known;
