/**
 * What the kernel's NBD client is told and tells over generic netlink.
 * Source: include/uapi/linux/nbd-netlink.h, Linux 5.14 and later (the backend's identifier).
 */
import {
  attributesIn,
  decodeAttributes,
  nestedAttribute,
  type NetlinkAttribute,
  numberIn,
  textAttribute,
  textIn,
  u32Attribute,
  u64Attribute,
} from "./netlink.ts";

export const NBD_FAMILY = { name: "nbd", version: 1 } as const;
export const NBD_NETLINK = { connect: 1, disconnect: 2, reconfigure: 3, status: 5 } as const;

const ATTRIBUTE = {
  index: 1,
  sizeBytes: 2,
  blockBytes: 3,
  timeout: 4,
  serverFlags: 5,
  sockets: 7,
  deadConnectionTimeout: 8,
  deviceList: 9,
  backend: 10,
} as const;
const SOCKET_ITEM = 1, SOCKET_FD = 1;
const DEVICE_ITEM = 1, DEVICE_INDEX = 1, DEVICE_CONNECTED = 2;

/** A device's configuration, or the part of it that a command sets. */
export interface NbdDeviceConfig {
  /** Left out of a connect: the kernel takes a free device, or makes one. */
  readonly index?: number;
  readonly sizeBytes?: number;
  readonly blockBytes?: number;
  /** Seconds after which a connection that does not answer a request is given up; 0: never. */
  readonly timeout_s?: number;
  /** NBD_FLAG bits. */
  readonly serverFlags?: number;
  /** Seconds for which requests wait for a new connection when there is none. */
  readonly deadConnectionTimeout_s?: number;
  /** Descriptors of connected sockets in the sender's process. */
  readonly sockets?: readonly number[];
  /** Who the server is: a reconfiguration must name the same. */
  readonly backend?: string;
}

/** One line of a status. */
export interface NbdDeviceStatus {
  readonly index: number;
  readonly connected: boolean;
}

/** The attributes of connect, reconfigure and disconnect. */
export function encodeNbdConfig(config: NbdDeviceConfig): NetlinkAttribute[] {
  const u64 = (type: number, value: number | undefined) =>
    value === undefined ? [] : [u64Attribute(type, value)];
  const { index, sockets, backend } = config;
  return [
    ...(index === undefined ? [] : [u32Attribute(ATTRIBUTE.index, index)]),
    ...u64(ATTRIBUTE.sizeBytes, config.sizeBytes),
    ...u64(ATTRIBUTE.blockBytes, config.blockBytes),
    ...u64(ATTRIBUTE.timeout, config.timeout_s),
    ...u64(ATTRIBUTE.serverFlags, config.serverFlags),
    ...u64(ATTRIBUTE.deadConnectionTimeout, config.deadConnectionTimeout_s),
    ...(backend === undefined ? [] : [textAttribute(ATTRIBUTE.backend, backend)]),
    ...(sockets === undefined ? [] : [nestedAttribute(ATTRIBUTE.sockets, sockets.map(socketItem))]),
  ];
}

function socketItem(fd: number): NetlinkAttribute {
  return nestedAttribute(SOCKET_ITEM, [u32Attribute(SOCKET_FD, fd)]);
}

/** As the kernel answers a connect (with the index alone), and as `encodeNbdConfig` wrote it. */
export function decodeNbdConfig(attributes: readonly NetlinkAttribute[]): NbdDeviceConfig {
  const number = (type: number) => numberIn(attributes, type);
  const sockets = attributes.some(({ type }) => type === ATTRIBUTE.sockets)
    ? attributesIn(attributes, ATTRIBUTE.sockets).flatMap((item) =>
      numberIn(decodeAttributes(item.value) ?? [], SOCKET_FD) ?? []
    )
    : undefined;
  return withoutUndefined({
    index: number(ATTRIBUTE.index),
    sizeBytes: number(ATTRIBUTE.sizeBytes),
    blockBytes: number(ATTRIBUTE.blockBytes),
    timeout_s: number(ATTRIBUTE.timeout),
    serverFlags: number(ATTRIBUTE.serverFlags),
    deadConnectionTimeout_s: number(ATTRIBUTE.deadConnectionTimeout),
    backend: textIn(attributes, ATTRIBUTE.backend),
    sockets,
  });
}

/** The attributes of a status, as the kernel writes them. */
export function encodeNbdStatus(devices: readonly NbdDeviceStatus[]): NetlinkAttribute[] {
  const item = ({ index, connected }: NbdDeviceStatus) =>
    nestedAttribute(DEVICE_ITEM, [
      u32Attribute(DEVICE_INDEX, index),
      { type: DEVICE_CONNECTED, value: Uint8Array.of(connected ? 1 : 0) },
    ]);
  return [nestedAttribute(ATTRIBUTE.deviceList, devices.map(item))];
}

/** @returns the devices in the kernel's order; malformed ones are left out. */
export function decodeNbdStatus(attributes: readonly NetlinkAttribute[]): NbdDeviceStatus[] {
  return attributesIn(attributes, ATTRIBUTE.deviceList).flatMap(({ value }) => {
    const inside = decodeAttributes(value) ?? [];
    const index = numberIn(inside, DEVICE_INDEX), connected = numberIn(inside, DEVICE_CONNECTED);
    return index === undefined || connected === undefined
      ? []
      : [{ index, connected: connected !== 0 }];
  });
}

function withoutUndefined<T extends object>(
  record: T,
): { [Key in keyof T]?: Exclude<T[Key], undefined> } {
  const kept = Object.entries(record).filter(([, value]) => value !== undefined);
  return Object.fromEntries(kept) as { [Key in keyof T]?: Exclude<T[Key], undefined> };
}
