/** The runner's promises: a test that hangs, leaks, throws at the top or skips is seen for what it is. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { decodeJunit } from "../support/junit.ts";
import { type FileResult, runFile } from "../support/run_file.ts";
import { isRunning } from "../support/process.ts";
import { findCommand, requires, whatIsMissing } from "../support/requires.ts";
import { tempDir } from "../support/temp.ts";

const supportUrl = new URL("../support/", import.meta.url).href;

async function runSource(source: string, limit_ms = 30_000): Promise<FileResult> {
  using temp = tempDir();
  Deno.writeTextFileSync(temp.file("planted_test.ts"), source);
  Deno.writeTextFileSync(temp.file("deno.json"), "{}");
  return await runFile("planted_test.ts", {
    root: temp.path,
    limit_ms,
    leftovers: true,
    flags: [],
    filter: undefined,
    env: {},
    signal: new AbortController().signal,
  });
}

const failedNames = (result: FileResult) =>
  result.cases.filter((test) => test.outcome === "failed").map((test) => test.name);

Deno.test("runFile() counts tests, not their steps", async () => {
  const { cases } = await runSource(`
    Deno.test("one", async (t) => { await t.step("a", () => {}); await t.step("b", () => {}); });
    Deno.test("two <&> \\"three\\"", () => { throw new Error("broken"); });
    Deno.test({ name: "four", ignore: true, fn() {} });`);
  deepEqual(cases, [
    { name: "one", outcome: "passed" },
    { name: 'two <&> "three"', outcome: "failed" },
    { name: "four", outcome: "skipped" },
  ]);
});

Deno.test("runFile() fails a file that throws before its tests", async () => {
  const result = await runSource(`throw new Error("at the top");`);
  deepEqual(failedNames(result), ["ended with exit code 1"]);
  match(result.output, /at the top/);
});

Deno.test("runFile() kills a file that hangs, with what it started", async () => {
  const result = await runSource(
    `Deno.test("hangs", async () => {
       await new Deno.Command("sleep", { args: ["1000"] }).output();
     });`,
    2500,
  );
  deepEqual(failedNames(result), ["did not end within 2.5 s"]);
  ok(result.took_ms < 25_000);
});

Deno.test("runFile() reports a process and a file left behind, and removes both", async () => {
  const result = await runSource(`
    Deno.test("leaks", () => {
      const file = Deno.makeTempFileSync();
      const child = new Deno.Command("sleep", {
        args: ["1000"], stdin: "null", stdout: "null", stderr: "null", detached: true,
      }).spawn();
      child.unref();
      console.log("left", child.pid, file);
    });`);
  deepEqual(failedNames(result), ["left something behind"]);
  match(result.output, /process \d+ still runs: \S*sleep 1000/);
  match(result.output, /temporary file not removed/);
  const [, pid, file] = /left (\d+) (\S+)/.exec(result.output) ?? [];
  ok(pid && file);
  equal(runs(Number(pid)), false, "the process was ended");
  equal(isThere(file), false, "the file was removed");
});

Deno.test({
  name: "runFile() reports a mount and a loop device left behind, and takes both away",
  ...requires({ root: true, loop: true, commands: ["mount", "losetup"] }),
  async fn() {
    const result = await runSource(`
      Deno.test("leaks", () => {
        const run = (command, ...args) => {
          const { success, stdout } = new Deno.Command(command, { args }).outputSync();
          if (!success) throw new Error(command);
          return new TextDecoder().decode(stdout).trim();
        };
        const dir = Deno.makeTempDirSync();
        run("mount", "-t", "tmpfs", "psma-planted", dir);
        run("truncate", "-s", "1M", dir + "/image");
        console.log("left", run("losetup", "--find", "--show", dir + "/image"), dir);
      });`);
    deepEqual(failedNames(result), ["left something behind"]);
    const [, device, dir] = /left (\/dev\/loop\d+) (\S+)/.exec(result.output) ?? [];
    ok(device && dir);
    match(result.output, new RegExp(`still mounted: ${dir}`));
    match(result.output, new RegExp(`${device} still holds ${dir}/image`));
    equal(isThere(`/sys/block/${device.slice(5)}/loop/backing_file`), false, "loop detached");
    equal(Deno.readTextFileSync("/proc/self/mounts").includes(dir), false, "unmounted");
  },
});

Deno.test("runFile() reports a holder left behind, which has no environment to mark it, and ends it", async () => {
  const result = await runSource(`
    import { openFile, startHolder } from "${supportUrl}../../src/sys/mod.ts";
    Deno.test("leaks", () => {
      const subject = Deno.makeTempDirSync() + "/held";
      const fd = openFile(subject, { create: true });
      const { pid } = startHolder({ subject, note: "", descriptors: [fd] });
      console.log("left", pid);
    });`);
  deepEqual(failedNames(result), ["left something behind"]);
  const [, pid] = /left (\d+)/.exec(result.output) ?? [];
  match(result.output, new RegExp(`process ${pid} still runs: psma-holder `));
  equal(isRunning(Number(pid)), false);
});

Deno.test("runFile() passes on why a test was skipped", async () => {
  const result = await runSource(`
    import { requires } from "${supportUrl}requires.ts";
    Deno.test({ name: "skips", ...requires({ commands: ["psma-no-such-command"] }), fn() {} });
    Deno.test({ name: "skips too", ...requires({ devices: ["/dev/psma-none"] }), fn() {} });`);
  deepEqual(result.cases.map((test) => test.outcome), ["skipped", "skipped"]);
  deepEqual(result.missing, [
    { reason: "needs the command psma-no-such-command", setup: true },
    { reason: "needs /dev/psma-none", setup: false },
  ]);
});

Deno.test("whatIsMissing() finds nothing missing where all is there", () => {
  deepEqual(whatIsMissing({ commands: ["sh"], filesystems: ["proc"], temp_bytes: 1 }), []);
  equal(findCommand("psma-no-such-command"), undefined);
});

Deno.test("decodeJunit() reads nothing from an empty report", () => {
  deepEqual(decodeJunit(""), []);
});

/** A process that nobody has reaped yet has no command line any more. */
function runs(pid: number): boolean {
  return isThere(`/proc/${pid}`) && Deno.readTextFileSync(`/proc/${pid}/cmdline`) !== "";
}

function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
