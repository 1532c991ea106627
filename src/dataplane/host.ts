/** Which frontends this process may use on this machine. */

const CAP_SYS_ADMIN = 21n;

/** @returns why a volume cannot be a mounted file here; undefined when it can. */
export function canServeFuse(): string | undefined {
  for (const path of ["/dev/fuse", "/dev/loop-control"]) {
    try {
      Deno.openSync(path, { read: true, write: true }).close();
    } catch {
      return `${path} does not open`;
    }
  }
  const match = /^CapEff:\s*([0-9a-f]+)$/m.exec(Deno.readTextFileSync("/proc/self/status"));
  const effective = BigInt(`0x${match?.[1] ?? "0"}`);
  return (effective >> CAP_SYS_ADMIN & 1n) === 1n ? undefined : "CAP_SYS_ADMIN is not in force";
}
