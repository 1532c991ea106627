/** What a configuration that is right asks for and this process cannot do on this machine. */
import {
  frontendFault,
  frontendHint,
  growthFault,
  type HostFault,
  tlsFilesFaults,
} from "../dataplane/mod.ts";
import type { AgentConfig } from "./config.ts";
import type { VolumeConfig } from "./config_volume.ts";
import { growthWarning } from "./growth.ts";

export interface VolumeWarning {
  /** Of the event that tells it. */
  readonly type: "volume.cannot-attach" | "volume.cannot-grow";
  readonly volume: string;
  /** One sentence and what to do. */
  readonly message: string;
}

/** How this machine is asked; for tests. */
export interface MachineFaults {
  /** Of growing a type of file system. */
  readonly growth: (type: string) => string | undefined;
  readonly frontend: (volume: VolumeConfig) => HostFault | undefined;
}

const THIS_MACHINE: MachineFaults = { growth: growthFault, frontend: frontendFault };

/** All of them, a sentence and what to do each. Looks and tries, changes nothing. */
export function configWarnings(config: Pick<AgentConfig, "volumes" | "nbd">): readonly string[] {
  const { nbd } = config;
  const tls = nbd === null ? [] : tlsFilesFaults(nbd.tls);
  return [
    ...tls.map((fault) => `nbd.tls: ${fault}`),
    ...volumeWarnings(config).map(({ message }) => message),
  ];
}

/** `frontend: auto` is no reason to warn: it takes what there is. */
export function volumeWarnings(
  { volumes }: Pick<AgentConfig, "volumes">,
  faults: MachineFaults = THIS_MACHINE,
): readonly VolumeWarning[] {
  return Object.values(volumes).flatMap((config): VolumeWarning[] => {
    const { name: volume } = config;
    const attach = frontendWarning(config, faults);
    const grow = growthWarning(config, faults.growth);
    return [
      ...(attach === undefined
        ? []
        : [{ type: "volume.cannot-attach", volume, message: attach } as const]),
      ...(grow === undefined
        ? []
        : [{ type: "volume.cannot-grow", volume, message: grow } as const]),
    ];
  });
}

function frontendWarning(volume: VolumeConfig, { frontend }: MachineFaults): string | undefined {
  if (volume.frontend === "auto") return undefined;
  const fault = frontend(volume);
  if (fault === undefined) return undefined;
  const hint = frontendHint(volume.frontend, fault.advice);
  return `Cannot attach ${volume.name}: ${fault.why}. ${hint}`;
}
