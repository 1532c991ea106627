/** Real holders: what they keep, what they cost, what they survive, and that they end. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { isRunning, kill, run, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";
import {
  closeFile,
  endHolders,
  findHolders,
  type Holder,
  openFile,
  openPidfd,
  reapChild,
  startHolder,
  takeDescriptor,
} from "../../../src/sys/mod.ts";

/** Ends and reaps a holder that a test has started. */
function endedAtTheEnd({ pid, pidfd }: Holder): Disposable {
  return {
    [Symbol.dispose]() {
      kill(pid, "SIGKILL");
      reapChild(pid);
      closeFile(pidfd);
    },
  };
}

function hold(subject: string, note: string): Holder {
  Deno.writeTextFileSync(subject, "kept");
  const fd = openFile(subject);
  try {
    return startHolder({ subject, note, descriptors: [fd] });
  } finally {
    closeFile(fd);
  }
}

function contentOf(holder: Holder): string {
  const fd = takeDescriptor(holder.pidfd, 0);
  try {
    return Deno.readTextFileSync(`/proc/self/fd/${fd}`);
  } finally {
    closeFile(fd);
  }
}

Deno.test("a holder keeps a file that has no name any more, and gives it to who asks", () => {
  using temp = tempDir();
  const subject = temp.file("held file"), note = '{"said":"ä \\" \'"}';
  const holder = hold(subject, note);
  using _end = endedAtTheEnd(holder);
  Deno.removeSync(subject);
  const found = findHolders(subject);
  deepEqual(found.map(({ pid, note }) => ({ pid, note })), [{ pid: holder.pid, note }]);
  for (const one of found) {
    equal(contentOf(one), "kept");
    closeFile(one.pidfd);
  }
  deepEqual(findHolders(temp.file("held")), []);
});

Deno.test("a holder has no descriptor but its own, no environment, no terminal, and next to no memory", async () => {
  using temp = tempDir();
  using secret = Deno.openSync(temp.file("secret"), { write: true, create: true });
  ok(secret);
  const holder = hold(temp.file("held"), "");
  using _end = endedAtTheEnd(holder);
  const proc = `/proc/${holder.pid}`;
  const descriptors = () =>
    [...Deno.readDirSync(`${proc}/fd`)].map(({ name }) => Deno.readLinkSync(`${proc}/fd/${name}`));
  // It closes them itself, in its first moment.
  await waitUntil(() => descriptors().every((one) => one === temp.file("held")), {
    what: () => `the others to be closed: ${descriptors()}`,
  });
  equal(Deno.readTextFileSync(`${proc}/environ`), "");
  equal(Deno.readLinkSync(`${proc}/cwd`), "/");
  const { stdout } = await run("ps", ["-o", "sid=,tty=,comm=", "-p", `${holder.pid}`]);
  deepEqual(stdout.trim().split(/\s+/), [`${holder.pid}`, "?", "psma-holder"]);
  const resident = /VmRSS:\s+(\d+) kB/.exec(Deno.readTextFileSync(`${proc}/status`))?.[1];
  ok(Number(resident) <= 64, `${resident} KiB`);
});

Deno.test("a holder outlives the process that started it, however that ends", async () => {
  using temp = tempDir();
  const subject = temp.file("held"), mod = new URL("../../../src/sys/mod.ts", import.meta.url);
  const script = temp.file("start.ts");
  Deno.writeTextFileSync(
    script,
    `import { openFile, startHolder } from ${JSON.stringify(mod.href)};
     const fd = openFile(${JSON.stringify(subject)}, { create: true });
     startHolder({ subject: ${JSON.stringify(subject)}, note: "n", descriptors: [fd] });
     Deno.kill(Deno.pid, "SIGKILL");`,
  );
  await run(Deno.execPath(), ["run", "-A", "--quiet", script], { exit: 137 });
  const [holder] = findHolders(subject);
  ok(holder);
  equal(contentOf(holder), "");
  closeFile(holder.pidfd);
  equal(endHolders(subject), 1);
  await waitUntil(() => !isRunning(holder.pid), { what: "the holder to end" });
  equal(endHolders(subject), 0);
});

Deno.test({
  name: "a process that only calls itself a holder is none",
  ...requires({ commands: ["bash"] }),
  async fn() {
    using temp = tempDir();
    const child = new Deno.Command("bash", {
      args: ["-c", `exec -a psma-holder sleep 1000 2>/dev/null`, temp.path],
    }).spawn();
    try {
      await waitUntil(
        () => Deno.readTextFileSync(`/proc/${child.pid}/cmdline`).startsWith("psma-holder\0"),
        { what: "its name" },
      );
      deepEqual(findHolders("1000"), []);
    } finally {
      kill(child.pid, "SIGKILL");
      await child.status;
    }
  },
});

Deno.test("a number that has become a thread's stands for no process", () => {
  const threads = [...Deno.readDirSync("/proc/self/task")].map(({ name }) => Number(name));
  const thread = threads.find((one) => one !== Deno.pid);
  ok(thread !== undefined);
  equal(openPidfd(thread), undefined);
});
