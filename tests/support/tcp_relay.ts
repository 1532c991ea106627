/** A relay to a TCP port of this machine that can be cut as a network is: nothing is closed, nothing gets through. */

const BUFFER_BYTES = 65_536;

export class TcpRelay implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #open = new Set<Deno.Conn>();
  readonly #tasks: Promise<void>[] = [];
  #cut: PromiseWithResolvers<void> | undefined;

  /** @param to the port that clients reach through this one. */
  constructor(readonly to: number) {
    this.#tasks.push(this.#accept());
  }

  get port(): number {
    return (this.#listener.addr as Deno.NetAddr).port;
  }

  /** From now on bytes wait here, in both directions. */
  cut(): void {
    this.#cut ??= Promise.withResolvers();
  }

  /** What waited goes on its way. */
  heal(): void {
    this.#cut?.resolve();
    this.#cut = undefined;
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) this.#tasks.push(this.#relay(client));
  }

  async #relay(client: Deno.Conn): Promise<void> {
    this.#open.add(client);
    try {
      await this.#cut?.promise;
      const server = await Deno.connect({ hostname: "127.0.0.1", port: this.to });
      this.#open.add(server);
      await Promise.race([this.#carry(client, server), this.#carry(server, client)]);
      this.#close(server);
    } catch {
      // One side has gone: the other one is told so.
    }
    this.#close(client);
  }

  async #carry(from: Deno.Conn, to: Deno.Conn): Promise<void> {
    const buffer = new Uint8Array(BUFFER_BYTES);
    try {
      for (;;) {
        const count = await from.read(buffer);
        await this.#cut?.promise;
        if (count === null) return;
        for (let sent = 0; sent < count;) sent += await to.write(buffer.subarray(sent, count));
      }
    } catch {
      // As when it ended.
    } finally {
      this.#close(to);
    }
  }

  #close(connection: Deno.Conn) {
    if (this.#open.delete(connection)) connection.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.heal();
    this.#listener.close();
    for (const connection of [...this.#open]) this.#close(connection);
    await Promise.allSettled(this.#tasks);
  }
}
