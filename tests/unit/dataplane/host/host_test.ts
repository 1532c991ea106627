/** What a kernel's release says, and why a driver cannot be used. */
import { deepEqual, equal, match } from "node:assert/strict";
import {
  canServeFuse,
  canServeNbdDevice,
  canServeUblk,
  hasCapability,
  kernelSendsAgain,
} from "../../../../src/dataplane/host/host.ts";

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

Deno.test("what is not there is a fault of the machine, with the driver to load", () => {
  const faults = [
    [canServeUblk("/dev/none"), /^\/dev\/none is missing: the kernel's ublk/, /^modprobe ublk_drv/],
    [canServeNbdDevice("/sys/block/none"), /nbd driver is not loaded/, /^modprobe nbd/],
    [canServeFuse(["/dev/none"]), /^\/dev\/none does not open/, /^modprobe -a fuse loop/],
  ] as const;
  for (const [fault, why, advice] of faults) {
    equal(fault?.code, "state/frontend");
    match(fault?.why ?? "", why);
    match(fault?.advice ?? "", advice);
  }
});

Deno.test("what is there and may not be used is a fault of this process's rights", () => {
  const fault = canServeNbdDevice("/");
  if (hasCapability("CAP_SYS_ADMIN")) return equal(fault, undefined);
  equal(fault?.code, "sys/permission");
  match(fault?.advice ?? "", /^run as root/);
});
