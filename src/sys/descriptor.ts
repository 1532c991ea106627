/** A descriptor that is closed when its block ends: `using device = openDescriptor(path, O_RDWR)`. */
import { mustSucceed } from "./attempt.ts";
import { cString, libc } from "./libc.ts";

const O_CLOEXEC = 0o2000000;

export interface Descriptor extends Disposable {
  readonly fd: number;
}

/** @param flags of open(2); close-on-exec is added. @throws {PsmaError} sys/permission, sys/errno-N. */
export function openDescriptor(path: string, flags: number): Descriptor {
  const name = cString(path);
  const fd = mustSucceed(`open ${path}`, () => libc().open(name, flags | O_CLOEXEC, 0));
  return { fd, [Symbol.dispose]: () => void libc().close(fd) };
}
