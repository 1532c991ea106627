/**
 * Generic netlink: a question to a kernel family, and its answers. Calls return as soon as the kernel has
 * done what was asked. Source: netlink(7), Documentation/userspace-api/netlink/intro.rst.
 */
import { PsmaError } from "../core/mod.ts";
import {
  decodeGenericMessage,
  decodeNetlinkError,
  decodeNetlinkMessages,
  encodeGenericMessage,
  encodeNetlinkMessage,
  GENERIC_CONTROL,
  type GenericMessage,
  NETLINK_FLAG,
  NETLINK_TYPE,
  numberIn,
  textAttribute,
} from "../codec/mod.ts";
import { mustSucceed } from "./attempt.ts";
import { libc, sysError } from "./libc.ts";

const AF_NETLINK = 16, SOCK_RAW = 3, SOCK_CLOEXEC = 0o2000000, NETLINK_GENERIC = 16;
const ENOENT = 2;
/** More than any answer to what PSMA asks; the kernel's own limit for one datagram is 32 KiB. */
const RECEIVE_BYTES = 32 * 1024;

export class GenericNetlink implements Disposable {
  readonly #fd: number;
  readonly #family: number;
  #seq = 0;

  /** @throws {PsmaError} state/no-driver where the kernel has no such family now, sys/errno-N. */
  constructor(readonly name: string, readonly version: number) {
    this.#fd = mustSucceed(
      "open a netlink socket",
      () => libc().socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC),
    );
    try {
      this.#family = this.#lookUp();
    } catch (error) {
      libc().close(this.#fd);
      throw error;
    }
  }

  /**
   * Sends a command and waits for its acknowledgement.
   * @param doing ends the sentence "Cannot …". @returns what the family answered.
   * @throws {PsmaError} sys/permission without CAP_SYS_ADMIN; sys/errno-N: the family's own errno.
   */
  command(
    doing: string,
    command: number,
    attributes: GenericMessage["attributes"],
  ): GenericMessage[] {
    const { answers, errno } = this.#exchange(this.#family, {
      command,
      version: this.version,
      attributes,
    });
    if (errno !== 0) throw sysError(doing, errno);
    return answers;
  }

  [Symbol.dispose](): void {
    libc().close(this.#fd);
  }

  #lookUp(): number {
    const { answers: [answer], errno } = this.#exchange(GENERIC_CONTROL.family, {
      command: GENERIC_CONTROL.getFamily,
      version: 1,
      attributes: [textAttribute(GENERIC_CONTROL.familyName, this.name)],
    });
    if (errno === ENOENT) {
      throw new PsmaError("state/no-driver", `Cannot use ${this.name}: the kernel has none`, {
        hint: `Load its module: modprobe ${this.name}`,
      });
    }
    if (errno !== 0) throw sysError(`find the netlink family ${this.name}`, errno);
    const id = numberIn(answer?.attributes ?? [], GENERIC_CONTROL.familyId);
    if (id === undefined) throw this.#malformed();
    return id;
  }

  #exchange(
    type: number,
    message: GenericMessage,
  ): { answers: GenericMessage[]; errno: number } {
    const seq = ++this.#seq;
    const request = encodeNetlinkMessage({
      type,
      flags: NETLINK_FLAG.request | NETLINK_FLAG.ack,
      seq,
      payload: encodeGenericMessage(message),
    });
    mustSucceed(
      `ask ${this.name}`,
      () => Number(libc().write(this.#fd, request, BigInt(request.length))),
    );
    const answers: GenericMessage[] = [];
    while (true) {
      for (const reply of this.#receive()) {
        // What an earlier, interrupted exchange was answered.
        if (reply.seq !== seq) continue;
        if (reply.type === NETLINK_TYPE.error) {
          const errno = decodeNetlinkError(reply.payload);
          if (errno === undefined) throw this.#malformed();
          return { answers, errno };
        }
        const answer = decodeGenericMessage(reply.payload);
        if (answer === undefined) throw this.#malformed();
        answers.push(answer);
      }
    }
  }

  #receive() {
    const bytes = new Uint8Array(RECEIVE_BYTES);
    const length = mustSucceed(
      `hear from ${this.name}`,
      () => Number(libc().read(this.#fd, bytes, BigInt(bytes.length))),
    );
    const messages = decodeNetlinkMessages(bytes.subarray(0, length));
    if (messages === undefined) throw this.#malformed();
    return messages;
  }

  #malformed(): PsmaError {
    return new PsmaError("internal/netlink", `Cannot use ${this.name}: its answer is malformed`);
  }
}
