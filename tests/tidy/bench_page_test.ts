/** The page of figures keeps its prose and shows every result where it belongs. */
import { deepEqual, equal, throws } from "node:assert/strict";
import { DATAPLANE_PART, pageWith } from "../bench/dataplane/page.ts";
import { MIRROR_PART } from "../bench/mirror/page.ts";
import type { BenchResult } from "../bench/pairs.ts";
import { read } from "./tree.ts";

function result(work: string, peer_name: string, ratio: number): BenchResult {
  const figures = { ours: 1000 * ratio, peer: 1000, ratio, spread: 0.25, rounds: 5 };
  return { work, peer_name, unit: "IOPS", better: "higher", ...figures };
}

const PAGE = [
  "before",
  "<!-- dataplane tmpfs: begin -->",
  "old",
  "<!-- dataplane tmpfs: end -->",
  "between",
  "<!-- dataplane disk: begin -->",
  "kept",
  "<!-- dataplane disk: end -->",
  "after",
].join("\n");

Deno.test("pageWith() replaces what was measured, a column for each peer, and keeps the rest", () => {
  const page = pageWith(PAGE, DATAPLANE_PART, [
    result("tmpfs/nbd 4k randread QD1", "A", 1.5),
    result("tmpfs/nbd 4k randread QD1", "B", 2),
    result("tmpfs/fuse 4k randread QD1", "B", 3),
  ], (storage) => `about ${storage}`);
  equal(page.includes("old"), false);
  deepEqual(page.split("\n").filter((line) => line !== ""), [
    "before",
    "<!-- dataplane tmpfs: begin -->",
    "about tmpfs",
    "| over nbd | unit, better | psma | A | ratio (spread) | B | ratio (spread) |",
    "| --- | --- | --- | --- | --- | --- | --- |",
    "| 4k randread QD1 | IOPS, higher | 1,500 | 1,000 | **1.50×** (0.25) | 1,000 | **2.00×** (0.25) |",
    "| over fuse | unit, better | psma | B | ratio (spread) |",
    "| --- | --- | --- | --- | --- |",
    "| 4k randread QD1 | IOPS, higher | 3,000 | 1,000 | **3.00×** (0.25) |",
    ...PAGE.split("\n").slice(3),
  ]);
});

Deno.test("pageWith() refuses a page without markers; the real page has them", () => {
  const results = ["tmpfs", "disk"].map((storage) => result(`${storage}/nbd w`, "A", 1));
  throws(() => pageWith("no markers", DATAPLANE_PART, results, () => ""), /dataplane tmpfs: begin/);
  pageWith(read("docs/BENCHMARKS.md"), DATAPLANE_PART, results, () => "");
});

Deno.test("pageWith() has for mirrors a table for what is idle and one for each load and phase", () => {
  const page = pageWith(read("docs/BENCHMARKS.md"), MIRROR_PART, [
    result("tmpfs/idle sync", "A", 2),
    result("tmpfs/4k QD32: time to ready", "B", 2),
    result("tmpfs/4k QD32, sync: p99", "B", 3),
    result("tmpfs/4k at 10,000 IOPS, sync: IOPS kept", "B", 3),
    result("tmpfs/4k at 10,000 IOPS, in turns: p99", "paused", 2),
  ], (storage) => `about ${storage}`);
  const [, own = ""] = /<!-- mirror tmpfs: begin -->([^]*)<!-- mirror tmpfs: end -->/.exec(page) ??
    [];
  deepEqual(own.split("\n").filter((line) => /^\||about/.test(line) && !line.includes("---")), [
    "about tmpfs",
    "| without an application | unit, better | psma | A | ratio (spread) |",
    "| idle sync | IOPS, higher | 2,000 | 1,000 | **2.00×** (0.25) |",
    "| 4k QD32 | unit, better | psma | B | ratio (spread) |",
    "| time to ready | IOPS, higher | 2,000 | 1,000 | **2.00×** (0.25) |",
    "| sync: p99 | IOPS, higher | 3,000 | 1,000 | **3.00×** (0.25) |",
    "| 4k at 10,000 IOPS | unit, better | psma | B | ratio (spread) |",
    "| sync: IOPS kept | IOPS, higher | 3,000 | 1,000 | **3.00×** (0.25) |",
    "| 4k at 10,000 IOPS, in turns | unit, better | psma | paused | ratio (spread) |",
    "| p99 | IOPS, higher | 2,000 | 1,000 | **2.00×** (0.25) |",
  ]);
});
