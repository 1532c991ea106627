/** Which boot of this machine it is: devices, mounts and what the page cache holds do not outlive one. */

/** @returns the kernel's random id of this boot. */
export function bootId(): string {
  return Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
}
