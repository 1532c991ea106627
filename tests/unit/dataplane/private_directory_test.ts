/** A directory for sockets: made private, swept of dead sockets, refused when others may enter it. */
import { deepEqual, equal, throws } from "node:assert/strict";
import { makePrivateDirectory } from "../../../src/dataplane/private_directory.ts";
import { tempDir } from "../../support/temp.ts";

Deno.test("makePrivateDirectory() makes it with mode 0700 and removes sockets that were left", () => {
  using temp = tempDir();
  const path = temp.file("d");
  equal(makePrivateDirectory(path), path);
  equal((Deno.statSync(path).mode ?? 0) & 0o777, 0o700);
  // A second name stays behind when the listener closes, as after a kill.
  const left = Deno.listen({ transport: "unix", path: temp.file("s") });
  Deno.linkSync(temp.file("s"), `${path}/0`);
  left.close();
  Deno.writeTextFileSync(`${path}/file`, "somebody's");
  makePrivateDirectory(path);
  deepEqual([...Deno.readDirSync(path)].map(({ name }) => name), ["file"]);
});

Deno.test("makePrivateDirectory() refuses one that others may enter, and a link to one", () => {
  using temp = tempDir();
  Deno.mkdirSync(temp.file("open"));
  Deno.chmodSync(temp.file("open"), 0o750);
  throws(() => makePrivateDirectory(temp.file("open")), { code: "state/private-directory" });
  Deno.mkdirSync(temp.file("d"), { mode: 0o700 });
  Deno.symlinkSync(temp.file("d"), temp.file("link"));
  throws(() => makePrivateDirectory(temp.file("link")), { code: "state/private-directory" });
});
