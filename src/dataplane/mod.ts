/** The data plane as the main thread sees it: a handle and plain messages. */
export type { Attachment, AttachVolume } from "./attachment/attaching.ts";
export * from "./attachment/attachment.ts";
export { type HostFinding, probeHost } from "./doctor.ts";
export * from "./handle.ts";
export * from "./host/file_owners.ts";
export { growthFault, type HostFault } from "./host/host.ts";
export * from "./messages.ts";
export { makePrivateDirectory } from "./private_directory.ts";
export { notifyServiceManager } from "./service_manager.ts";
export { serveHostTask } from "./host/tasks.ts";
export { tlsFilesFaults } from "./tls/files_faults.ts";
export { type NbdReach, type NbdTls, reachFault } from "./tls/reach.ts";
