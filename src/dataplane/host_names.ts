/**
 * Addresses of hosts by name, as the whole system sees them (/etc/hosts, then DNS). Asked on the main thread:
 * the data-plane thread must not block, and the runtime's own tasks do not run there.
 */
import { lookup } from "node:dns/promises";
import { PsmaError } from "../core/mod.ts";

/** IP addresses of a host, the system's order of preference. @throws {PsmaError} store/unreachable */
export async function addressesOf(host: string): Promise<string[]> {
  try {
    return (await lookup(host, { all: true })).map(({ address }) => address);
  } catch (cause) {
    throw new PsmaError("store/unreachable", `Cannot find host ${host}: its name has no address`, {
      hint: `getent hosts ${host} shows what this machine knows of it.`,
      cause,
    });
  }
}
