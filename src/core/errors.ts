/**
 * One error type and one table. A code says what went wrong; the table says what that means for an
 * HTTP client, a block-device client, a shell and a retry loop.
 */

/** What a family of codes means outside: `http` status, `errno` for block clients, process `exit` code. */
export interface ErrorMeaning {
  readonly http: number;
  readonly errno: number;
  readonly exit: number;
  /** The same again may fare better: the way was broken, or the other side busy. */
  readonly retryable: boolean;
}

const EIO = 5, EAGAIN = 11, EBUSY = 16, EINVAL = 22, ENOSPC = 28, EPERM = 1, ENOENT = 2;

const meaning = (http: number, errno: number, exit: number, retryable = false): ErrorMeaning => ({
  http,
  errno,
  exit,
  retryable,
});

/** The most specific key wins: `store/full` before `store`. */
const MEANINGS: Readonly<Record<string, ErrorMeaning>> = {
  usage: meaning(400, EINVAL, 2),
  "usage/body-size": meaning(413, EINVAL, 2),
  config: meaning(400, EINVAL, 78),
  auth: meaning(401, EPERM, 77),
  forbidden: meaning(403, EPERM, 77),
  "not-found": meaning(404, ENOENT, 3),
  state: meaning(409, EBUSY, 4),
  verify: meaning(409, EIO, 5),
  fenced: meaning(409, EPERM, 4),
  forecast: meaning(409, EAGAIN, 4),
  io: meaning(500, EIO, 1),
  sys: meaning(500, EIO, 1),
  "sys/permission": meaning(500, EPERM, 77),
  store: meaning(502, EIO, 69),
  "store/unreachable": meaning(502, EIO, 69, true),
  "store/full": meaning(507, ENOSPC, 69),
  "store/quota": meaning(507, ENOSPC, 69),
  unavailable: meaning(503, EAGAIN, 69, true),
  timeout: meaning(504, EAGAIN, 69, true),
  internal: meaning(500, EIO, 1),
};

export interface PsmaErrorOptions {
  /** The next step for the person who reads the message. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/** An expected failure: `code` is stable (`store/full`), `message` is one sentence "Cannot X: Y is Z". */
export class PsmaError extends Error {
  override readonly name = "PsmaError";
  readonly hint: string | undefined;

  constructor(readonly code: string, message: string, options: PsmaErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.hint = options.hint;
  }

  get meaning(): ErrorMeaning {
    return meaningOf(this.code);
  }

  /** A plain record that crosses threads and the wire. */
  toRecord(): ErrorRecord {
    return {
      code: this.code,
      message: this.message,
      ...(this.hint === undefined ? {} : { hint: this.hint }),
    };
  }

  static fromRecord(record: ErrorRecord): PsmaError {
    return new PsmaError(
      record.code,
      record.message,
      record.hint === undefined ? {} : { hint: record.hint },
    );
  }
}

export interface ErrorRecord {
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
}

/** Looks a code up in the table; an unknown family means `internal`. */
export function meaningOf(code: string): ErrorMeaning {
  const family = code.split("/", 1)[0] ?? "";
  return MEANINGS[code] ?? MEANINGS[family] ?? MEANINGS["internal"] as ErrorMeaning;
}

/** The code of what nobody foresaw. */
export const UNEXPECTED = "internal/unexpected";

/** Turns anything thrown into a PsmaError without losing what it was. */
export function toPsmaError(error: unknown, code = UNEXPECTED): PsmaError {
  if (error instanceof PsmaError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new PsmaError(code, message, { cause: error });
}
