/** The configuration that the demo's agent runs with: short times, a small volume, a store next door. */

export interface DemoPlaces {
  readonly frontend: "fuse" | "nbd";
  readonly state_dir: string;
  readonly socket: string;
  readonly token_file: string;
  readonly volumes: string;
  readonly mount: string;
  readonly store_url: string;
  readonly store_token_file: string;
}

/** The name of the demo's volume. */
export const VOLUME = "data";
/** Large enough for xfs, small enough to fill in under a minute; over NBD there is nothing but data in it. */
const SIZES_MIB = { fuse: 512, nbd: 384 } as const;

/** @returns YAML as a person would write it. */
export function demoConfiguration(places: DemoPlaces): string {
  const filesystem = places.frontend === "nbd"
    ? ""
    : `    filesystem: { type: xfs, mount: ${places.mount} }\n`;
  return `# What \`psma demo\` runs with.
api: { listen: "unix:${places.socket}", token_file: ${places.token_file} }
state_dir: ${places.state_dir}
sampling: { interval: 250ms }
forecast: { horizon: 40s, interval: 3s, level: 0.95 }
stores:
  local: { type: embedded, path: ${places.volumes} }
  far: { type: psma, url: "${places.store_url}", token_file: ${places.store_token_file} }
volumes:
  ${VOLUME}:
    store: local
    size: ${SIZES_MIB[places.frontend]}MiB
    max_size: 4GiB
    frontend: ${places.frontend}
${filesystem}    mirror: { store: far, rpo: 2s }
    scale: { threshold: 80%, step: 50%, cooldown: 10m, debounce: 2, safety: 2s }
`;
}
