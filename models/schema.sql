-- Tables of the forecaster's database. Times are milliseconds since the epoch.
-- There are no indexes: every table is small, read by scans, and a checkpoint stays cheap without them.

-- name: tables
CREATE TABLE IF NOT EXISTS series (series_id INTEGER, volume VARCHAR, metric VARCHAR);
CREATE TABLE IF NOT EXISTS raw (series_id INTEGER, at_ms BIGINT, value DOUBLE);
CREATE TABLE IF NOT EXISTS rollup (
  level_ms INTEGER, series_id INTEGER, slot_ms BIGINT,
  samples BIGINT, total DOUBLE, low DOUBLE, high DOUBLE, last_at_ms BIGINT, last_value DOUBLE
);
-- The highest sequence number of the sample journal that is in `raw` and `rollup`.
CREATE TABLE IF NOT EXISTS ingested (seq BIGINT);
INSERT INTO ingested SELECT -1 WHERE NOT EXISTS (FROM ingested);

-- name: ingested
SELECT seq FROM ingested;

-- name: advance
UPDATE ingested SET seq = ?;

-- name: series
SELECT series_id, volume, metric FROM series;

-- name: add_series
INSERT INTO series VALUES (?, ?, ?);

-- Every column of every block, so that damage shows when the database is opened.
-- name: read_all
SELECT (SELECT count(*) + sum(series_id) + sum(at_ms) + sum(value) FROM raw) AS raw,
       (SELECT count(*) + sum(level_ms) + sum(series_id) + sum(slot_ms) + sum(samples) + sum(total)
               + sum(low) + sum(high) + sum(last_at_ms) + sum(last_value) FROM rollup) AS rollup;

-- name: retention
CREATE TEMP TABLE retention (level_ms INTEGER, keep_ms BIGINT);
INSERT INTO retention VALUES
  (0, 2 * 3600000::BIGINT),
  (60000, 2 * 86400000::BIGINT),
  (300000, 14 * 86400000::BIGINT),
  (3600000, 400 * 86400000::BIGINT);
