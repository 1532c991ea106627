/**
 * SQLite on a mounted volume, with a write-ahead log and with a rollback journal, while the volume moves to a store
 * server, moves again, goes back to its backup, and while agent and store are killed: no transaction fails, and none that was acknowledged is
 * missing afterwards.
 */
import {
  checkDatabase,
  type Journal,
  SqliteApplication,
} from "../../support/sqlite_application.ts";
import { MountedNode, mountedNodeNeeds } from "../../support/mounted_node.ts";
import { tempDir } from "../../support/temp.ts";

const MIB = 2 ** 20;
const JOURNALS: readonly Journal[] = ["wal", "delete"];

Deno.test({
  name:
    "agent: SQLite loses no acknowledged transaction across first sync, switches, rollback and kills",
  ...mountedNodeNeeds({ commands: ["sqlite3"] }),
  async fn() {
    using temp = tempDir();
    await using node = await MountedNode.start(temp, ", backup: sync");
    const applications = JOURNALS.map((journal) =>
      node.use(new SqliteApplication(`${node.mount}/${journal}.db`, journal))
    );
    const allWorked = () => Promise.all(applications.map((application) => application.worked()));
    await allWorked();
    await node.scale(640 * MIB);
    await allWorked();
    await node.killStore();
    await allWorked();
    await node.killAgent();
    await allWorked();
    const [killed] = await Promise.allSettled([node.killStore(), node.scale(768 * MIB)]);
    if (killed.status === "rejected") throw killed.reason;
    await allWorked();
    await node.rollBack();
    await allWorked();
    await node.killAgent();
    await allWorked();
    const rows = await Promise.all(applications.map((application) => application.endWhole()));
    await node.remount();
    for (const [index, { path }] of applications.entries()) {
      await checkDatabase(path, rows[index] ?? NaN);
    }
    await node.endWhole();
  },
});
