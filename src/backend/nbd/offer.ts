/** What an NBD server offers of an export, as negotiated. */

/** How requests and replies are framed. */
export const FRAMING = { simple: 0, structured: 1, extended: 2 } as const;

export interface NbdOffer {
  readonly sizeBytes: number;
  /** NBD_FLAG bits. */
  readonly flags: number;
  /** Bytes of the largest read or write that it takes. */
  readonly blockBytesMax: number;
  /** Of FRAMING. */
  readonly framing: number;
  /** What BLOCK_STATUS calls `base:allocation`; undefined where the server does not tell where data is. */
  readonly allocationId: number | undefined;
}

/** Until the server has said what it can do. */
export const NO_OFFER: NbdOffer = {
  sizeBytes: 0,
  flags: 0,
  blockBytesMax: 1,
  framing: FRAMING.simple,
  allocationId: undefined,
};

/** @param flag of NBD_FLAG. */
export function can(offer: NbdOffer, flag: number): boolean {
  return (offer.flags & flag) !== 0;
}
