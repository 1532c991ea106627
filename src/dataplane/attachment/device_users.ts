/** Who uses a served block device, and what they wrote to it; for host tasks only, which may wait for it. */
import { systemClock } from "../../core/mod.ts";
import { blockDeviceUsers } from "../../sys/mod.ts";

const FREE_TRIES = 40, FREE_EVERY_MS = 50;

/** @returns its users by name. Device managers open a device for a moment when it changes: they are none. */
export async function lastingUsers(device: string): Promise<string[]> {
  let users = blockDeviceUsers(device);
  for (let tries = 0; tries < FREE_TRIES && users.length > 0; tries++) {
    await systemClock.sleep(FREE_EVERY_MS);
    users = blockDeviceUsers(device);
  }
  return users;
}

/** Writes what was written to the device itself and may still be in the page cache: it fails once it is gone. */
export function syncDevice(device: string): void {
  using opened = Deno.openSync(device);
  opened.syncSync();
}
