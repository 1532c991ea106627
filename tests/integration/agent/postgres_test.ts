/**
 * PostgreSQL on a mounted volume while the volume moves to a store server, moves again, goes back to its backup, and
 * while agent and store are killed: pgbench's clients see no error, and afterwards every page, index and account is as it must be.
 */
import { MountedNode, mountedNodeNeeds } from "../../support/mounted_node.ts";
import { Postgres } from "../../support/postgres.ts";
import { tempDir } from "../../support/temp.ts";

const MIB = 2 ** 20;

Deno.test({
  name:
    "agent: pgbench sees no error across first sync, switches, rollback and kills, and the books balance",
  ...mountedNodeNeeds({ commands: ["initdb", "pgbench", "pg_amcheck", "setpriv"] }),
  async fn() {
    using temp = tempDir();
    await using node = await MountedNode.start(temp, ", backup: async");
    const postgres = await Postgres.create(`${node.mount}/pg`, temp.file("s"));
    node.use(postgres);
    postgres.work();
    await postgres.worked();
    await node.scale(640 * MIB);
    await postgres.worked();
    await node.killAgent();
    await postgres.worked();
    await node.scale(768 * MIB);
    await postgres.worked();
    await node.rollBack();
    await postgres.worked();
    await node.killStore();
    await postgres.worked();
    await postgres.endWork();
    await postgres.checkBooks();
    await postgres.end();
    // From here on everything comes from the volume again, nothing from a cache above it.
    await node.remount();
    await postgres.checkPages();
    await postgres.restart();
    await postgres.checkBooks();
    await postgres.end();
    await node.endWhole();
  },
});
