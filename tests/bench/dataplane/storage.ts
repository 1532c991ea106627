/** Where the served files lie. */
export const STORAGES = ["tmpfs", "disk"] as const;
export type Storage = typeof STORAGES[number];

/** Another folder for the disk's file: it must not be a tmpfs. */
const DISK_VARIABLE = "PSMA_BENCH_DISK";

/** An existing folder on that storage. @throws {Error} when it is a storage of the other kind. */
export function folderOf(storage: Storage): string {
  const path = storage === "tmpfs" ? "/dev/shm" : Deno.env.get(DISK_VARIABLE) ?? "/var/tmp";
  const { type } = fileSystemOf(path);
  if ((type === "tmpfs") === (storage === "tmpfs")) return path;
  throw new Error(`Cannot use ${path} as ${storage}: it is ${type}; name one in ${DISK_VARIABLE}`);
}

/** The file system that a path lies on: `{ type: "ext4", source: "/dev/vda" }`. */
export function fileSystemOf(path: string): { type: string; source: string } {
  const { stdout } = new Deno.Command("findmnt", {
    args: ["--noheadings", "--output", "FSTYPE,SOURCE", "--target", path],
  }).outputSync();
  const [type = "", source = ""] = new TextDecoder().decode(stdout).trim().split(/\s+/);
  return { type, source };
}
