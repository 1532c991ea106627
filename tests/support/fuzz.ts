/** How many cases a fuzz test tries: enough for every run, and more where `PSMA_FUZZ_RUNS` asks for a long one. */
export const fuzzRuns = Number(Deno.env.get("PSMA_FUZZ_RUNS") ?? 10_000);
