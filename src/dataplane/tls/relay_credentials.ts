/**
 * Certificates and keys from files, looked at before each use and read again when they have changed, so that
 * a renewed certificate is in force for the next connection. What was good stays in force while a new one
 * can not be used.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import type { TlsFiles } from "../../codec/mod.ts";
import { type Clock, PsmaError, toPsmaError } from "../../core/mod.ts";

const OTHERS_MAY = 0o007;
const FILE_BYTES_MAX = 1 << 20;

/** As node:tls takes them: PEM. */
export interface CredentialBytes {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

export interface CredentialOptions {
  readonly files: TlsFiles;
  readonly clock: Clock;
  /** Told once for each change that can not be used, and for a certificate of ours that is out of date. */
  readonly onFault: (message: string) => void;
}

export class Credentials {
  #stamp = "";
  #bytes: CredentialBytes | undefined;

  constructor(readonly options: CredentialOptions) {}

  /** What the files hold now. @throws {PsmaError} config/tls-file when they never could be used. */
  current(): CredentialBytes {
    const stamp = this.#stampNow();
    if (this.#bytes !== undefined && stamp === this.#stamp) return this.#bytes;
    try {
      this.#bytes = this.#load();
    } catch (error) {
      if (this.#bytes === undefined) throw error;
      this.options.onFault(`${toPsmaError(error).message}; the one before stays in force`);
    }
    this.#stamp = stamp;
    return this.#bytes;
  }

  #stampNow(): string {
    const { ca_file, cert_file, key_file } = this.options.files;
    return [ca_file, cert_file, key_file].map((path) => path && stampOf(path)).join(" ");
  }

  #load(): CredentialBytes {
    const { ca_file, cert_file, key_file } = this.options.files;
    const ca = ca_file === undefined ? undefined : readPem(ca_file);
    if (ca_file !== undefined) readCertificate(ca_file, ca ?? "");
    if (cert_file === undefined || key_file === undefined) return ca === undefined ? {} : { ca };
    const cert = readPem(cert_file), key = readPem(key_file);
    const certificate = readCertificate(cert_file, cert);
    if (((Deno.statSync(key_file).mode ?? 0) & OTHERS_MAY) !== 0) {
      throw unusable(key_file, "others may read it", `Run: chmod o= ${key_file}`);
    }
    if (!certificate.checkPrivateKey(readKey(key_file, key))) {
      throw unusable(key_file, `it is not the key of ${cert_file}`);
    }
    if (Date.parse(certificate.validTo) < this.options.clock.nowMs()) {
      this.options.onFault(`the certificate ${cert_file} is valid to ${certificate.validTo} only`);
    }
    return { cert, key, ...(ca === undefined ? {} : { ca }) };
  }
}

/** Differs when the file is another one or was written to. */
function stampOf(path: string): string {
  try {
    const { ino, size, mtime, ctime } = Deno.statSync(path);
    return `${ino}:${size}:${mtime?.getTime()}:${ctime?.getTime()}`;
  } catch {
    return "none";
  }
}

function readPem(path: string): string {
  try {
    if (Deno.statSync(path).size > FILE_BYTES_MAX) throw new Error("it is too long");
    return Deno.readTextFileSync(path);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) throw unusable(path, "there is no such file");
    throw unusable(path, cause instanceof Error ? cause.message : String(cause));
  }
}

function readCertificate(path: string, pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch {
    throw unusable(path, "it holds no certificate in PEM form");
  }
}

function readKey(path: string, pem: string) {
  try {
    return createPrivateKey(pem);
  } catch {
    throw unusable(path, "it holds no private key in PEM form, or an encrypted one");
  }
}

function unusable(path: string, why: string, hint?: string): PsmaError {
  return new PsmaError(
    "config/tls-file",
    `Cannot use ${path}: ${why}`,
    hint === undefined ? {} : { hint },
  );
}
