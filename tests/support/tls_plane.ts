/** A data plane that serves one volume over NBD, in plain text on a Unix socket and by TLS on loopback. */
import { silentLog } from "../../src/core/mod.ts";
import { DataPlane, type DataPlaneEvent } from "../../src/dataplane/mod.ts";
import type { Certificates } from "./certificates.ts";
import { thinPlacement } from "./planes.ts";
import { waitUntil } from "./process.ts";
import type { TempDir } from "./temp.ts";

export interface TlsPlane extends AsyncDisposable {
  readonly plane: DataPlane;
  readonly port: number;
  /** `nbds://localhost:port/data`. */
  readonly uri: string;
  /** The file with the volume's bytes. */
  readonly backing: string;
  readonly events: readonly DataPlaneEvent[];
  /** As libnbd takes it. @param dir with the certificates of the client. */
  toolUri(dir: string): string;
  /** Waits for an event. @returns its message. */
  told(pattern: RegExp): Promise<string>;
}

export interface ServeByTls {
  readonly certificates: Certificates;
  readonly size_bytes: number;
  /** Clients must show a certificate of the same authority. */
  readonly demand?: boolean;
  readonly handshake_ms?: number;
}

export async function serveByTls(temp: TempDir, serve: ServeByTls): Promise<TlsPlane> {
  const { certificates, size_bytes, demand = false, handshake_ms = 10_000 } = serve;
  const events: DataPlaneEvent[] = [];
  const plane = await DataPlane.start({
    log: silentLog,
    onEvent: (event) => events.push(event),
    tls_directory: temp.file("tls"),
  });
  try {
    const path = temp.file("nbd.sock"), backing = temp.file("backing"), name = "data";
    await plane.command("serveNbd", { listen: { path }, fenced: false });
    await plane.command("openVolume", {
      name,
      directory: temp.file("volume"),
      max_size_bytes: size_bytes,
      initial: thinPlacement(backing, size_bytes),
    });
    await plane.command("exportNbd", { name, description: "by TLS" });
    const base = await plane.serveTls({
      listen: { host: "127.0.0.1", port: 0 },
      forward_to: path,
      handshake_ms,
      ...certificates.server,
      ...(demand ? { client_ca_file: certificates.ca_file } : {}),
    });
    const port = Number(/:(\d+)$/.exec(base)?.[1]);
    const uri = `nbds://localhost:${port}/${name}`;
    return {
      plane,
      port,
      uri,
      backing,
      events,
      toolUri: (dir) => `${uri}?tls-certificates=${dir}`,
      told: (pattern) =>
        waitUntil(() => events.find(({ message }) => pattern.test(message))?.message, {
          what: () => `an event like ${pattern}; there are ${JSON.stringify(events)}`,
          within_ms: 20_000,
        }),
      [Symbol.asyncDispose]: () => plane.stop(),
    };
  } catch (error) {
    await plane.stop();
    throw error;
  }
}
