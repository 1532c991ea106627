/** What an NBD session needs from its server, and the phases of its life. */
import type { Ring } from "../../sys/mod.ts";
import type { Requests } from "../../volume/mod.ts";
import type { NbdReplies } from "./reply.ts";

export const PHASE = {
  /** Free for a new connection. */
  closed: 0,
  clientFlags: 1,
  options: 2,
  /** Granted an export; waits until the writers before it have drained. */
  held: 3,
  transmission: 4,
  /** Said goodbye: the rest is answered, then it ends. */
  leaving: 5,
  /** Cut: waits for the volume and the kernel. */
  cut: 6,
} as const;

/** What a session needs from the server. */
export interface NbdSessionHost<Session> {
  readonly ring: Ring;
  readonly requests: Requests;
  readonly owner: number;
  readonly replies: NbdReplies;
  readonly kinds: {
    readonly receive: number;
    readonly payload: number;
    readonly send: number;
    readonly cancel: number;
  };
  /** Slots that one session may hold. */
  readonly fairShare: number;
  /** Flushes the session's replies after this batch. */
  replyWaits(session: Session): void;
  /** Parses the session again when slots are free. */
  stall(session: Session): void;
  /** A slot of a stalled session became free. */
  unstall(): void;
  /** Lets promises go on that no completion resolves. */
  wake(): void;
  /** Negotiation bytes are there. */
  negotiate(session: Session): void;
  /** A piece of negotiation has left. */
  negotiationSent(session: Session): void;
  /** It was cut; `reason` is undefined for a peer that left in good order. */
  onCut(session: Session, reason: string | undefined): void;
  /** No request of a cut session is in the volume any more. */
  onDrained(session: Session): void;
  onClosed(session: Session): void;
}
