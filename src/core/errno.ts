/** Words for the errno values of Linux that users meet. */

const ERRNO_NAMES: Readonly<Record<number, string>> = {
  1: "EPERM: not permitted",
  2: "ENOENT: no such file",
  4: "EINTR: interrupted",
  5: "EIO: input/output error",
  6: "ENXIO: no such device",
  9: "EBADF: bad descriptor",
  11: "EAGAIN: try again",
  12: "ENOMEM: out of memory",
  13: "EACCES: permission denied",
  16: "EBUSY: device or resource busy",
  17: "EEXIST: exists already",
  19: "ENODEV: no such device",
  22: "EINVAL: invalid argument",
  25: "ENOTTY: not supported by this device",
  27: "EFBIG: file too large",
  28: "ENOSPC: no space left",
  30: "EROFS: read-only file system",
  38: "ENOSYS: not in this kernel",
  95: "EOPNOTSUPP: not supported",
  98: "EADDRINUSE: address in use",
  104: "ECONNRESET: connection reset",
  107: "ENOTCONN: not connected",
  110: "ETIMEDOUT: timed out",
  111: "ECONNREFUSED: connection refused",
  125: "ECANCELED: cancelled",
};

/** `EIO: input/output error`, or the number where we have no words. */
export function errnoText(code: number): string {
  return ERRNO_NAMES[Math.abs(code)] ?? `errno ${Math.abs(code)}`;
}
