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

-- name: retention
CREATE TEMP TABLE retention (level_ms INTEGER, keep_ms BIGINT);
INSERT INTO retention VALUES
  (0, 2 * 3600000::BIGINT),
  (60000, 2 * 86400000::BIGINT),
  (300000, 14 * 86400000::BIGINT),
  (3600000, 400 * 86400000::BIGINT);
