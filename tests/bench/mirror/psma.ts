/** PSMA's side: program.ts, and a store server in a process of its own as the target, digests and all. */
import { mirrorTerms } from "../../support/mirror_terms.ts";
import { startStoreProcess } from "../../support/store_process.ts";
import { start, type Started } from "../../support/process.ts";
import type { CommandName, Commands } from "../../../src/dataplane/mod.ts";
import { CountingRelay } from "./counting_relay.ts";
import { JsonLines } from "./json_lines.ts";
import type { Side, SideKind, SideOptions } from "./side.ts";
import { within } from "./within.ts";

export interface ProgramOptions {
  /** The Unix socket that takes commands. */
  readonly control: string;
  readonly directory: string;
  readonly image: string;
  /** The target's store server. */
  readonly store: { readonly url: string; readonly token_file: string };
}

/** Targets are larger than their sources: a scaling event's are. */
const GROWTH_BYTES = 2 ** 20;
/** What a configuration has that says nothing of them. */
const TERMS = mirrorTerms({ resync_interval_ms: 300_000, write_through_timeout_ms: 200 });

export const PSMA: SideKind = { name: "psma", start: startSide };

async function startSide(options: SideOptions): Promise<Side> {
  const { directory, image, counted } = options;
  await using starting = new AsyncDisposableStack();
  const nbd = `${directory}/store.sock`, http = `${directory}/http.sock`;
  const server = starting.use(
    await startStoreProcess({
      directories: [`${directory}/store`],
      listen: `unix:${http}`,
      nbd: `unix:${nbd}`,
    }),
  );
  const { size } = Deno.statSync(image);
  const { placement } = await server.store.requestMirror({
    source: { agent: "bench", volume: "data", size_bytes: size, used_bytes: size },
    predicted_need: { bytes: size, level: 0.95, at: new Date(0).toISOString() },
    size_bytes: size + GROWTH_BYTES,
    deadline: new Date(0).toISOString(),
    epoch: 1,
    idempotency_key: "bench",
  });
  const relays = counted
    ? [[nbd, `${nbd}.r`], [http, `${http}.r`]].map(([to = "", from = ""]) =>
      starting.use(new CountingRelay(from, to))
    )
    : [];
  const url = counted ? `unix:${http}.r` : server.url;
  const target = counted && placement.backend.type === "nbd"
    ? { ...placement, backend: { ...placement.backend, uri: placement.backend.uri + ".r" } }
    : placement;
  const control = `${directory}/control.sock`;
  const script = new URL("./program.ts", import.meta.url).pathname;
  const given: ProgramOptions = {
    control,
    directory,
    image,
    store: { url, token_file: server.token_file },
  };
  const program = starting.use(
    start(Deno.execPath(), ["run", "-A", "--quiet", script, JSON.stringify(given)]),
  );
  const [, uri = ""] = await program.line(/^ready (\S+)$/m);
  const plane = starting.use(new Remote(await JsonLines.connect(control), program));
  const running = starting.move();
  let converged: Promise<boolean> | undefined;
  /** Asked for at once: the mirror goes from its first round to readiness without a pause. */
  const converge = () => {
    const argument = { volume: "data", timeout_ms: 600_000 };
    converged = plane.command("convergeMirror", argument).then(() => true);
    converged.catch(() => {});
  };
  return {
    uri,
    sentBytes: () => relays.reduce((sum, { sentBytes }) => sum + sentBytes, 0),
    async begin() {
      await plane.command("startMirror", {
        volume: "data",
        id: "m1",
        target,
        terms: TERMS,
        compare: false,
      });
      converge();
    },
    ready: async (within_ms) => await within(converged, within_ms),
    async pause() {
      await plane.command("pauseMirror", { volume: "data" });
      return true;
    },
    async resume() {
      await plane.command("resumeMirror", { volume: "data" });
      converge();
    },
    async switchOver(within_ms) {
      const switched = plane.command("switchVolume", { volume: "data", timeout_ms: within_ms });
      return await within(switched.then(() => true), within_ms);
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** The data plane in the program. */
class Remote implements Disposable {
  #seq = 0;

  constructor(readonly lines: JsonLines, readonly program: Started) {}

  async command<Name extends CommandName>(
    name: Name,
    argument: Commands[Name]["argument"],
  ): Promise<Commands[Name]["answer"]> {
    const seq = ++this.#seq;
    await this.lines.send({ seq, name, argument });
    const { error, value } = await this.lines.take((message) => message["seq"] === seq);
    if (error === undefined) return value as Commands[Name]["answer"];
    throw new Error(`${name}: ${error}\n${this.program.output()}`);
  }

  [Symbol.dispose](): void {
    this.lines[Symbol.dispose]();
  }
}
