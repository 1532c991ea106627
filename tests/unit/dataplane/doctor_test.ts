/** What the doctor says of this machine, and that the service manager hears. */
import { equal, match, ok } from "node:assert/strict";
import { probeHost } from "../../../src/dataplane/doctor.ts";
import { notifyServiceManager } from "../../../src/dataplane/service_manager.ts";
import { cString, libc } from "../../../src/sys/libc.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

Deno.test("probeHost() judges the token by its mode and says what to do", async () => {
  using temp = tempDir();
  const token_file = temp.file("token");
  const probe = async () => {
    const findings = await probeHost({ state_dir: temp.path, token_file });
    return findings.find(({ name }) => name === "token");
  };
  match((await probe())?.found ?? "", /is made by the first psma run/);
  Deno.writeTextFileSync(token_file, "x", { mode: 0o600 });
  equal((await probe())?.level, "ok");
  Deno.chmodSync(token_file, 0o640);
  equal((await probe())?.level, "fail");
  match((await probe())?.advice ?? "", /chmod 600/);
});

Deno.test("probeHost() gives every line that falls short a reason, and finds space for a folder to be", async () => {
  using temp = tempDir();
  const places = { state_dir: temp.file("not/yet/made"), token_file: temp.file("t") };
  const findings = await probeHost(places);
  for (const { name, level, found } of findings) ok(found.length > 0, `${name} ${level}`);
  match(findings.find(({ name }) => name === "state_dir")?.found ?? "", /\d.*free/);
  equal(new Set(findings.map(({ name }) => name)).size, findings.length);
});

Deno.test({
  name: "probeHost() finds io_uring where it works",
  ...requires({ io_uring: true }),
  async fn() {
    const findings = await probeHost({ state_dir: "/", token_file: "/none" });
    equal(findings.find(({ name }) => name === "io_uring")?.level, "ok");
  },
});

const AF_UNIX = 1, SOCK_DGRAM = 2;

Deno.test("notifyServiceManager() sends one datagram, to a path or an abstract name", () => {
  using temp = tempDir();
  const path = temp.file("notify");
  const abstract = `@psma-test-${crypto.randomUUID()}`;
  for (const [socket, name] of [[path, cString(path)], [abstract, zeroFirst(abstract)]] as const) {
    const fd = libc().socket(AF_UNIX, SOCK_DGRAM, 0);
    try {
      equal(libc().bind(fd, address(name), 2 + name.length), 0);
      ok(notifyServiceManager("READY=1", socket));
      const received = new Uint8Array(64);
      const length = Number(libc().read(fd, received, 64n));
      equal(new TextDecoder().decode(received.subarray(0, length)), "READY=1");
    } finally {
      libc().close(fd);
    }
  }
});

Deno.test("notifyServiceManager() is quiet where nobody listens, or nobody asked", () => {
  using temp = tempDir();
  for (const socket of [undefined, "", "relative", temp.file("none"), `/${"x".repeat(200)}`]) {
    equal(notifyServiceManager("READY=1", socket), false);
  }
});

function zeroFirst(name: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`\0${name.slice(1)}`);
}

function address(name: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(2 + name.length);
  bytes[0] = AF_UNIX;
  bytes.set(name, 2);
  return bytes;
}
