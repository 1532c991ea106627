/**
 * Stream sockets: Unix and TCP, to listen on and to connect from. Only calls that return at once;
 * accept, connect, send and receive are the ring's.
 */
import { PsmaError } from "../core/mod.ts";
import { errno, libc, sysError } from "./libc.ts";

const AF_UNIX = 1, AF_INET = 2, AF_INET6 = 10;
const SOCK_STREAM_CLOEXEC = 1 | 0o2000000;
const SOL_SOCKET = 1, IPPROTO_TCP = 6;
const SO_REUSEADDR = 2, SO_SNDBUF = 7, SO_KEEPALIVE = 9, SO_SNDBUFFORCE = 32;
const SEND_BUFFER_BYTES = 4 << 20;
const TCP_NODELAY = 1, TCP_KEEPIDLE = 4, TCP_KEEPINTVL = 5, TCP_KEEPCNT = 6, TCP_USER_TIMEOUT = 18;
const SHUT_RDWR = 2;
const EADDRINUSE = 98, ECONNREFUSED = 111;
const UNIX_PATH_BYTES_MAX = 107;
/** Who finds it full on a Unix socket is refused at once, not made to wait; the kernel takes less where it must. */
const BACKLOG = 1024;

/** Where a stream socket lives. */
export type SocketAddress = { readonly path: string } | {
  readonly host: string;
  readonly port: number;
};

/** An address as the kernel takes it. */
export interface Sockaddr {
  readonly family: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * Turns an address into the kernel's form. Hosts are IP literals or `localhost`: names are resolved
 * before they come here, because resolving may block.
 * @throws {PsmaError} usage/socket-path, usage/host
 */
export function sockaddrOf(address: SocketAddress): Sockaddr {
  if ("path" in address) return unixSockaddr(address.path);
  const host = address.host === "localhost" ? "127.0.0.1" : address.host;
  const v4 = parseIpv4(host);
  if (v4) {
    const bytes = new Uint8Array(16);
    bytes.set(v4, 4);
    return inet(AF_INET, bytes, address.port);
  }
  const v6 = parseIpv6(host);
  if (v6) {
    const bytes = new Uint8Array(28);
    bytes.set(v6, 8);
    return inet(AF_INET6, bytes, address.port);
  }
  throw new PsmaError("usage/host", `Cannot use host ${address.host}: it is not an IP address`, {
    hint: "Give an IPv4 or IPv6 address, or localhost.",
  });
}

function unixSockaddr(path: string): Sockaddr {
  const name = new TextEncoder().encode(path);
  if (name.length === 0 || name.length > UNIX_PATH_BYTES_MAX) {
    throw new PsmaError(
      "usage/socket-path",
      `Cannot use socket ${path}: its path is not 1 to ${UNIX_PATH_BYTES_MAX} bytes long`,
      { hint: "Use a shorter directory." },
    );
  }
  const bytes = new Uint8Array(2 + name.length + 1);
  new DataView(bytes.buffer).setUint16(0, AF_UNIX, true);
  bytes.set(name, 2);
  return { family: AF_UNIX, bytes };
}

/** `sockaddr_in` and `sockaddr_in6` begin alike: family in host order, port in network order. */
function inet(family: number, bytes: Uint8Array<ArrayBuffer>, port: number): Sockaddr {
  if (!Number.isInteger(port) || port < 0 || port > 65_535) {
    throw new PsmaError("usage/port", `Cannot use port ${port}: it is not 0 to 65535`);
  }
  const view = new DataView(bytes.buffer);
  view.setUint16(0, family, true);
  view.setUint16(2, port, false);
  return { family, bytes };
}

/** @returns 4 bytes, or undefined when it is not a dotted quad. */
export function parseIpv4(text: string): Uint8Array | undefined {
  if (!/^\d{1,3}(\.\d{1,3}){3}$/.test(text)) return undefined;
  const parts = text.split(".").map(Number);
  return parts.every((part) => part <= 255) ? Uint8Array.from(parts) : undefined;
}

/** @returns 16 bytes, or undefined when it is not an IPv6 address. Zone names are not supported. */
export function parseIpv6(text: string): Uint8Array | undefined {
  const halves = text.split("::");
  if (!text.includes(":") || halves.length > 2) return undefined;
  const groups = (half: string | undefined) => half ? half.split(":") : [];
  const head = groups(halves[0]), tail = groups(halves[1]);
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const all = [...head, ...new Array<string>(missing).fill("0"), ...tail];
  if (!all.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group))) return undefined;
  const bytes = new Uint8Array(16), view = new DataView(bytes.buffer);
  all.forEach((group, i) => view.setUint16(i * 2, parseInt(group, 16)));
  return bytes;
}

