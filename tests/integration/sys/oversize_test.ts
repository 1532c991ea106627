/** Devices that are larger than their volume: a file system has the volume's size on them, and grows inside. */
import { equal, ok } from "node:assert/strict";
import {
  detectFilesystem,
  formatFilesystem,
  growFilesystem,
  mountFilesystem,
  statFilesystem,
  unmountFilesystem,
} from "../../../src/sys/mod.ts";
import { attachedLoop, sparseFile } from "../../support/attached_loop.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const MIB = 1 << 20;
const DEVICE_BYTES = 1024 * MIB, VOLUME_BYTES = 384 * MIB, GROWN_BYTES = 640 * MIB;
const TYPES = [
  { type: "xfs", capabilities: [] },
  { type: "btrfs", capabilities: [] },
  { type: "ext4", capabilities: ["CAP_SYS_RESOURCE"] },
] as const;

for (const { type, capabilities } of TYPES) {
  Deno.test({
    name: `${type} is made and grown to its volume's size on a larger device`,
    ...requires({
      root: true,
      loop: true,
      filesystems: [type],
      commands: [`mkfs.${type}`],
      capabilities: [...capabilities],
    }),
    async fn() {
      using temp = tempDir();
      const path = sparseFile(temp.file("image"), DEVICE_BYTES);
      await using loop = await attachedLoop({ path });
      const { device } = loop, at = temp.file("mounted");
      await formatFilesystem(device, type, { sizeBytes: VOLUME_BYTES });
      await mountFilesystem({ device, at, type });
      try {
        isNearly((await statFilesystem(at)).total_bytes, VOLUME_BYTES);
        await growFilesystem(at, { sizeBytes: GROWN_BYTES });
        isNearly((await statFilesystem(at)).total_bytes, GROWN_BYTES);
        await growFilesystem(at, { sizeBytes: GROWN_BYTES });
        isNearly((await statFilesystem(at)).total_bytes, GROWN_BYTES);
      } finally {
        unmountFilesystem(at);
      }
    },
  });
}

/** File systems keep some of it for themselves. */
function isNearly(bytes: number, expected: number): void {
  ok(bytes <= expected && bytes > expected * 0.8, `${bytes} of ${expected} bytes`);
}

Deno.test("detectFilesystem() looks for labels at the volume's end, wherever the device ends", async () => {
  using temp = tempDir();
  const path = sparseFile(temp.file("image"), 8 * MIB);
  {
    using file = Deno.openSync(path, { write: true });
    file.seekSync(4 * MIB - 512, Deno.SeekMode.Start);
    file.writeSync(new TextEncoder().encode("LABEL"));
  }
  equal(await detectFilesystem(path), "blank");
  equal(await detectFilesystem(path, { sizeBytes: 4 * MIB }), "other");
  equal(await detectFilesystem(path, { sizeBytes: 3 * MIB }), "blank");
});
