/** Why TLS could not be had, as the end of a sentence: what OpenSSL's and the kernel's codes mean. */
import type { TlsFiles } from "../../codec/mod.ts";

/** What was tried, for the words. */
export interface TlsAttempt {
  readonly server_name: string;
  readonly files: TlsFiles;
}

/** @param error what the socket failed with while we were the client. */
export function serverFault(error: Error, { server_name, files }: TlsAttempt): string {
  const authority = files.ca_file ?? "the authorities that come with this program";
  switch (codeOf(error)) {
    case "UNABLE_TO_VERIFY_LEAF_SIGNATURE":
    case "UNABLE_TO_GET_ISSUER_CERT":
    case "UNABLE_TO_GET_ISSUER_CERT_LOCALLY":
    case "SELF_SIGNED_CERT_IN_CHAIN":
    case "DEPTH_ZERO_SELF_SIGNED_CERT":
    case "CERT_SIGNATURE_FAILURE":
      return `its certificate is not signed by ${authority}`;
    case "ERR_TLS_CERT_ALTNAME_INVALID":
      return `its certificate is not for ${server_name}`;
    case "CERT_HAS_EXPIRED":
      return "its certificate has expired";
    case "CERT_NOT_YET_VALID":
      return "its certificate is not valid yet";
    case "ECONNREFUSED":
      return "nobody listens there";
    case "ENOTFOUND":
      return "its host name is not known";
    case "EAI_AGAIN":
      return "its host name can not be looked up now";
    case "ECONNRESET":
    case "EPIPE":
      return "it closed the connection";
  }
  if (/alert.*required/i.test(error.message)) return "it demands a client certificate";
  if (/alert/i.test(error.message) && files.cert_file !== undefined) {
    return `it does not accept ${files.cert_file} (${error.message})`;
  }
  return error.message;
}

/** What it most likely means when a server ends the connection before it has said a word over TLS. */
export function silenceAfterHandshake({ files }: TlsAttempt): Error {
  const why = files.cert_file === undefined
    ? "most likely it demands a client certificate"
    : `most likely it does not accept ${files.cert_file}`;
  return new Error(`it closed the connection after the handshake; ${why}`);
}

/** @param error what the socket failed with while we were the server. @param refusal node's code for a certificate. */
export function clientFault(error: Error, refusal: string | undefined): string {
  if (refusal === "CERT_HAS_EXPIRED") return "its certificate has expired";
  if (refusal !== undefined) return `its certificate is not signed by our client authority`;
  const code = codeOf(error);
  if (code === "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE") return "it shows no certificate";
  if (/received fatal alert/.test(error.message)) {
    return `it does not accept our certificate (${error.message})`;
  }
  if (code === "ECONNRESET") return "it closed the connection during the handshake";
  return error.message;
}

function codeOf(error: Error): string {
  return (error as Error & { readonly code?: string }).code ?? "";
}
