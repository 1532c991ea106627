/** Which frontend can serve a volume, judged before there is one. */
import { equal, match, throws } from "node:assert/strict";
import { frontendFault, needFrontend } from "../../../../src/dataplane/attachment/attachment.ts";
import type { PsmaError } from "../../../../src/core/mod.ts";
import { canServeFuse, canServeUblk } from "../../../../src/dataplane/host/host.ts";

const RAW = { device: false, filesystem: null } as const;
const MOUNTED = {
  device: false,
  filesystem: { type: "ext4", mount: "/none", grow: "auto" },
} as const;

Deno.test("frontendFault() asks the frontend that is named, and no other", () => {
  equal(frontendFault({ frontend: "ublk", ...RAW })?.why, canServeUblk()?.why);
  equal(frontendFault({ frontend: "fuse", ...RAW })?.why, canServeFuse()?.why);
  equal(frontendFault({ frontend: "nbd", ...RAW }), undefined);
});

Deno.test("frontendFault() finds fault with auto only where no frontend can", () => {
  equal(frontendFault({ frontend: "auto", ...RAW }), undefined);
  const none = canServeUblk() !== undefined && canServeFuse() !== undefined;
  equal(
    frontendFault({ frontend: "auto", ...MOUNTED })?.why,
    none ? canServeFuse()?.why : undefined,
  );
});

Deno.test("needFrontend() says what, why and the next step", () => {
  const asked = { frontend: "nbd", ...MOUNTED } as const;
  throws(() => needFrontend(asked, { verb: "create", volume: "data" }), (error: unknown) => {
    const { code, message, hint, meaning } = error as PsmaError;
    equal(code, "state/frontend");
    equal(meaning.exit, 4);
    match(message, /^Cannot create data: an NBD export has no device/);
    equal(hint, "For frontend: nbd, add device: true, or take ublk, fuse or auto.");
    return true;
  });
  needFrontend({ frontend: "nbd", ...RAW }, { verb: "create", volume: "data" });
});
