/** Taking a served raw device away while a program has it open: refused, or forced with its bytes written. */
import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import { need, silentLog } from "../../../src/core/mod.ts";
import {
  type Attachment,
  attachVolume,
  DataPlane,
  detachAttachment,
} from "../../../src/dataplane/mod.ts";
import { findLoops, removeStale } from "../../../src/sys/mod.ts";
import { thinPlacement } from "../../support/planes.ts";
import { start } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const SIZE_BYTES = 8 << 20;
const needs = requires({ root: true, io_uring: true, fuse: true, loop: true, commands: ["sh"] });

interface Served {
  readonly plane: DataPlane;
  readonly attachment: Attachment;
  readonly device: string;
  readonly image: string;
}

async function withServed(use: (served: Served) => Promise<void>): Promise<void> {
  using temp = tempDir();
  const directory = temp.file("volume"), image = temp.file("image"), volume = "raw";
  Deno.mkdirSync(directory);
  const plane = await DataPlane.start({ log: silentLog });
  try {
    const initial = thinPlacement(image, SIZE_BYTES);
    await plane.command("openVolume", {
      name: volume,
      directory,
      max_size_bytes: SIZE_BYTES,
      initial,
    });
    const attachment = await attachVolume({
      plane,
      volume,
      frontend: "fuse",
      device: false,
      directory,
      filesystem: null,
      queueDepth: 64,
      log: silentLog,
    });
    const [exported] = attachment.exports;
    ok(exported?.frontend === "fuse");
    await use({ plane, attachment, device: need(exported.device, "a device"), image });
    deepEqual(await findLoops(`${directory}/device`), []);
  } finally {
    await plane.stop();
    await removeStale(`${directory}/device`);
  }
}

Deno.test({
  name: "a raw FUSE device in use is not detached, and stays when its user has gone",
  ...needs,
  async fn() {
    await withServed(async ({ plane, attachment, device }) => {
      {
        await using program = start("sh", ["-c", `exec 3<${device}; echo open; exec sleep 60`]);
        await program.line(/^open$/m);
        await rejects(detachAttachment({ plane, attachment, log: silentLog, force: false }), {
          code: "state/busy",
          message: /sleep \(process/,
        });
      }
      const opened = Deno.openSync(device);
      equal(opened.readSync(new Uint8Array(512)), 512);
      opened.close();
      await detachAttachment({ plane, attachment, log: silentLog, force: false });
    });
  },
});

Deno.test({
  name: "a raw FUSE device that is detached by force has every byte written to it until then",
  ...needs,
  async fn() {
    await withServed(async ({ plane, attachment, device, image }) => {
      const script = `exec 3<>${device}; printf written >&3; echo open; exec sleep 60`;
      await using program = start("sh", ["-c", script]);
      await program.line(/^open$/m);
      await detachAttachment({ plane, attachment, log: silentLog, force: true });
      using file = Deno.openSync(image);
      const bytes = new Uint8Array(7);
      file.readSync(bytes);
      equal(new TextDecoder().decode(bytes), "written");
      await program.end("SIGKILL");
    });
  },
});
