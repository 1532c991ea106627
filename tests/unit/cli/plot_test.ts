/** Tables, sparklines, bars and charts: what a person sees. */
import { equal } from "node:assert/strict";
import { bandChart, bar, sparkline } from "../../../src/cli/plot.ts";
import { formatPairs, formatTable } from "../../../src/cli/table.ts";
import { LiveText, painter } from "../../../src/cli/terminal.ts";
import { summarizeAround, summarizeBefore } from "../../../src/cli/demo/latencies.ts";

Deno.test("sparkline() spans the smallest and the largest", () => {
  equal(sparkline([0, 1, 2, 7]), "▁▂▃█");
  equal(sparkline([5, 5]), "▁▁");
  equal(sparkline([]), "");
});

Deno.test("bar() is as wide as asked, whatever the share", () => {
  equal(bar(0, 4), "····");
  equal(bar(1, 4), "████");
  equal(bar(7, 4), "████");
  equal(bar(0.5, 4), "██··");
  for (let share = 0; share <= 1; share += 0.01) equal([...bar(share, 10)].length, 10);
});

Deno.test("formatTable() aligns, and colours take no room", () => {
  const red = painter(true)("red", "x");
  equal(
    formatTable([{ title: "A" }, { title: "N", align: "right" }], [[red, "1"], ["yyy", "200"]]),
    `A      N\n${red}      1\nyyy  200`,
  );
  equal(formatPairs([["a", "1"], ["long", "2"]]), "a     1\nlong  2");
});

Deno.test("bandChart() draws the median in its band, and the limit across", () => {
  const bands = [{ low: 0, middle: 1, high: 2 }, { low: 0, middle: 2, high: 4 }];
  const chart = bandChart(bands, { width: 6, height: 5, limit: 3, format: String });
  equal(chart, "4 ┤  ░\n  ┤───\n  ┤░░●\n  ┤●●░\n0 ┤░░░");
});

Deno.test("LiveText draws over itself on a terminal and keeps quiet elsewhere", () => {
  for (const is_terminal of [true, false]) {
    let text = "";
    const live = new LiveText({
      is_terminal,
      write: (part) => void (text += part),
      columns: () => 80,
    });
    live.draw("a\nb");
    live.say("stays");
    live.clear();
    equal(text, is_terminal ? "a\nb\n\x1b[2A\x1b[0Jstays\na\nb\n\x1b[2A\x1b[0J" : "stays\n");
  }
});

Deno.test("latencies are summed up before the mirror and around the switch", () => {
  const latencies = Array.from({ length: 100 }, (_, at): [number, number] => [at * 100, at + 1]);
  equal(summarizeBefore(latencies, 10_000).p99_us, 99);
  equal(summarizeBefore(latencies, 500).max_us, 5);
  equal(summarizeAround(latencies, 5000).count, 41);
  equal(summarizeAround([], 0).max_us, 0);
});
