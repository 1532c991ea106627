/** Seeds that must be well: some in the quick run, many in the full one, each half in a process of its own. */
import { simulateSeeds } from "./seeds.ts";

simulateSeeds({ first: 1, quick: 50, full: 1000 });
