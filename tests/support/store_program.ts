/** A store server in a process of its own: `store_program.ts OPTIONS-JSON`. Prints `ready URL TOKEN_FILE`. */
import { createLog } from "../../src/core/mod.ts";
import { startStore } from "../../src/datastore/mod.ts";

const options = JSON.parse(Deno.args[0] ?? "{}");
const store = await startStore({ ...options, log: createLog() });
Deno.addSignalListener("SIGTERM", async () => {
  await store.stop();
  Deno.exit(0);
});
await Deno.stdout.write(new TextEncoder().encode(`ready ${store.url} ${store.token_file}\n`));
await store.died;
