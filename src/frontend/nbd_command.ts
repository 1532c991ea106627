/** NBD commands as the volume's operations. Hot path: nothing allocates. */
import { NBD_CMD, NBD_CMD_FLAG } from "../codec/mod.ts";
import { OPERATION, OPERATION_FLAG } from "../volume/mod.ts";

/** @returns the volume's operation, or -1 for a command that we do not serve. */
export function operationCode(type: number): number {
  switch (type) {
    case NBD_CMD.read:
      return OPERATION.read;
    case NBD_CMD.write:
      return OPERATION.write;
    case NBD_CMD.flush:
      return OPERATION.flush;
    case NBD_CMD.trim:
      return OPERATION.trim;
    case NBD_CMD.writeZeroes:
      return OPERATION.writeZeroes;
    default:
      return -1;
  }
}

export function operationFlags(flags: number): number {
  return ((flags & NBD_CMD_FLAG.fua) !== 0 ? OPERATION_FLAG.fua : 0) |
    ((flags & NBD_CMD_FLAG.noHole) !== 0 ? OPERATION_FLAG.noHole : 0);
}

/** True when a command carries only flags that it may: FUA anywhere, NO_HOLE with WRITE_ZEROES. */
export function flagsFit(type: number, flags: number): boolean {
  const known = type === NBD_CMD.writeZeroes
    ? NBD_CMD_FLAG.fua | NBD_CMD_FLAG.noHole
    : NBD_CMD_FLAG.fua;
  return (flags & ~known) === 0;
}
