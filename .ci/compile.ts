/**
 * `deno task compile`: builds `dist/psma`, the one file that users install.
 *
 * The sources are bundled first, because compiling sources embeds all packages whole. Where deno's
 * own runtime for executables (denort) can be had, `deno compile` embeds the bundle in it; elsewhere
 * the bundle and deno itself go into a self-extracting shell script. Both run the same files.
 */
import { bundleApp, root, run } from "./bundle.ts";

const app = `${root}/dist/app`;
const built = `${root}/dist/psma`;
const DENORT_WAIT_MS = 10_000;

function say(line: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(line + "\n"));
}

async function denortIsAtHand(): Promise<boolean> {
  if (Deno.env.get("DENORT_BIN")) return true;
  const file = `release/v${Deno.version.deno}/denort-${Deno.build.target}.zip`;
  const { stdout } = new Deno.Command(Deno.execPath(), { args: ["info", "--json"] }).outputSync();
  const { denoDir } = JSON.parse(new TextDecoder().decode(stdout)) as { denoDir: string };
  try {
    Deno.statSync(`${denoDir}/dl/${file}`);
    return true;
  } catch {
    // Not fetched before.
  }
  const signal = AbortSignal.timeout(DENORT_WAIT_MS);
  return await fetch(`https://dl.deno.land/${file}`, { method: "HEAD", signal })
    .then((answer) => answer.ok, () => false);
}

/** Embeds the bundle in denort. */
function compile(): void {
  const flags = ["--no-config", "--no-lock", "--no-check", "--no-prompt", "--quiet", "-A"];
  run(Deno.execPath(), ["compile", ...flags, "--include", app, "-o", built, `${app}/main.js`]);
}

/** Writes the self-extracting script: its head, then the archive that it unpacks. */
async function packSelfExtracting(): Promise<void> {
  const folder = Deno.makeTempDirSync({ prefix: "psma-pack" });
  try {
    run("cp", ["-R", app, `${folder}/app`]);
    Deno.copyFileSync(Deno.execPath(), `${folder}/deno`);
    Deno.chmodSync(`${folder}/deno`, 0o755);
    const archive = `${folder}.tar.gz`;
    // The same files give the same bytes, whoever builds and when.
    const owner = ["--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"];
    const same = ["--sort=name", "--mtime=@0", "--format=ustar", ...owner];
    run("tar", [...same, "-C", folder, "-czf", archive, "app", "deno"]);
    const payload = Deno.readFileSync(archive);
    Deno.removeSync(archive);
    const head = await headFor(payload);
    const temporary = `${built}.new`;
    Deno.writeFileSync(temporary, head, { mode: 0o755 });
    Deno.writeFileSync(temporary, payload, { append: true });
    Deno.renameSync(temporary, built);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

async function headFor(payload: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", payload));
  const hash = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const template = Deno.readTextFileSync(new URL("./self_extract.sh", import.meta.url))
    .replace("@HASH@", hash);
  // Padded to the placeholder's length, so that the number does not move what it counts.
  const skip = String(template.length + 1).padEnd("@SKIP@".length);
  return new TextEncoder().encode(template.replace("@SKIP@", skip));
}

/** Starts the built file as a user would for the first time. */
function selfTest(): void {
  const home = Deno.makeTempDirSync({ prefix: "psma-home" });
  try {
    run(built, ["version"], { HOME: home, PSMA_RUNTIME_DIR: `${home}/runtime` });
  } finally {
    Deno.removeSync(home, { recursive: true });
  }
}

async function main(): Promise<void> {
  run("rm", ["-rf", "dist"]);
  bundleApp(app);
  if (await denortIsAtHand()) compile();
  else {
    say("denort is out of reach; packing deno itself into a self-extracting file");
    await packSelfExtracting();
  }
  selfTest();
  say(`built dist/psma, ${(Deno.statSync(built).size / 1024 ** 2).toFixed(1)} MiB`);
}

try {
  await main();
} catch (error) {
  say(error instanceof Error ? error.message : String(error));
  Deno.exit(1);
}
