/** Waiting for devices: who uses a served one, and what they wrote to it; for host tasks only, which may wait for it. */
import { systemClock } from "../../core/mod.ts";
import { blockDeviceUsers } from "../../sys/mod.ts";

const TRIES = 40, EVERY_MS = 50;

/** Asks for two seconds, because what the kernel or a device manager does to a device lasts a moment. */
export async function soon(isSo: () => boolean | Promise<boolean>): Promise<boolean> {
  for (let tries = 0; tries < TRIES; tries++) {
    if (await isSo()) return true;
    await systemClock.sleep(EVERY_MS);
  }
  return await isSo();
}

/** @returns its users by name. Device managers open a device for a moment when it changes: they are none. */
export async function lastingUsers(device: string): Promise<string[]> {
  let users: string[] = [];
  await soon(() => (users = blockDeviceUsers(device)).length === 0);
  return users;
}

/** Writes what was written to the device itself and may still be in the page cache: it fails once it is gone. */
export function syncDevice(device: string): void {
  using opened = Deno.openSync(device);
  opened.syncSync();
}
