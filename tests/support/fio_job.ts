/** fio as an application that verifies every block it wrote, until it is told to stop. */
import { equal, ok } from "node:assert/strict";
import { start, type Started, waitUntil } from "./process.ts";

interface FioJob {
  readonly error: number;
  readonly write: { readonly total_ios: number };
  readonly read: { readonly total_ios: number };
}

/** Random direct writes, each block with its checksum, read back in batches, again and again. */
export function startVerifyingFio(args: readonly string[]): Started {
  return start("fio", [
    "--name=busy",
    "--ioengine=libaio",
    "--direct=1",
    "--rw=randwrite",
    "--bs=4k",
    "--iodepth=16",
    "--verify=crc32c",
    "--verify_backlog=256",
    "--verify_fatal=1",
    "--verify_state_save=0",
    "--time_based",
    "--runtime=3000",
    "--output-format=json",
    ...args,
  ]);
}

/** Stops it, and asserts that it saw neither an error nor a wrong block. @returns what it did. */
export async function endVerifyingFio(fio: Started): Promise<FioJob> {
  await fio.end("SIGINT");
  await fio.line(/^\}$/m);
  // What fio says about the signal stands around its JSON.
  const [json = ""] = /^\{$[^]*^\}$/m.exec(fio.output()) ?? [];
  ok(json, fio.output());
  const job: FioJob = JSON.parse(json).jobs[0];
  equal(job.error, 0, fio.output());
  return job;
}

/** @returns what the kernel counts as written to a block device since it is there. */
export function writtenBytes(device: string): number {
  const name = device.slice("/dev/".length);
  const fields = Deno.readTextFileSync(`/sys/block/${name}/stat`).trim().split(/\s+/);
  return Number(fields[6]) * 512;
}

/** Waits until a device has had so much more written to it. */
export async function untilWritten(device: string, bytes: number, fio: Started): Promise<void> {
  const from = writtenBytes(device);
  await waitUntil(() => writtenBytes(device) >= from + bytes, {
    what: () => `${bytes} more bytes on ${device}; fio: ${fio.output()}`,
  });
}
