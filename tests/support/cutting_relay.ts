/** A relay between a client and a server on Unix sockets whose connections a test can cut one by one. */

interface Relayed {
  readonly client: Deno.Conn;
  readonly server: Deno.Conn;
}

export class CuttingRelay implements AsyncDisposable {
  readonly #listener: Deno.Listener;
  readonly #relayed = new Set<Relayed>();
  readonly #tasks: Promise<void>[] = [];

  /** @param path where clients connect to. @param serverPath where their bytes go. */
  constructor(readonly path: string, readonly serverPath: string) {
    this.#listener = Deno.listen({ transport: "unix", path });
    this.#tasks.push(this.#accept());
  }

  /** Connections that are open. */
  get count(): number {
    return this.#relayed.size;
  }

  /** Ends the connection that has been open longest, for both sides. */
  cutOldest(): void {
    const [oldest] = this.#relayed;
    if (!oldest) throw new Error("there is no connection to cut");
    this.#end(oldest);
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) {
      const server = await Deno.connect({ transport: "unix", path: this.serverPath });
      const relayed = { client, server };
      this.#relayed.add(relayed);
      for (const [from, to] of [[client, server], [server, client]] as const) {
        this.#tasks.push(
          from.readable.pipeTo(to.writable).catch(() => {}).finally(() => {
            this.#end(relayed);
          }),
        );
      }
    }
  }

  #end(relayed: Relayed) {
    if (!this.#relayed.delete(relayed)) return;
    for (const side of [relayed.client, relayed.server]) {
      try {
        side.close();
      } catch {
        // The stream has closed it already.
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const relayed of [...this.#relayed]) this.#end(relayed);
    await Promise.all(this.#tasks);
  }
}
