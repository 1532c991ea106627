/** What volumes do now: counters, devices, file systems and pressure, as samples and as values. */
export * from "./counter_page.ts";
export * from "./pressure.ts";
export * from "./rates.ts";
export * from "./sampler.ts";
