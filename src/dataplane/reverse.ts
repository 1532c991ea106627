/**
 * The mirror that leads back, made before a cutover's commit so that it misses nothing: from the moment that
 * it is prepared, whatever goes to both sides is marked in its change map as perhaps not durable at the
 * source; then the source is flushed. At the commit the map covers all that the backup may lack.
 */
import { DIGEST_ALGORITHM, type FormerSource } from "../mirror/mod.ts";
import { MirrorLink, type MirrorRecord } from "../volume/mod.ts";
import type { BackupOrder } from "./messages.ts";
import type { VolumeParts } from "./volume_opening.ts";

/** A source that does not flush within this is compared as a whole afterwards. */
const FLUSH_WITHIN_MS = 2000;

/** What becomes of a source, and what was prepared for it. */
export interface Aftermath extends FormerSource {
  readonly link: MirrorLink | null;
}

/** Nothing goes to the former source from the commit on. */
const FROZEN: Aftermath = {
  mode: "frozen",
  mirror: null,
  link: null,
  rest: { reason: "the volume moved away from it", complete: true },
};

/** How a source is to be followed. */
interface Following extends BackupOrder {
  /** The source does not answer: it is compared when it is back. */
  readonly isLost: boolean;
}

/** What the operator wants to become of the source. Call it when the mirror is ready. */
export async function prepareAftermath(
  parts: VolumeParts,
  order: BackupOrder | undefined,
): Promise<Aftermath> {
  if (order === undefined || order.mode === "frozen") return FROZEN;
  return await prepareReverse(parts, { ...order, isLost: false });
}

/** @throws {PsmaError} sys/... when there is no room for its map. */
export async function prepareReverse(
  { context, directory, manifest, volume }: VolumeParts,
  { mode, terms, failover_after_ms, isLost }: Following,
): Promise<Aftermath> {
  const { active, epoch, mirror } = manifest.current;
  const id = reverseId(epoch + 1);
  const sizeBytes = Math.max(volume.sizeBytes, mirror?.target.size_bytes ?? 0);
  const { map, unverified, log } = await directory.createMaps({ id, terms }, sizeBytes);
  const link = new MirrorLink(volume.active, map, unverified, log);
  volume.prepareReverse(link);
  const { calls, reactor } = context;
  const late = reactor.sleep(FLUSH_WITHIN_MS).then(() => -1);
  const isKnown = !isLost && await Promise.race([volume.flushActive(calls), late]) === 0;
  if (!isKnown) map.markDoubtful(0, volume.sizeBytes);
  link.writeThrough = isKnown && mode === "sync";
  const record: MirrorRecord = {
    id,
    role: "backup",
    // Under the epoch of before: where another has taken the source over meanwhile, we do not get in.
    target: active,
    terms,
    compare: !isKnown,
    digest_algorithm: DIGEST_ALGORITHM,
    paused: false,
    ...(mode === "sync" && failover_after_ms !== undefined ? { failover_after_ms } : {}),
  };
  return { mode, mirror: record, link, rest: null };
}

/** The cutover did not happen. @param keepsFile its outcome on the disk is unknown. */
export async function discardAftermath(
  { directory, volume }: VolumeParts,
  { mirror, link }: Aftermath,
  keepsFile: boolean,
): Promise<void> {
  // First: a write that marks a map which is closed would be the end of the process.
  volume.discardReverse();
  await link?.close();
  if (mirror && !keepsFile) await directory.removeMap(mirror.id);
}

/** @param epoch of the commit that it stands in. */
function reverseId(epoch: number): string {
  return `backup-${epoch}`;
}
