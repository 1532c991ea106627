/** What would keep an NBD server's certificate from use, looked at as the server itself does. */
import { systemClock, toPsmaError } from "../../core/mod.ts";
import type { NbdTls } from "./reach.ts";
import { Credentials } from "./relay_credentials.ts";

/** @returns a sentence for each fault of files that are not there, cannot be read or do not fit. */
export function tlsFilesFaults({ cert_file, key_file, client_ca_file }: NbdTls): readonly string[] {
  const faults: string[] = [];
  const ca = client_ca_file === undefined ? {} : { ca_file: client_ca_file };
  try {
    new Credentials({
      files: { cert_file, key_file, ...ca },
      clock: systemClock,
      onFault: (message) => faults.push(message),
    }).current();
  } catch (error) {
    const { message, hint } = toPsmaError(error);
    faults.push(hint === undefined ? message : `${message}. ${hint}`);
  }
  return faults;
}
