/** `/proc/locks`: who holds which file lock. proc_locks(5). */

const LINE = /^\d+: FLOCK\s+\S+\s+\S+\s+(-?\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) /;

/**
 * The process that has a file by flock, and does not merely wait for it.
 * @param device as stat tells it. @returns undefined when nobody is listed, or only one of another namespace.
 */
export function decodeClaims(text: string, device: number, inode: number): number | undefined {
  for (const line of text.split("\n")) {
    const match = LINE.exec(line);
    if (!match) continue;
    const [pid = 0, inodeListed] = [Number(match[1]), Number(match[4])];
    const major = parseInt(match[2] ?? "", 16), minor = parseInt(match[3] ?? "", 16);
    if (inodeListed !== inode || major !== majorOf(device) || minor !== minorOf(device)) continue;
    if (pid > 0) return pid;
  }
  return undefined;
}

/** sys/sysmacros.h: a 64-bit device number's parts. */
function majorOf(device: number): number {
  const number = BigInt(device);
  return Number(((number >> 8n) & 0xfffn) | ((number >> 32n) & 0xfffff000n));
}

function minorOf(device: number): number {
  const number = BigInt(device);
  return Number((number & 0xffn) | ((number >> 12n) & 0xffffff00n));
}
