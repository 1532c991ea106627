/**
 * Agents with copies of one state directory and one network store: the later one holds the volume. The older
 * writes nothing more, however late it learns of it, and says so; only an order takes the volume back.
 */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import {
  CopiedAgent,
  CountingWriter,
  startApplications,
  type Way,
} from "../../support/copied_agents.ts";
import { freePort, kill } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { startStoreProcess } from "../../support/store_process.ts";
import { TcpRelay } from "../../support/tcp_relay.ts";
import { tempDir } from "../../support/temp.ts";

const FENCED = /another writer has taken the volume over, and all I\/O fails/;
const HELD = /another agent holds it, and split brain is possible/;

/** All acknowledged writes are there, and nothing that was never sent. */
function isWhole(numbers: readonly number[], writer: CountingWriter) {
  for (const [lane, number] of numbers.entries()) {
    const acknowledged = writer.acknowledged[lane] ?? 0, sent = writer.sent[lane] ?? 0;
    ok(acknowledged <= number && number <= sent, `${acknowledged} <= ${number} <= ${sent}`);
  }
}

Deno.test({
  name:
    "of agents with one state directory the later one alone writes: at work, stopped, or cut off",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    const direct: Way = { http: freePort(), nbd: freePort() };
    await using store = await startStoreProcess({
      directories: [temp.file("far")],
      listen: `127.0.0.1:${direct.http}`,
      nbd: `127.0.0.1:${direct.nbd}`,
    });
    await using http = new TcpRelay(direct.http);
    await using nbd = new TcpRelay(direct.nbd);
    await using applications = await startApplications();
    const { token_file } = store;
    const begin = (name: string, way: Way, original?: CopiedAgent) =>
      CopiedAgent.start(temp, { name, way, token_file, ...(original ? { original } : {}) });
    const application = async (agent: CopiedAgent) =>
      await CountingWriter.open(applications, await agent.served());

    // The older one is at work.
    await using first = begin("first", direct);
    const writes = await application(first);
    writes.start([]);
    await writes.further(10);
    await using second = begin("second", direct, first);
    const of_second = await application(second);
    const at_second = await of_second.read();
    isWhole(at_second, writes);
    await writes.failed();
    match((await first.saysFenced()).reason ?? "", FENCED);
    deepEqual(await of_second.read(), at_second);

    // It is stopped while another takes over, and goes on afterwards.
    of_second.start(at_second);
    await of_second.further(10);
    kill(second.pid, "SIGSTOP");
    await using third = begin("third", { http: http.port, nbd: nbd.port }, second);
    const of_third = await application(third);
    const at_third = await of_third.read();
    isWhole(at_third, of_second);
    kill(second.pid, "SIGCONT");
    await of_second.failed();
    match((await second.saysFenced()).reason ?? "", FENCED);
    deepEqual(await of_third.read(), at_third);

    // Its network is cut, with writes on their way, and heals afterwards.
    of_third.start(at_third);
    await of_third.further(10);
    for (const relay of [http, nbd]) relay.cut();
    await using fourth = begin("fourth", direct, third);
    const of_fourth = await application(fourth);
    const at_fourth = await of_fourth.read();
    isWhole(at_fourth, of_third);
    for (const relay of [http, nbd]) relay.heal();
    await of_third.failed();
    match((await third.saysFenced()).reason ?? "", FENCED);
    deepEqual(await of_fourth.read(), at_fourth);

    // Nothing of that changes by itself; an order takes it back, of a volume that nobody uses.
    of_fourth.start(at_fourth);
    await of_fourth.further(10);
    match((await first.psma(["volume", "claim", "data"], { exit: 2 })).stderr, /--yes is missing/);
    const attached = await first.psma(["volume", "claim", "data", "--yes"], { exit: 4 });
    match(attached.stderr, /is attached, and would change under its users/);
    const held = await fourth.psma(["volume", "claim", "data", "--yes"], { exit: 4 });
    match(held.stderr, /is attached/);
    await first.psma(["volume", "detach", "data", "--force"]);
    await first.psma(["volume", "claim", "data", "--yes"]);
    await first.psma(["volume", "attach", "data"]);
    const again = await application(first);
    const at_first = await again.read();
    isWhole(at_first, of_fourth);
    await of_fourth.failed();
    match((await fourth.saysFenced()).reason ?? "", FENCED);
    deepEqual(await again.read(), at_first);
    ok((await first.events()).includes("volume.claimed"));
    await first.psma(["volume", "detach", "data", "--force"]);
    const unfenced = await first.psma(["volume", "claim", "data", "--yes"], { exit: 4 });
    match(unfenced.stderr, /no other agent has taken it over/);

    // One that starts with a state of long ago is refused, and says why.
    await using stale = begin("stale", direct, second);
    const view = await stale.refused();
    match(view.reason ?? "", HELD);
    equal(view.state, "failed");
  },
});
