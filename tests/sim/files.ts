/** A volume's own files on a virtual disk: durable replacement by the real reactor, mapping by real calls. */
import { DiskFiles } from "../../src/dataplane/disk_files.ts";
import type { Reactor } from "../../src/sys/mod.ts";
import type { Machine } from "./machine.ts";

export class VirtualFiles extends DiskFiles {
  override readonly bootId: string;

  constructor(reactor: Reactor, readonly machine: Machine) {
    super(reactor);
    this.bootId = machine.bootId();
  }

  override read(path: string): Uint8Array | undefined {
    return this.machine.disk.find(path)?.cache.slice();
  }

  override list(directory: string): string[] {
    const prefix = `${directory}/`;
    return this.machine.disk.names().filter((name) => name.startsWith(prefix))
      .map((name) => name.slice(prefix.length));
  }

  override makeDirectory(): void {}

  /** One process at a time lives here. */
  override claim(): Disposable {
    return { [Symbol.dispose]() {} };
  }
}
