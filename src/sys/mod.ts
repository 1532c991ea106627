/** The only room that calls the kernel: io_uring, memory, files, mounts, loop devices. */
export * from "./files.ts";
export * from "./libc.ts";
export * from "./memory.ts";
export * from "./reactor.ts";
export * from "./ring.ts";
