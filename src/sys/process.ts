/** What a process says about itself to the kernel and to its service manager. */
import { cString, libc } from "./libc.ts";

const PR_SET_IO_FLUSHER = 57;
const AF_UNIX = 1, SOCK_DGRAM = 2, SOCK_CLOEXEC = 0o2000000;

/**
 * Memory reclaim of this thread must not wait for I/O that this thread serves. Needs CAP_SYS_RESOURCE;
 * without it nothing changes.
 */
export function setIoFlusher(): void {
  libc().prctl(PR_SET_IO_FLUSHER, 1n, 0n, 0n, 0n);
}

/** Sends text in one datagram to a Unix socket. @param sockaddr `struct sockaddr_un`. @returns whether it was sent. */
export function sendDatagram(sockaddr: Uint8Array<ArrayBuffer>, text: string): boolean {
  const fd = libc().socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  try {
    if (libc().connect(fd, sockaddr, sockaddr.length) !== 0) return false;
    const message = cString(text);
    return libc().write(fd, message, BigInt(message.length - 1)) >= 0n;
  } finally {
    libc().close(fd);
  }
}
