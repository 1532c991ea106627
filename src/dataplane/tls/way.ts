/** From an export that is reached over TLS to the way there: a Unix socket of the TLS relay. */
import { PsmaError, toPsmaError } from "../../core/mod.ts";
import type { BackendSpec } from "../../codec/mod.ts";
import type { Ask } from "../questioner.ts";
import { isTlsUri } from "./relay_uri.ts";

/** How an NBD client connects. @param place what people call the server, when that is something else. */
export interface PlainWay {
  readonly uri: string;
  readonly place?: string;
  /** Asks the main thread. */
  readonly resolveHost: (host: string) => Promise<readonly string[]>;
}

/**
 * Lets `open` connect to an export, whether or not it takes TLS. `patient`: TLS files that cannot be used now are
 * waited for, like a server that is away.
 * @throws {PsmaError} what `open` throws, with the relay's reason where it has one; usage/nbd-uri, config/tls-file
 */
export async function withPlainUri<T>(
  { uri, tls = {} }: Extract<BackendSpec, { type: "nbd" }>,
  ask: Ask,
  open: (way: PlainWay) => Promise<T>,
  { patient = false }: { readonly patient?: boolean } = {},
): Promise<T> {
  const resolveHost = (host: string) => ask("resolveHost", { host });
  if (!isTlsUri(uri)) return await open({ uri, resolveHost });
  const place = uri.replace(/\/[^/]*$/, "");
  const way = { uri: await ask("tlsRoute", { uri, tls, patient }), place, resolveHost };
  try {
    return await open(way);
  } catch (error) {
    const { code, hint } = toPsmaError(error);
    const fault = await ask("tlsFault", { uri: way.uri });
    if (fault === null) throw error;
    throw new PsmaError(code, fault, { cause: error, ...(hint === undefined ? {} : { hint }) });
  }
}
