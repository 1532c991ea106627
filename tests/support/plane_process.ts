/** The other end of plane_program.ts: starts it and says where its volume is. */
import type { ExportInfo } from "../../src/dataplane/mod.ts";
import { start, type Started } from "./process.ts";

export interface ServedVolume {
  /** The file that holds the volume's bytes; its size is the volume's. */
  readonly image: string;
  readonly frontend: "nbd" | "fuse";
  /** Mounted on the FUSE frontend's loop device. */
  readonly filesystem?: { readonly type: string; readonly mount: string };
}

export interface PlaneProcessOptions {
  /** For the volume's own files, the socket and the served file. */
  readonly directory: string;
  /** As DataPlaneOptions has it. */
  readonly replay?: boolean;
  /** Without it the process has loaded the data plane's code and not started it. */
  readonly volume?: ServedVolume;
}

export interface PlaneProcess extends AsyncDisposable {
  readonly process: Started;
  /** Null without a volume. */
  readonly exported: ExportInfo | null;
}

export async function startPlane(options: PlaneProcessOptions): Promise<PlaneProcess> {
  const script = new URL("./plane_program.ts", import.meta.url).pathname;
  const process = start(Deno.execPath(), ["run", "-A", "--quiet", script, JSON.stringify(options)]);
  try {
    const [, exported = "null"] = await process.line(/^ready (.*)$/m);
    return {
      process,
      exported: JSON.parse(exported) as ExportInfo | null,
      [Symbol.asyncDispose]: () => process[Symbol.asyncDispose](),
    };
  } catch (error) {
    await process[Symbol.asyncDispose]();
    throw error;
  }
}
