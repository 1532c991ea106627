/** /proc/diskstats of several kernels. */
import { deepEqual, equal } from "node:assert/strict";
import { decodeDiskstats } from "../../../src/codec/diskstats.ts";

/** Linux 6.18, one virtio disk and one unused loop device. */
const MODERN =
  ` 254       0 vda 84238 27707 3828938 43280 9942 25256 1569784 13873 1 19056 58020 8808 51 ` +
  `335760 754 1310 110\n   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n`;

Deno.test("decodeDiskstats() reads 17 fields in bytes and milliseconds", () => {
  const [vda, loop0, ...more] = decodeDiskstats(MODERN);
  deepEqual(vda, {
    device: "vda",
    major: 254,
    minor: 0,
    reads: 84238,
    read_bytes: 3828938 * 512,
    read_ms: 43280,
    writes: 9942,
    write_bytes: 1569784 * 512,
    write_ms: 13873,
    in_flight: 1,
    busy_ms: 19056,
    weighted_ms: 58020,
    discards: 8808,
    discard_bytes: 335760 * 512,
    flushes: 1310,
    flush_ms: 110,
  });
  equal(loop0?.device, "loop0");
  equal(more.length, 0);
});

Deno.test("decodeDiskstats() reads the 11 fields of older kernels; what they lack is 0", () => {
  const [sda] = decodeDiskstats("   8  0 sda 20076 3 798556 75864 23 47 2530 248 0 98 249\n");
  equal(sda?.write_bytes, 2530 * 512);
  equal(sda?.weighted_ms, 249);
  equal(sda?.discards, 0);
  equal(sda?.flushes, 0);
});

Deno.test("decodeDiskstats() leaves out a line that is cut short, at every length", () => {
  const line = "   8  0 sda 20076 3 798556 75864 23 47 2530 248 0 98 249";
  const whole = line.lastIndexOf(" ") + 1; // With any digit of the last field it looks complete.
  for (let length = 0; length < whole; length++) {
    deepEqual(decodeDiskstats(line.slice(0, length)), []);
  }
  deepEqual(decodeDiskstats("8 0 sda a b c d e f g h i j k"), []);
});
