/** Checks some pieces of one layer or wrapping: see verify.ts. */
import { LocalChunkCache } from "../bytes/local-cache.js";
import { type LayersData, reopenLayers } from "../chain.js";
import type { PieceReport } from "../layers/layer.js";
import { checkedParts } from "./checked-parts.js";
import { serveJobs } from "./pool.js";

export interface VerifyJob {
  /** Its place in `checkedParts`. */
  readonly part: number;
  readonly from: number;
  /** Behind the last piece. */
  readonly to: number;
}

serveJobs<LayersData, VerifyJob, PieceReport>((data) => {
  const parts = checkedParts(reopenLayers(data, new LocalChunkCache(0)));
  return ({ part, from, to }) => {
    const integrity = parts[part]!.integrity!;
    let chunks = 0;
    let bytes = 0;
    const damages = [];
    const notes: string[] = [];
    for (let piece = from; piece < to; ) {
      const report = integrity.check(piece);
      chunks += report.chunks;
      bytes += report.bytes;
      damages.push(...report.damages);
      notes.push(...(report.notes ?? []));
      piece += report.pieces ?? 1;
    }
    return { chunks, bytes, damages, notes };
  };
});
