import { ImageError } from "../../errors.js";
import type { Integrity, Run } from "../../layers/layer.js";
import { mapIntegrity, type ReservedPlace } from "../map-check.js";
import { type GrainTable, HostedTable } from "./sparse.js";

/**
 * Checks one sparse extent: its map, its packed grains (zlib has a checksum of each, and a marker says where it belongs),
 * and that the second copies of its tables, where there are any, say the same. Positions count from the extent's start.
 */
export function checkOfTable(table: GrainTable, locate: (position: number) => Run): Integrity {
  const { name, size, blockSize, source, unpacked } = table;
  const hosted = table instanceof HostedTable ? table : undefined;
  const map = mapIntegrity({
    name,
    size,
    blockSize,
    source,
    locate,
    ...(hosted && unpacked && { unpacked, packed: hosted }),
    reserved: () => tablesOf(table),
    notes: hosted?.header.unclean ? [`${name}: was not closed cleanly: what was written last may be missing.`] : [],
  });
  if (!hosted) return map;
  return {
    ...map,
    check(piece) {
      const report = map.check(piece);
      if (piece > 0) return report;
      const damages = [...report.damages];
      for (let index = 0; index < hosted.tables && damages.length < 100; index++)
        try {
          hosted.checkCopies(index);
        } catch (error) {
          if (!(error instanceof ImageError)) throw error;
          const position = index * hosted.perTable * blockSize;
          const length = Math.min(hosted.perTable * blockSize, size - position);
          damages.push({ file: name, position, length, message: error.message });
        }
      return { ...report, damages };
    },
  };
}

function* tablesOf(table: GrainTable): Iterable<ReservedPlace> {
  const { perTable, blockSize, size, entrySize } = table;
  yield { position: 0, length: 512, what: "the header" };
  for (let index = 0; index < table.tables; index++) {
    const first = index * perTable;
    const missing = table.missingFrom(first);
    if (missing > 0) {
      index += Math.ceil(missing / perTable) - 1;
      continue;
    }
    const disk = { position: first * blockSize, length: Math.min(perTable * blockSize, size - first * blockSize) };
    let position: number;
    try {
      position = table.tableAt(index);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      continue; // the walk of the map tells it
    }
    if (position > 0 && position + perTable * entrySize <= table.source.size)
      yield { position, length: perTable * entrySize, disk, what: `grain table ${index}` };
  }
}
