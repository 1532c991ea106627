/** A conversation in lines of JSON over a Unix socket: QEMU's QMP, and the bench's own program. */

export type Message = Readonly<Record<string, unknown>>;

interface Waiting {
  readonly wanted: (message: Message) => boolean;
  resolve(message: Message): void;
  reject(error: Error): void;
}

export class JsonLines implements Disposable {
  readonly #connection: Deno.Conn;
  /** Came, and nobody has asked for it yet. */
  readonly #unread: Message[] = [];
  #waiting: Waiting[] = [];
  #ended: Error | undefined;

  private constructor(connection: Deno.Conn, readonly path: string) {
    this.#connection = connection;
    this.#read();
  }

  static async connect(path: string): Promise<JsonLines> {
    return new JsonLines(await Deno.connect({ transport: "unix", path }), path);
  }

  async send(message: Message): Promise<void> {
    const bytes = new TextEncoder().encode(JSON.stringify(message) + "\n");
    for (let sent = 0; sent < bytes.length;) {
      sent += await this.#connection.write(bytes.subarray(sent));
    }
  }

  /** The first such message that nobody has taken yet. @throws {Error} when the conversation ends before. */
  take(wanted: (message: Message) => boolean): Promise<Message> {
    const index = this.#unread.findIndex(wanted);
    const [found] = index < 0 ? [] : this.#unread.splice(index, 1);
    if (found !== undefined) return Promise.resolve(found);
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => this.#waiting.push({ wanted, resolve, reject }));
  }

  async #read(): Promise<void> {
    let text = "";
    try {
      for await (const part of this.#connection.readable.pipeThrough(new TextDecoderStream())) {
        text += part;
        const lines = text.split("\n");
        text = lines.pop() ?? "";
        for (const line of lines) {
          if (line.trim() !== "") this.#give(JSON.parse(line) as Message);
        }
      }
    } catch {
      // Cut off: the same as an end.
    }
    this.#ended = new Error(`The conversation on ${this.path} has ended`);
    for (const { reject } of this.#waiting.splice(0)) reject(this.#ended);
  }

  #give(message: Message): void {
    const waiting = this.#waiting.find(({ wanted }) => wanted(message));
    if (waiting === undefined) return void this.#unread.push(message);
    this.#waiting = this.#waiting.filter((one) => one !== waiting);
    waiting.resolve(message);
  }

  [Symbol.dispose](): void {
    try {
      this.#connection.close();
    } catch {
      // The stream has closed it already.
    }
  }
}
