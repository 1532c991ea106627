/** Terms of a mirror in a test: no ceiling, rounds without a pause worth waiting for. */
import type { MirrorTerms } from "../../src/volume/mod.ts";

export function mirrorTerms(terms: Partial<MirrorTerms> = {}): MirrorTerms {
  return {
    max_rate_bytes_per_s: null,
    min_rate_bytes_per_s: 0,
    write_through_timeout_ms: 2000,
    resync_interval_ms: 20,
    durability: "power",
    ...terms,
  };
}
