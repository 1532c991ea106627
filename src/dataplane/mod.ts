/** The data plane as the main thread sees it: a handle and plain messages. */
export * from "./handle.ts";
export * from "./messages.ts";
