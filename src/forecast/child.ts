/** The forecaster's process as a program of its own: `deno run -A src/forecast/child.ts [--dir DIR]`. */
import { serveForecaster } from "./mod.ts";

if (import.meta.main) Deno.exit(await serveForecaster(Deno.args));
