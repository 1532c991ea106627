/** `psma volume …`: make, show, serve and delete volumes. */
import type { Command } from "@commander-js/extra-typings";
import type { VolumeView } from "../../api/client.ts";
import { formatSize, parseSize, PsmaError } from "../../core/mod.ts";
import { formatPairs } from "../table.ts";
import { formatVerifyLine } from "../verify_text.ts";
import { group, type Session, type Start, verb } from "../verb.ts";
import { formatTimeToFull, formatVolumes } from "./status.ts";

const FRONTENDS = ["auto", "ublk", "fuse", "nbd"] as const;

export function volumeVerbs(start: Start): Command {
  const list = verb("list", "List volumes", ["psma volume list", "psma volume list --json"])
    .action((options) => start(options, listVolumes));
  const show = verb("show", "Show one volume", ["psma volume show data --json"])
    .argument("<volume>")
    .action((name, options) =>
      start(
        options,
        async (session) => answerVolume(session, await (await session.agent()).volume(name)),
      )
    );
  return group("volume", "Make, show, serve and delete volumes", [
    createVerb(start),
    list as never,
    show as never,
    attachVerb(start),
    detachVerb(start),
    claimVerb(start),
    deleteVerb(start),
  ]);
}

function createVerb(start: Start): Command {
  return verb("create", "Make a volume", [
    "psma volume create data --size 10GiB",
    "psma volume create data --size 10GiB --max-size 200GiB --frontend nbd",
  ])
    .argument("<volume>", "its name: lower-case letters, digits, dots, dashes, underscores")
    .requiredOption("--size <size>", "how large, like 10GiB")
    .option("--max-size <size>", "how large it may ever grow")
    .option("--store <store>", "the data store to make it in (default: the configuration's first)")
    .option("--frontend <frontend>", `how applications reach it: ${FRONTENDS.join(", ")}`, "auto")
    .action((name, options) =>
      start(options, async (session) => {
        const frontend = FRONTENDS.find((one) => one === options.frontend);
        if (frontend === undefined) {
          throw new PsmaError(
            "usage/frontend",
            `Cannot use frontend "${options.frontend}": it is unknown`,
            {
              hint: `One of ${FRONTENDS.join(", ")}.`,
            },
          );
        }
        const volume = await (await session.agent()).createVolume({
          name,
          size_bytes: parseSize(options.size),
          ...(options.maxSize === undefined ? {} : { max_size_bytes: parseSize(options.maxSize) }),
          ...(options.store === undefined ? {} : { store: options.store }),
          frontend,
        });
        answerVolume(session, volume);
      })
    ) as never;
}

function attachVerb(start: Start): Command {
  return verb("attach", "Serve a volume to applications", ["psma volume attach data"])
    .argument("<volume>")
    .action((volume, options) =>
      start(
        options,
        async (session) => answerVolume(session, await (await session.agent()).attach(volume)),
      )
    ) as never;
}

function detachVerb(start: Start): Command {
  return verb("detach", "Stop serving a volume: unmounts what psma mounted", [
    "psma volume detach data",
    "psma volume detach data --force",
  ])
    .argument("<volume>")
    .option("--force", "also while somebody uses it, who then sees I/O errors")
    .action((volume, options) =>
      start(options, async (session) => {
        const force = options.force === true;
        answerVolume(session, await (await session.agent()).detach(volume, { force }));
      })
    ) as never;
}

function claimVerb(start: Start): Command {
  return verb("claim", "Take a detached volume back from another agent that has taken it over", [
    "psma volume claim data --yes",
  ])
    .argument("<volume>")
    .option("--yes", "it is meant")
    .action((volume, options) =>
      start(options, async (session) => {
        if (!options.yes) {
          throw new PsmaError("usage/confirm", `Cannot claim ${volume}: --yes is missing`, {
            hint: "This cuts off the agent that holds it now: its I/O fails, and what it had not " +
              "flushed is lost. If it has moved the volume to another place since, what is taken here " +
              "is an older state. Add --yes when that is meant.",
          });
        }
        answerVolume(session, await (await session.agent()).claim(volume));
      })
    ) as never;
}

function deleteVerb(start: Start): Command {
  return verb("delete", "Delete a detached volume and all its bytes", [
    "psma volume delete data --yes",
  ])
    .argument("<volume>")
    .option("--yes", "it is meant")
    .action((name, options) =>
      start(options, async (session) => {
        if (!options.yes) {
          throw new PsmaError("usage/confirm", `Cannot delete ${name}: --yes is missing`, {
            hint: "This deletes all its bytes. Add --yes when that is meant.",
          });
        }
        await (await session.agent()).deleteVolume(name);
        session.answer({ deleted: name }, () => `Deleted ${name}.`);
      })
    ) as never;
}

async function listVolumes(session: Session): Promise<void> {
  const volumes = await (await session.agent()).volumes();
  session.answer(
    volumes,
    () => volumes.length === 0 ? "No volumes." : formatVolumes(session, volumes),
  );
}

function answerVolume(session: Session, volume: VolumeView): void {
  session.answer(volume, () => formatVolume(session, volume));
}

function formatBackup(backup: NonNullable<VolumeView["backup"]>): string {
  const { store, size_bytes, mode, state, frozen_at, reason, complete, dirty_bytes, verify } =
    backup;
  const where = `${store}, ${formatSize(size_bytes)}`;
  if (state === "in-step") return `${where}, ${mode}: has every acknowledged write`;
  if (state === "behind") return `${where}, ${mode}: lacks ${formatSize(dirty_bytes ?? 0)}`;
  if (state === "taken-over") return `${where}, no way back: ${reason ?? ""}`;
  const since = frozen_at === null ? "" : ` since ${frozen_at}`;
  const why = reason === null ? "" : ` (${reason})`;
  const scrub = verify === null ? "never" : formatVerifyLine(verify);
  return `${where}, frozen${since}${why}${complete ? "" : "; incomplete: no way back"}; ` +
    `verified: ${scrub}`;
}

function placeOf(exported: VolumeView["exports"][number]): string {
  switch (exported.frontend) {
    case "nbd":
      return exported.device === undefined ? exported.uri : `${exported.device} (${exported.uri})`;
    case "ublk":
      return exported.device;
    case "fuse":
      return `${exported.device} (${exported.path})`;
  }
}

function formatVolume(session: Session, volume: VolumeView): string {
  const { filesystem, backup, active } = volume;
  const pairs: [string, string][] = [
    ["volume", session.paint("bold", volume.name)],
    ["state", volume.reason === undefined ? volume.state : `${volume.state}: ${volume.reason}`],
    ["size", `${formatSize(volume.size_bytes)} of at most ${formatSize(volume.max_size_bytes)}`],
    ["used", `${formatSize(volume.used_bytes)} (${volume.used_source})`],
    ["full in", formatTimeToFull(volume, session.clock.nowMs())],
    ["active", `${active.store}: ${active.uri}, epoch ${volume.epoch}`],
    ["backup", backup === null ? "none" : formatBackup(backup)],
    ...volume.exports.map((one): [string, string] => [one.frontend, placeOf(one)]),
  ];
  if (filesystem !== null) {
    pairs.push([
      "file system",
      `${filesystem.type} on ${filesystem.mount}, ${formatSize(filesystem.size_bytes)}`,
    ]);
  }
  return formatPairs(pairs);
}
