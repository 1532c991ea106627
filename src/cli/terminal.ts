/** Where the command line writes: lines, colours where a person looks, and one line drawn anew. */

export interface Writer {
  readonly is_terminal: boolean;
  write(text: string): void;
  /** Columns of the terminal; a fixed width elsewhere. */
  columns(): number;
}

const COLUMNS = 100;

export function fileWriter(file: typeof Deno.stdout | typeof Deno.stderr): Writer {
  const encoder = new TextEncoder();
  return {
    is_terminal: file.isTerminal(),
    write(text) {
      let bytes = encoder.encode(text);
      try {
        while (bytes.length > 0) bytes = bytes.subarray(file.writeSync(bytes));
      } catch (error) {
        // The reader went away (`psma status | head`): nobody is left to tell.
        if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
      }
    },
    columns() {
      try {
        return Deno.consoleSize().columns;
      } catch {
        return COLUMNS;
      }
    },
  };
}

const CODES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, blue: 34, cyan: 36 } as const;
export type Colour = keyof typeof CODES;

export type Paint = (colour: Colour, text: string) => string;

/** Colours text, or leaves it as it is. */
export function painter(on: boolean): Paint {
  return (colour, text) => on && text !== "" ? `\x1b[${CODES[colour]}m${text}\x1b[0m` : text;
}

/** Columns that a text takes: escape sequences take none. */
export function widthOf(text: string): number {
  // deno-lint-ignore no-control-regex -- that is what colours are made of
  return [...text.replace(/\x1b\[[0-9;]*m/g, "")].length;
}

/** Cuts a text to so many columns, an ellipsis at its end; escape sequences stay whole and take none. */
export function cutTo(text: string, columns: number): string {
  if (widthOf(text) <= columns) return text;
  let kept = "", room = Math.max(0, columns - 1);
  // deno-lint-ignore no-control-regex -- that is what colours are made of
  for (const [piece] of text.matchAll(/\x1b\[[0-9;]*m|./gsu)) {
    if (piece.startsWith("\x1b")) kept += piece;
    else if (room-- > 0) kept += piece;
    else if (room === -1 && columns > 0) kept += "…";
  }
  return kept;
}

/** Text at the end that can be drawn anew: progress on a terminal, ordinary lines elsewhere. */
export class LiveText {
  #lines = 0;
  #last = "";

  constructor(readonly writer: Writer) {}

  /** Replaces what was drawn before. Elsewhere than on a terminal it draws nothing. */
  draw(text: string): void {
    if (!this.writer.is_terminal) return;
    this.#last = text;
    this.writer.write(this.#eraser() + text + "\n");
    this.#lines = text.split("\n").length;
  }

  /** Prints a line that stays, above what is drawn. */
  say(line: string): void {
    this.writer.write(`${this.#eraser()}${line}\n`);
    const drawn = this.#lines > 0;
    this.#lines = 0;
    if (drawn) this.draw(this.#last);
  }

  clear(): void {
    this.writer.write(this.#eraser());
    this.#lines = 0;
  }

  #eraser(): string {
    return this.#lines === 0 ? "" : `\x1b[${this.#lines}A\x1b[0J`;
  }
}
