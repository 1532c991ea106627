/** The only room that calls the kernel: io_uring, memory, files, mounts, loop devices. */
export * from "./block_device.ts";
export * from "./descriptor.ts";
export * from "./files.ts";
export * from "./gather.ts";
export { cString, sysError } from "./libc.ts";
export * from "./fuse_device.ts";
export * from "./process.ts";
export * from "./memory.ts";
export * from "./reactor.ts";
export * from "./ring.ts";
export * from "./sockets.ts";
export * from "./attempt.ts";
export * from "./detect.ts";
export * from "./filesystem.ts";
export * from "./loop.ts";
export * from "./mount.ts";
export * from "./stale.ts";
export * from "./mountinfo.ts";
