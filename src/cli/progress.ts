/** Waits for long work of the agent and shows how it goes. */
import type { AgentClient, MirrorStatus, Operation } from "../api/client.ts";
import { formatDuration, formatSize, PsmaError } from "../core/mod.ts";
import { formatMirrorProgress } from "./mirror_text.ts";
import { type Session, untilSignal } from "./verb.ts";

/** What is shown while an operation goes on, and told when it has ended. */
export interface OperationText {
  readonly draw: (mirror: MirrorStatus) => string;
  readonly result: (done: Operation) => string;
}

const MIRROR_TEXT: OperationText = { draw: formatMirrorProgress, result: replacedOf };

/**
 * Follows an operation to its end and answers with it. An interruption ends the watching; the agent goes on.
 * @param wait false: answers at once with the operation as it began.
 * @returns the operation at its end, or as it began.
 */
export async function followOperation(
  session: Session,
  begun: Operation,
  wait: boolean,
  { draw, result }: OperationText = MIRROR_TEXT,
): Promise<Operation> {
  if (!wait) {
    session.answer(begun, () => `Begun: ${begun.verb} ${begun.volume}, operation ${begun.id}`);
    return begun;
  }
  const agent = await session.agent();
  using interrupted = untilSignal();
  try {
    const done = await agent.finished(begun, {
      signal: interrupted.signal,
      onProgress: () => drawMirror(session, agent, begun.volume, draw),
    });
    session.live.clear();
    session.answer(
      done,
      () => `Done: ${done.verb} ${done.volume}${tookOf(done)}${result(done)}`,
    );
    return done;
  } finally {
    session.live.clear();
  }
}

async function drawMirror(
  session: Session,
  agent: AgentClient,
  volume: string,
  draw: OperationText["draw"],
): Promise<void> {
  if (session.json || !session.stderr.is_terminal) return;
  try {
    session.live.draw(draw(await agent.mirror(volume)));
  } catch (error) {
    // Between two states there may be no mirror to draw; the operation itself says what failed.
    if (!(error instanceof PsmaError) || error.code !== "not-found/mirror") throw error;
  }
}

/** There is one backup at a time: whoever had an older one is told that it is gone. */
function replacedOf({ result }: Operation): string {
  const { replaced_backup } = (result ?? {}) as { replaced_backup?: unknown };
  if (typeof replaced_backup !== "object" || replaced_backup === null) return "";
  const { store, size_bytes } = replaced_backup as { store: string; size_bytes: number };
  return `\nThe older backup at ${store} (${formatSize(size_bytes)}) is deleted.`;
}

function tookOf({ started_at, ended_at }: Operation): string {
  if (ended_at === null) return "";
  return ` in ${formatDuration(Date.parse(ended_at) - Date.parse(started_at))}`;
}
