import { ImageError } from "../../errors.js";
import { type BlockEntry, BlockKind } from "../block-map.js";
import type { HostedTable } from "./sparse.js";

/**
 * Checks one grain table: that its packed grains unpack (zlib has a checksum of each) and say where they belong, and
 * that its second copy, where there is one, says the same.
 *
 * @param report takes each damage: first byte and length in the extent, and a sentence.
 */
export function checkTable(
  table: HostedTable,
  index: number,
  report: (position: number, length: number, message: string) => void,
): { chunks: number; bytes: number } {
  const { perTable, blockSize, size } = table;
  const first = index * perTable;
  const stop = Math.min(first + perTable, Math.ceil(size / blockSize));
  const whole = [first * blockSize, Math.min(stop * blockSize, size) - first * blockSize] as const;
  const guarded = (position: number, length: number, act: () => void): boolean => {
    try {
      act();
      return true;
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      report(position, length, error.message);
      return false;
    }
  };
  let missing = true;
  const found = guarded(...whole, () => {
    table.checkCopies(index);
    missing = table.missingFrom(first) > 0;
  });
  let chunks = 0;
  let bytes = 0;
  if (!found || missing || !table.compressed) return { chunks, bytes };
  const entry: BlockEntry = { kind: BlockKind.absent, position: 0 };
  const buffer = Buffer.allocUnsafe(blockSize);
  for (let block = first; block < stop; block++) {
    const length = Math.min(blockSize, size - block * blockSize);
    guarded(block * blockSize, length, () => {
      entry.kind = BlockKind.absent;
      table.entry(block, entry);
      if (entry.kind !== BlockKind.packed) return;
      chunks++;
      bytes += length;
      table.unpack(block, buffer.subarray(0, length));
    });
  }
  return { chunks, bytes };
}
