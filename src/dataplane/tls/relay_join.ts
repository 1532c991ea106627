/**
 * Joins two streams: what comes out of one goes into the other, both ways. A reader that is slow stops the
 * writer on the other side, so at most the two streams' own buffers are held. The end of one direction is
 * passed on and the other goes on; a failure on either side ends both.
 */
import type { Socket } from "node:net";

/** How long what was sent last may take to be taken once both directions have ended. */
const LINGER_MS = 10_000;

/** Resolves when both are closed. An error on either is the business of who listens for it. */
export async function join(one: Socket, other: Socket): Promise<void> {
  const settle = (socket: Socket, peer: Socket) =>
    new Promise<void>((resolve) => {
      socket.once("close", () => {
        if (!(socket.readableEnded && peer.readableEnded)) peer.destroy();
        else lingerThenDestroy(peer);
        resolve();
      });
      if (socket.destroyed) peer.destroy();
      if (socket.closed) resolve();
    });
  const closed = Promise.all([settle(one, other), settle(other, one)]);
  one.pipe(other);
  other.pipe(one);
  await closed;
}

function lingerThenDestroy(socket: Socket): void {
  if (socket.destroyed) return;
  const timer = setTimeout(() => socket.destroy(), LINGER_MS);
  socket.once("close", () => clearTimeout(timer));
}
