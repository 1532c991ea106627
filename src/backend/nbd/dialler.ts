/**
 * Makes connections to an NBD export: finds the host's addresses, connects to the first that answers, and
 * negotiates. Off the hot path: async on the reactor. One attempt at a time per dialler.
 *
 * Faults: an attempt that takes longer than its limit, or is given up, ends with all that it has opened,
 * after the kernel has finished with it. A name that cannot be looked up now is as good as it was last time.
 */
import { assert, type Deferred, errnoText } from "../../core/mod.ts";
import { NBD_OPTION } from "../../codec/mod.ts";
import {
  closeFile,
  openSocket,
  parseIpv4,
  parseIpv6,
  type Reactor,
  shutdownSocket,
  type Sockaddr,
  sockaddrOf,
  tuneSocket,
} from "../../sys/mod.ts";
import { negotiate, unreachable } from "./handshake.ts";
import type { NbdOffer } from "./offer.ts";
import type { ResolveHost } from "./options.ts";
import type { NbdTarget } from "./uri.ts";

const DIAL_LIMIT_MS = 10_000;
/** A server that vanished without a word is noticed within this; also one that takes nothing for as long. */
const DEAD_PEER_MS = 30_000;
const ADDRESSES_MAX = 8;

/** @param fd a connected socket in transmission phase, owned by the caller. */
export interface NbdConnected {
  readonly fd: number;
  readonly offer: NbdOffer;
}

export interface NbdDiallerOptions {
  readonly dialLimitMs?: number | undefined;
  readonly resolveHost?: ResolveHost | undefined;
}

/** An attempt that is under way. */
interface Attempt {
  fd: number;
  /** Why it was cut off; undefined while it was not. */
  cut: string | undefined;
  readonly cutOff: Deferred<undefined>;
}

export class NbdDialler {
  readonly #limitMs: number;
  readonly #resolveHost: ResolveHost | undefined;
  /** Where to connect to; empty until a name was looked up. */
  #where: readonly Sockaddr[];
  #attempt: Attempt | undefined;

  /** @throws {PsmaError} usage/host, usage/socket-path */
  constructor(
    readonly reactor: Reactor,
    readonly target: NbdTarget,
    options: NbdDiallerOptions,
  ) {
    this.#limitMs = options.dialLimitMs ?? DIAL_LIMIT_MS;
    this.#resolveHost = options.resolveHost && isName(target) ? options.resolveHost : undefined;
    this.#where = this.#resolveHost ? [] : [sockaddrOf(target.address)];
  }

  /**
   * Connects and enters the export.
   * @throws {PsmaError} store/unreachable, store/nbd-protocol, store/nbd-refused, not-found/export, fenced/epoch
   */
  async enter(): Promise<NbdConnected> {
    return await this.#dial(NBD_OPTION.go);
  }

  /** Asks what the export is now, on a connection of its own. @throws as `enter`. */
  async ask(): Promise<NbdOffer> {
    const { fd, offer } = await this.#dial(NBD_OPTION.info);
    closeFile(fd);
    return offer;
  }

  /** Ends an attempt that is under way: it fails. */
  giveUp(): void {
    if (this.#attempt) this.#cut(this.#attempt, "it was given up");
  }

  async #dial(option: number): Promise<NbdConnected> {
    assert(!this.#attempt, "two attempts share a dialler");
    const attempt: Attempt = { fd: -1, cut: undefined, cutOff: this.reactor.deferred() };
    this.#attempt = attempt;
    const alarm = this.reactor.alarm(this.#limitMs);
    alarm.over.then(() => this.#cut(attempt, "it did not answer in time"));
    try {
      await this.#connect(attempt);
      const offer = await negotiate(this.reactor, attempt.fd, this.target, option);
      if (attempt.cut === undefined) return { fd: attempt.fd, offer };
      throw unreachable(this.target, attempt.cut);
    } catch (error) {
      if (attempt.fd >= 0) closeFile(attempt.fd);
      throw attempt.cut === undefined ? error : unreachable(this.target, attempt.cut);
    } finally {
      this.#attempt = undefined;
      alarm.cancel();
    }
  }

  #cut(attempt: Attempt, reason: string) {
    if (this.#attempt !== attempt || attempt.cut !== undefined) return;
    attempt.cut = reason;
    attempt.cutOff.resolve(undefined);
    if (attempt.fd < 0) return;
    shutdownSocket(attempt.fd);
    this.reactor.cancelFd(attempt.fd);
  }

  /** Leaves a connected socket in the attempt. */
  async #connect(attempt: Attempt): Promise<void> {
    await this.#lookUp(attempt);
    let failure = unreachable(this.target, "its name has no address");
    for (const where of this.#where) {
      if (attempt.cut !== undefined) break;
      attempt.fd = openSocket(where.family);
      const result = await this.reactor.connect(attempt.fd, where.bytes);
      if (result >= 0) return tuneSocket(attempt.fd, "path" in this.target.address, DEAD_PEER_MS);
      failure = unreachable(this.target, errnoText(result));
      closeFile(attempt.fd);
      attempt.fd = -1;
    }
    throw failure;
  }

  /** Addresses may change between one connection and the next. */
  async #lookUp(attempt: Attempt): Promise<void> {
    const { address } = this.target;
    if (!this.#resolveHost || "path" in address) return;
    try {
      const found = await Promise.race([this.#resolveHost(address.host), attempt.cutOff.promise]);
      const where = (found ?? []).slice(0, ADDRESSES_MAX)
        .map((host) => sockaddrOf({ host, port: address.port }));
      if (where.length > 0) this.#where = where;
    } catch (error) {
      if (this.#where.length === 0) throw error;
    }
  }
}

/** True for a host that must be looked up. */
function isName({ address }: NbdTarget): boolean {
  if ("path" in address || address.host === "localhost") return false;
  return !parseIpv4(address.host) && !parseIpv6(address.host);
}
