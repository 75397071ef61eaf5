/** Checks every chunk of a chain against its digest, on all processors, and the digests against the content root. */

import type { OpenedLayers } from "../chain.js";
import { ChainDigests } from "../images/spin/chain-digests.js";
import { SpinLayer } from "../images/spin/reader.js";
import type { Damage, PieceReport } from "../layers/layer.js";
import { checkedParts } from "./checked-parts.js";
import { WorkerPool } from "./pool.js";
import type { VerifyJob } from "./verify-worker.js";

export interface LayerVerdict {
  readonly file: string;
  readonly format: string;
  /** Whether anything of this format can be checked. */
  readonly checked: boolean;
  /** Whether this is what a layer is wrapped in: damages are then ranges of the image within. */
  readonly wraps: boolean;
  /** What a layer without damages is known to be: see Integrity.proves. */
  readonly proves: "content" | "tables" | undefined;
  /** What was left out or still has to be told. */
  readonly notes: readonly string[];
  readonly chunks: number;
  readonly bytes: number;
  readonly damages: readonly Damage[];
}

export interface Verdict {
  readonly layers: readonly LayerVerdict[];
  /** Whether all digests give the content root that the newest layer tells; undefined where there is none. */
  readonly contentRoot: boolean | undefined;
}

/** Jobs of one layer: an image that tells an absurd size must not take memory for as many. */
const mostJobs = 65536;

/** `progress` is told pieces done, of how many. A damaged chunk is reported and the rest is still checked. */
export async function verifyLayers(
  opened: OpenedLayers,
  threads: number,
  progress: (done: number, total: number) => void = () => {},
): Promise<Verdict> {
  const pool = new WorkerPool<VerifyJob, PieceReport>(
    new URL("./verify-worker.js", import.meta.url),
    opened.data,
    threads,
  );
  try {
    const parts = checkedParts(opened);
    const total = parts.reduce((sum, part) => sum + (part.integrity?.pieces ?? 0), 0);
    let done = 0;
    const layers: LayerVerdict[] = [];
    for (const [number, part] of parts.entries()) {
      const pieces = part.integrity?.pieces ?? 0;
      // A job is many pieces of a huge disk, since most of them may be empty, and one of a small disk.
      const length = Math.max(1, Math.min(256, Math.floor(pieces / (threads * 64))), Math.ceil(pieces / mostJobs));
      const jobs: Promise<PieceReport>[] = [];
      for (let from = 0; from < pieces; from += length) {
        const to = Math.min(from + length, pieces);
        const job = pool.run({ part: number, from, to });
        jobs.push(job);
        job.then(
          () => {
            done += to - from;
            progress(done, total);
          },
          () => {},
        );
      }
      const reports = await Promise.all(jobs);
      layers.push({
        file: part.name,
        format: part.format,
        checked: part.integrity !== undefined,
        wraps: part.wraps,
        proves: part.integrity && (part.integrity.proves ?? "content"),
        notes: [...(part.integrity?.notes ?? []), ...new Set(reports.flatMap((report) => report.notes ?? []))],
        chunks: reports.reduce((sum, report) => sum + report.chunks, 0),
        bytes: reports.reduce((sum, report) => sum + report.bytes, 0),
        damages: joined(reports.flatMap((report) => report.damages)),
      });
    }
    return { layers, contentRoot: contentRootHolds(opened) };
  } finally {
    await pool.close();
  }
}

/** One page of an index that is lost is met by many jobs: it is told once, with all that it hits. */
function joined(damages: readonly Damage[]): Damage[] {
  const result: Damage[] = [];
  for (const damage of damages) {
    const last = result.at(-1);
    const end = damage.position + damage.length;
    if (last?.message !== damage.message || damage.position > last.position + last.length) result.push(damage);
    else result[result.length - 1] = { ...last, length: Math.max(last.position + last.length, end) - last.position };
  }
  return result;
}

function contentRootHolds(opened: OpenedLayers): boolean | undefined {
  const layers = opened.layers.filter((layer) => layer instanceof SpinLayer);
  if (layers.length === 0 || layers.length !== opened.layers.length) return undefined;
  try {
    return new ChainDigests(layers).contentRoot().equals(layers[0]!.trailer.contentRoot);
  } catch {
    return false; // a digest page is damaged, which the pieces have reported
  }
}
