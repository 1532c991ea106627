/** What a configuration asks for and the machine cannot do: told before anything is tried. */
import { deepEqual, equal, match } from "node:assert/strict";
import { parseConfig } from "../../../src/agent/config.ts";
import { configWarnings, volumeWarnings } from "../../../src/agent/config_warnings.ts";
import type { VolumeConfig } from "../../../src/agent/config_volume.ts";
import { need } from "../../../src/core/mod.ts";
import { tempDir } from "../../support/temp.ts";

const FS = "filesystem: { type: ext4, mount: /m }";

function configOf(volume: string, more = "") {
  const { config, problems } = parseConfig(
    `volumes: { data: { size: 1GiB, ${volume} } }\n${more}`,
    "/",
  );
  deepEqual(problems, []);
  return need(config, "the configuration");
}

/** A machine where no frontend has its driver, and no file system can be grown. */
const BARE = {
  growth: (type: string) => `${type} does not grow`,
  frontend: ({ frontend, device }: VolumeConfig) =>
    frontend === "nbd" && !device
      ? undefined
      : { code: "state/frontend", why: "there is no driver", advice: "load it" } as const,
};

Deno.test("volumeWarnings() tells of every frontend that is named and has no driver", () => {
  for (const named of ["frontend: ublk", "frontend: fuse", "frontend: nbd, device: true"]) {
    const [warning, ...more] = volumeWarnings(configOf(named), BARE);
    deepEqual(more, []);
    equal(warning?.type, "volume.cannot-attach");
    equal(warning?.volume, "data");
    const frontend = named.split(",")[0];
    equal(
      warning?.message,
      `Cannot attach data: there is no driver. For ${frontend}, load it.`,
    );
  }
  for (const fine of ["frontend: auto", "frontend: nbd"]) {
    deepEqual(volumeWarnings(configOf(fine), BARE), []);
  }
});

Deno.test("volumeWarnings() tells of a file system that could not grow, as another event", () => {
  const warnings = volumeWarnings(configOf(`frontend: ublk, ${FS}`), BARE);
  deepEqual(warnings.map(({ type }) => type), ["volume.cannot-attach", "volume.cannot-grow"]);
  match(warnings[1]?.message ?? "", /^Cannot scale data: ext4 does not grow\. Run the agent with/);
});

Deno.test("configWarnings() tells of certificate files that are not there or hold none", () => {
  using temp = tempDir();
  const nbd = `nbd: { listen: 127.0.0.1:10809, tls: { cert_file: ${temp.file("cert")}, ` +
    `key_file: ${temp.file("key")} } }`;
  const config = configOf("frontend: nbd", nbd);
  deepEqual(configWarnings(config), [
    `nbd.tls: Cannot use ${temp.file("cert")}: there is no such file`,
  ]);
  Deno.writeTextFileSync(temp.file("cert"), "none");
  deepEqual(configWarnings(config), [
    `nbd.tls: Cannot use ${temp.file("key")}: there is no such file`,
  ]);
  Deno.writeTextFileSync(temp.file("key"), "none");
  match(configWarnings(config).join(), /cert: it holds no certificate/);
  deepEqual(configWarnings(configOf("frontend: nbd")), []);
});
