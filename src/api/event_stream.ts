/** Reads server-sent events: the counterpart of routes/events.ts. */
import type { AgentEvent } from "../agent/mod.ts";

/** @param body bytes as they arrive, cut anywhere. Comments and incomplete last events are left out. */
export async function* decodeEvents(
  body: ReadableStream<Uint8Array<ArrayBuffer>>,
): AsyncGenerator<AgentEvent> {
  let rest = "";
  for await (const part of body.pipeThrough(new TextDecoderStream())) {
    const blocks = (rest + part).split("\n\n");
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart()).join("\n");
      if (data !== "") yield JSON.parse(data) as AgentEvent;
    }
  }
}
