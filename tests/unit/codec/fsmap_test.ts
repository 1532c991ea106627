/** Layouts of include/uapi/linux/fsmap.h: sizes and places as the kernel's header has them. */
import { deepEqual, equal } from "node:assert/strict";
import { decodeFsmap, encodeFsmapRequest } from "../../../src/codec/mod.ts";

Deno.test("encodeFsmapRequest() asks for one device's range, whoever owns it", () => {
  const bytes = encodeFsmapRequest({ device: 0x701, at: 4096, end: 8192, records: 2 });
  equal(bytes.length, 192 + 2 * 64);
  const view = new DataView(bytes.buffer);
  equal(view.getUint32(8, true), 2);
  deepEqual([view.getUint32(64, true), view.getBigUint64(72, true)], [0x701, 4096n]);
  deepEqual([view.getUint32(128, true), view.getBigUint64(136, true)], [0x701, 8191n]);
  equal(view.getBigUint64(144, true), 2n ** 64n - 1n);
});

Deno.test("decodeFsmap() tells inodes, free space and the file system's own apart", () => {
  const bytes = encodeFsmapRequest({ device: 1, at: 0, end: 1, records: 4 });
  const view = new DataView(bytes.buffer);
  const owners = [[0, 131n], [0x10, 1n], [0x10, (0x58n << 32n) | 2n], [0x30, 2n]] as const;
  view.setUint32(12, 9, true); // More than there is room for: the kernel counts, we read what is there.
  for (const [index, [flags, owner]] of owners.entries()) {
    const from = 192 + index * 64;
    view.setUint32(from + 4, flags, true);
    view.setBigUint64(from + 8, BigInt(index * 100), true);
    view.setBigUint64(from + 16, owner, true);
    view.setBigUint64(from + 32, 100n, true);
  }
  deepEqual(decodeFsmap(bytes), [
    { at: 0, length: 100, owner: 131, isLast: false },
    { at: 100, length: 100, owner: "free", isLast: false },
    { at: 200, length: 100, owner: "metadata", isLast: false },
    { at: 300, length: 100, owner: "unknown", isLast: true },
  ]);
});
