/**
 * What an NBD client knows of each request that waits for its answer, by cookie: struct of arrays, fixed
 * size, shared by a backend's connections. A cookie is the number of the operation that the request is a
 * piece of; one more, `statusCookie`, is for the request that asks where data is. Hot path: no allocation.
 */
import { NBD_CMD } from "../../codec/mod.ts";
import type { Piece } from "./piece.ts";

/** Not a connection: the request is not on its way. */
export const NOWHERE = -1;

export class NbdRequests {
  readonly statusCookie: number;
  /** Which connection it went by; NOWHERE when no answer is awaited. */
  readonly lane: Int8Array;
  /** Rises with every request of a cookie: the cookie's other half on the wire. */
  readonly generation: Uint32Array;
  /** Bytes from the start of the export, and how many were asked for. */
  readonly at: Float64Array;
  readonly bytes: Float64Array;
  /** Bytes of data that a good answer brings, where they go, and how many have come. */
  readonly expects: Float64Array;
  readonly address: Float64Array;
  readonly received: Float64Array;
  /** The first error that a reply in several chunks has named; 0 for none. */
  readonly error: Uint32Array;
  /** Ticks of the watch: when this request left, and when its operation was submitted. */
  readonly sentTick: Uint32Array;
  readonly bornTick: Uint32Array;
  #awaited = 0;

  /** @param capacity operations are numbered below it. */
  constructor(readonly capacity: number) {
    const count = capacity + 1;
    this.statusCookie = capacity;
    this.lane = new Int8Array(count).fill(NOWHERE);
    this.generation = new Uint32Array(count);
    this.at = new Float64Array(count);
    this.bytes = new Float64Array(count);
    this.expects = new Float64Array(count);
    this.address = new Float64Array(count);
    this.received = new Float64Array(count);
    this.error = new Uint32Array(count);
    this.sentTick = new Uint32Array(count);
    this.bornTick = new Uint32Array(count);
  }

  /** Requests that wait for an answer. */
  get awaited(): number {
    return this.#awaited;
  }

  /** A piece goes out by a connection. @param address where a read's data goes. @returns its generation. */
  begin(cookie: number, lane: number, piece: Piece, address: number, tick: number): number {
    const generation = ((this.generation[cookie] as number) + 1) >>> 0;
    this.generation[cookie] = generation;
    this.lane[cookie] = lane;
    this.at[cookie] = piece.at;
    this.bytes[cookie] = piece.length;
    this.expects[cookie] = piece.type === NBD_CMD.read ? piece.length : 0;
    this.address[cookie] = address;
    this.received[cookie] = 0;
    this.error[cookie] = 0;
    this.sentTick[cookie] = tick;
    this.#awaited++;
    return generation;
  }

  /** Its answer came, or will not come any more. */
  end(cookie: number): void {
    this.lane[cookie] = NOWHERE;
    this.#awaited--;
  }

  /** True when a connection may answer with this cookie. */
  isAwaited(lane: number, cookieHigh: number, cookieLow: number): boolean {
    return cookieLow <= this.capacity && this.lane[cookieLow] === lane &&
      this.generation[cookieLow] === cookieHigh;
  }
}
