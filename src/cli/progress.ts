/** Waits for long work of the agent and shows how it goes. */
import type { AgentClient, Operation } from "../api/client.ts";
import { formatDuration, formatSize, PsmaError } from "../core/mod.ts";
import { formatMirrorProgress } from "./mirror_text.ts";
import { type Session, untilSignal } from "./verb.ts";

/**
 * Follows an operation to its end and answers with it. An interruption ends the watching; the agent goes on.
 * @param wait false: answers at once with the operation as it began.
 */
export async function followOperation(
  session: Session,
  begun: Operation,
  wait: boolean,
): Promise<void> {
  if (!wait) {
    return session.answer(
      begun,
      () => `Begun: ${begun.verb} ${begun.volume}, operation ${begun.id}`,
    );
  }
  const agent = await session.agent();
  using interrupted = untilSignal();
  try {
    const done = await agent.finished(begun, {
      signal: interrupted.signal,
      onProgress: () => drawMirror(session, agent, begun.volume),
    });
    session.live.clear();
    session.answer(
      done,
      () => `Done: ${done.verb} ${done.volume}${tookOf(done)}${replacedOf(done)}`,
    );
  } finally {
    session.live.clear();
  }
}

async function drawMirror(session: Session, agent: AgentClient, volume: string): Promise<void> {
  if (session.json || !session.stderr.is_terminal) return;
  try {
    session.live.draw(formatMirrorProgress(await agent.mirror(volume)));
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
