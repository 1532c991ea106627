/** The catalogue: what is remembered, and what is refused. */
import { deepEqual, equal, throws } from "node:assert/strict";
import { Catalogue } from "../../../src/agent/catalogue.ts";
import { parseConfig } from "../../../src/agent/config.ts";
import { need, seededRng } from "../../../src/core/mod.ts";
import { tempDir } from "../../support/temp.ts";

const spec = need(
  parseConfig("volumes: { data: { size: 1GiB } }", "/").config?.volumes["data"],
  "spec",
);

Deno.test("Catalogue remembers entries, changes and its agent's name", () => {
  using temp = tempDir();
  const path = temp.file("catalogue.json");
  const first = new Catalogue(path, seededRng(1));
  first.add("data", spec);
  throws(() => first.add("data", spec), { code: "state/exists" });
  first.update("data", { intent: { verb: "scale", size_bytes: 5, operation_id: "op-1" } });
  const second = new Catalogue(path, seededRng(2));
  equal(second.agent, first.agent);
  deepEqual(second.get("data"), first.get("data"));
  equal(second.get("data").intent?.size_bytes, 5);
  second.remove("data");
  deepEqual(new Catalogue(path, seededRng(3)).names(), []);
  throws(() => second.get("data"), { code: "not-found/volume" });
  equal((Deno.statSync(path).mode ?? 0) & 0o777, 0o600);
});

Deno.test("Catalogue refuses a file that it does not understand, and leaves it alone", () => {
  using temp = tempDir();
  const path = temp.file("catalogue.json");
  for (
    const text of ["", "{", "[]", '{"format": 2, "agent": "a", "volumes": []}', '{"format": 1}']
  ) {
    Deno.writeTextFileSync(path, text);
    throws(() => new Catalogue(path, seededRng(1)), { code: "state/catalogue" });
    equal(Deno.readTextFileSync(path), text);
  }
});
