/** Layouts of include/uapi/linux/fiemap.h: sizes and places as the kernel's header has them. */
import { deepEqual, equal } from "node:assert/strict";
import { decodeFiemap, encodeFiemapRequest } from "../../../src/codec/mod.ts";

Deno.test("encodeFiemapRequest() asks for the rest of a file without syncing it", () => {
  const bytes = encodeFiemapRequest({ logical: 4096, extents: 3 });
  equal(bytes.length, 32 + 3 * 56);
  const view = new DataView(bytes.buffer);
  equal(view.getBigUint64(0, true), 4096n);
  equal(view.getBigUint64(8, true), 2n ** 64n - 1n - 4096n);
  deepEqual([view.getUint32(16, true), view.getUint32(24, true)], [0, 3]);
});

Deno.test("decodeFiemap() says of what is not on the device yet that it is nowhere", () => {
  const bytes = encodeFiemapRequest({ logical: 0, extents: 2 });
  const view = new DataView(bytes.buffer);
  view.setUint32(20, 2, true);
  for (const [index, flags] of [0x6, 0x1].entries()) {
    const from = 32 + index * 56;
    view.setBigUint64(from, BigInt(index * 4096), true);
    view.setBigUint64(from + 8, 65536n, true);
    view.setBigUint64(from + 16, 4096n, true);
    view.setUint32(from + 40, flags, true);
  }
  deepEqual(decodeFiemap(bytes), [
    { logical: 0, physical: -1, length: 4096, isLast: false },
    { logical: 4096, physical: 65536, length: 4096, isLast: true },
  ]);
});
