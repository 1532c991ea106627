/** Certificate authorities made with openssl, in folders as libnbd, nbdkit and qemu take them. */
import { run } from "./process.ts";

const KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
const NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1";

/** A folder with `ca-cert.pem`, `server-cert.pem`, `server-key.pem`, `client-cert.pem` and `client-key.pem`. */
export interface Certificates {
  readonly dir: string;
  readonly ca_file: string;
  readonly server: { readonly cert_file: string; readonly key_file: string };
  readonly client: { readonly cert_file: string; readonly key_file: string };
}

export interface MakeCertificates {
  /** What the server's certificate is for; default localhost and 127.0.0.1. */
  readonly server_names?: string;
  /** The server's certificate is out of date. */
  readonly expired?: boolean;
}

/** Makes an authority and what it signs in `dir`, which must not exist. */
export async function makeCertificates(
  dir: string,
  { server_names = NAMES, expired = false }: MakeCertificates = {},
): Promise<Certificates> {
  Deno.mkdirSync(dir, { mode: 0o700 });
  const file = (name: string) => `${dir}/${name}`;
  const openssl = (...args: string[]) => run("openssl", args, { cwd: dir });
  const ca = ["-keyout", file("ca-key.pem"), "-out", file("ca-cert.pem"), "-subj", "/CN=test"];
  const asCa = ["-addext", "basicConstraints=critical,CA:TRUE", "-days", "2"];
  await openssl("req", "-x509", ...KEY, ...ca, ...asCa);
  const issue = async (role: "server" | "client", names: string, days: string) => {
    const cert_file = file(`${role}-cert.pem`), key_file = file(`${role}-key.pem`);
    const request = file(`${role}.csr`), extensions = file(`${role}.ext`);
    await openssl("req", ...KEY, "-keyout", key_file, "-out", request, "-subj", `/CN=${role}`);
    Deno.writeTextFileSync(extensions, `${names}\nbasicConstraints=CA:FALSE\n`);
    const signer = ["-CA", file("ca-cert.pem"), "-CAkey", file("ca-key.pem"), "-CAcreateserial"];
    const signed = ["-in", request, "-out", cert_file, "-days", days, "-extfile", extensions];
    await openssl("x509", "-req", ...signer, ...signed);
    return { cert_file, key_file };
  };
  const server = await issue("server", server_names, expired ? "-1" : "1");
  const client = await issue("client", "subjectAltName=DNS:client", "1");
  return { dir, ca_file: file("ca-cert.pem"), server, client };
}

/** A folder with the authority's certificate alone, for a client that shows none. */
export function withoutClient(certificates: Certificates, dir: string): string {
  Deno.mkdirSync(dir, { mode: 0o700 });
  Deno.copyFileSync(certificates.ca_file, `${dir}/ca-cert.pem`);
  return dir;
}
