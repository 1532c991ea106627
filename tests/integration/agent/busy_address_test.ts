/** `psma run` where somebody else has the API's address: it touches no volume. And where its socket is its own. */
import { deepEqual, equal } from "node:assert/strict";
import { psma, startPsma } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

function configText(listen: string): string {
  return `
state_dir: state
api: { listen: "${listen}" }
stores:
  near: { type: embedded, path: near }
volumes:
  data: { size: 64MiB, frontend: nbd }
`;
}

for (const place of ["port", "Unix socket"]) {
  Deno.test(`agent: a ${place} that is another's ends it before it has made anything`, async () => {
    using temp = tempDir();
    const path = temp.file("api.sock");
    using other = place === "port"
      ? Deno.listen({ hostname: "127.0.0.1", port: 0 })
      : Deno.listen({ transport: "unix", path });
    const { addr } = other;
    const listen = "port" in addr ? `127.0.0.1:${addr.port}` : `unix:${path}`;
    const config = temp.file("psma.yaml");
    Deno.writeTextFileSync(config, configText(listen));
    const before = namesIn(temp.path);
    const { stdout, stderr } = await psma(["run", "--config", config], { exit: 4 });
    const [url, why] = place === "port"
      ? [`http://${listen}`, "another process listens there"]
      : [listen, "another process answers there"];
    equal(
      stderr,
      `psma: Cannot listen on ${url}: ${why}\n` +
        "  Stop the other process, or set api.listen to another address.\n" +
        "  code: state/address-in-use\n",
    );
    equal(stdout, "");
    deepEqual(namesIn(temp.path), before);
  });
}

Deno.test({
  name: "agent: its API's socket may be in a state directory that is not there yet",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    const config = temp.file("psma.yaml");
    Deno.writeTextFileSync(config, configText("unix:state/api.sock"));
    await using agent = startPsma(["run", "--config", config]);
    await agent.line(/the API listens/);
    await psma(["status", "--config", config]);
    equal((Deno.statSync(temp.file("state")).mode ?? 0) & 0o777, 0o700);
    equal((await agent.end()).code, 0, agent.output());
  },
});

function namesIn(path: string): string[] {
  return [...Deno.readDirSync(path)].map(({ name }) => name).sort();
}
