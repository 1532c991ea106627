/** Whether a file system can follow its volume: judged before anything moves. */
import { equal, match, throws } from "node:assert/strict";
import { parseConfig } from "../../../src/agent/config.ts";
import { growthObstacle, growthWarning, needGrowth } from "../../../src/agent/growth.ts";
import type { VolumeConfig } from "../../../src/agent/config_volume.ts";
import { VolumeUnit } from "../../../src/agent/volume_unit.ts";
import { growthFault } from "../../../src/dataplane/mod.ts";

const ALL = "Name:\tpsma\nCapEff:\t000001ffffffffff\n";
const WITHOUT_RESOURCE = "Name:\tpsma\nCapEff:\t000001fffeffffff\n";

function configOf(type: string, grow = "auto") {
  const { config } = parseConfig(
    `volumes: { data: { size: 1GiB, filesystem: { type: ${type}, mount: /m, grow: ${grow} } } }`,
    "/",
  );
  if (!config?.volumes["data"]) throw new Error("no such volume");
  return { unit: new VolumeUnit(config.volumes["data"], "/d") };
}

Deno.test("growthFault() asks for CAP_SYS_RESOURCE for ext4 alone", () => {
  equal(growthFault("ext4", ALL), undefined);
  match(growthFault("ext4", WITHOUT_RESOURCE) ?? "", /CAP_SYS_RESOURCE/);
  for (const type of ["xfs", "btrfs"]) equal(growthFault(type, WITHOUT_RESOURCE), undefined);
});

Deno.test("growthWarning() names the volume and what to do, unless the operator grows it", () => {
  const lacking = (type: string) => growthFault(type, WITHOUT_RESOURCE);
  const warning = (config: VolumeConfig, fault = lacking) => growthWarning(config, fault);
  match(
    warning(configOf("ext4").unit.config) ?? "",
    /^Cannot scale data: ext4 grows .*grow: never/,
  );
  equal(warning(configOf("ext4", "never").unit.config), undefined);
  equal(warning(configOf("xfs").unit.config), undefined);
  equal(warning(configOf("ext4").unit.config, (type) => growthFault(type, ALL)), undefined);
});

Deno.test("growthObstacle() and needGrowth() agree with what this process may do", () => {
  const { unit } = configOf("ext4");
  if (growthFault("ext4") === undefined) {
    equal(growthObstacle(unit), null);
    needGrowth(unit, "scale");
  } else {
    match(growthObstacle(unit) ?? "", /could not grow: ext4/);
    throws(() => needGrowth(unit, "scale"), { code: "sys/permission" });
  }
  const xfs = configOf("xfs").unit;
  equal(growthObstacle(xfs), null);
  xfs.grow_fault = "no room";
  match(growthObstacle(xfs) ?? "", /last growth has not reached the file system: no room/);
});