/** @returns a descriptor, closed on exec. @throws {PsmaError} sys/... */
export function openSocket(family: number): number {
  const fd = libc().socket(family, SOCK_STREAM_CLOEXEC, 0);
  if (fd < 0) throw sysError("open a socket", errno());
  return fd;
}

/** A listening socket and where it listens; `port` is the real one when 0 was asked for. */
export interface Listening {
  readonly fd: number;
  readonly address: SocketAddress;
}

/**
 * Listens. A Unix socket's file that nobody answers on is left from a process that died: it is replaced.
 * @throws {PsmaError} state/address-in-use, sys/...
 */
export function listenSocket(address: SocketAddress): Listening {
  const where = sockaddrOf(address);
  const fd = openSocket(where.family);
  try {
    if (where.family !== AF_UNIX) setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    let result = libc().bind(fd, where.bytes, where.bytes.length);
    if (result < 0 && errno() === EADDRINUSE && "path" in address && isStale(address.path, where)) {
      Deno.removeSync(address.path);
      result = libc().bind(fd, where.bytes, where.bytes.length);
    }
    if (result < 0) throw bindError(address, errno());
    if (libc().listen(fd, BACKLOG) < 0) throw bindError(address, errno());
    return { fd, address: "path" in address ? address : { ...address, port: boundPort(fd) } };
  } catch (error) {
    libc().close(fd);
    throw error;
  }
}

/** A file that is no socket refuses connections too, and is someone's. */
function isStale(path: string, where: Sockaddr): boolean {
  if (!Deno.lstatSync(path).isSocket) return false;
  const fd = openSocket(where.family);
  const refused = libc().connect(fd, where.bytes, where.bytes.length) < 0 &&
    errno() === ECONNREFUSED;
  libc().close(fd);
  return refused;
}

function bindError(address: SocketAddress, code: number): PsmaError {
  const text = addressText(address);
  if (code !== EADDRINUSE) return sysError(`listen on ${text}`, code);
  return new PsmaError("state/address-in-use", `Cannot listen on ${text}: address is in use`, {
    hint: "Stop the other process, or choose another address.",
  });
}

function boundPort(fd: number): number {
  const bytes = new Uint8Array(28), length = new Uint8Array(Uint32Array.of(bytes.length).buffer);
  if (libc().getsockname(fd, bytes, length) < 0) throw sysError("ask for a port", errno());
  return new DataView(bytes.buffer).getUint16(2, false);
}

/** `unix:/path` or `host:port`, with brackets around IPv6. */
export function addressText(address: SocketAddress): string {
  if ("path" in address) return `unix:${address.path}`;
  return address.host.includes(":")
    ? `[${address.host}]:${address.port}`
    : `${address.host}:${address.port}`;
}

/**
 * Fits a connected stream socket for requests and bulk data. Over TCP small messages leave at once instead of
 * waiting for more, and a peer that is gone without a word is noticed within `deadMs`. A Unix socket may send so
 * much before the peer has read it that large pieces leave whole; TCP sizes its buffers by itself.
 */
export function tuneSocket(fd: number, isUnix: boolean, deadMs: number): void {
  if (isUnix) return setSendBuffer(fd, SEND_BUFFER_BYTES);
  setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  noticeDeadPeer(fd, deadMs);
}

/** Beyond `net.core.wmem_max` it needs CAP_NET_ADMIN; else less is given. */
function setSendBuffer(fd: number, bytes: number) {
  setOption(fd, SOL_SOCKET, SO_SNDBUF, bytes);
  setOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, bytes);
}

function noticeDeadPeer(fd: number, deadMs: number) {
  const interval = Math.max(1, Math.floor(deadMs / 4000));
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  setOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, interval);
  setOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, interval);
  setOption(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  setOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, deadMs);
}

function setOption(fd: number, level: number, option: number, value: number) {
  libc().setsockopt(fd, level, option, new Uint8Array(Int32Array.of(value).buffer), 4);
}

/** Ends both directions: what waits on the socket completes, and nothing more is read or sent. */
export function shutdownSocket(fd: number): void {
  libc().shutdown(fd, SHUT_RDWR);
}
