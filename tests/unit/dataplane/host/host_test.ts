/** What a kernel's release says, and why a driver cannot be used. */
import { deepEqual, match } from "node:assert/strict";
import { canServeUblk, kernelSendsAgain } from "../../../../src/dataplane/host/host.ts";

Deno.test("kernelSendsAgain() from Linux 6.9 on, however the release is written", () => {
  const releases = [
    "5.19.0",
    "6.1.0-50-amd64",
    "6.8.12",
    "6.9.0",
    "6.12.95+deb12-cloud",
    "7.0-rc1",
  ];
  deepEqual(releases.map((release) => kernelSendsAgain(release)), [
    false,
    false,
    false,
    true,
    true,
    true,
  ]);
});

Deno.test("canServeUblk() says that the driver is not there", () => {
  match(canServeUblk("/dev/none") ?? "", /^\/dev\/none is missing: the kernel's ublk driver/);
});
