/** A relay between clients and a server on Unix sockets that counts what the clients send. */

export class CountingRelay implements AsyncDisposable {
  sentBytes = 0;
  readonly #listener: Deno.Listener;
  readonly #open = new Set<Deno.Conn>();
  readonly #tasks: Promise<void>[] = [];

  /** @param path where clients connect to. @param serverPath where their bytes go. */
  constructor(path: string, readonly serverPath: string) {
    this.#listener = Deno.listen({ transport: "unix", path });
    this.#tasks.push(this.#accept());
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) {
      const server = await Deno.connect({ transport: "unix", path: this.serverPath });
      this.#open.add(client).add(server);
      const counted = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
        transform: (part, out) => {
          this.sentBytes += part.length;
          out.enqueue(part);
        },
      });
      this.#tasks.push(
        client.readable.pipeThrough(counted).pipeTo(server.writable).catch(() => {}),
        server.readable.pipeTo(client.writable).catch(() => {}),
      );
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const connection of this.#open) {
      try {
        connection.close();
      } catch {
        // The stream has closed it already.
      }
    }
    await Promise.all(this.#tasks);
  }
}
