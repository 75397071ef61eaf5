/** Checks some pieces of one layer: see verify.ts. */
import { LocalChunkCache } from "../bytes/local-cache.js";
import { type LayersData, reopenLayers } from "../chain.js";
import type { PieceReport } from "../layers/layer.js";
import { serveJobs } from "./pool.js";

export interface VerifyJob {
  /** The layer's place in the chain, 0 for the newest. */
  readonly layer: number;
  readonly from: number;
  /** Behind the last piece. */
  readonly to: number;
}

serveJobs<LayersData, VerifyJob, PieceReport>((data) => {
  const { layers } = reopenLayers(data, new LocalChunkCache(0));
  return ({ layer, from, to }) => {
    const integrity = layers[layer]!.integrity!;
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
