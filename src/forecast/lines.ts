/** Text lines out of a byte stream. */

/** A line longer than this is not ours. */
const LINE_CHARS_MAX = 64 << 20;

/** Yields complete lines without their end; a last line without an end is dropped. */
export async function* readLines(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
): AsyncGenerator<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > LINE_CHARS_MAX) throw new RangeError("line is too long");
    yield* lines;
  }
}
