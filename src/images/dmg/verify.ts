import { crc32 } from "node:zlib";
import type { ByteSource } from "../../bytes/byte-source.js";
import { crc32OfZeros } from "../../bytes/crc32-zeros.js";
import { ImageError } from "../../errors.js";
import type { Damage, Integrity, PieceReport } from "../../layers/layer.js";
import type { BlockTable } from "./block-table.js";
import { checkRun, type PackedRuns } from "./packed-runs.js";
import { RunKind } from "./packing.js";
import type { Tables } from "./tables.js";
import type { Trailer } from "./trailer.js";

/** Bytes read at once where nothing is to be unpacked. */
const partLength = 1 << 20;

/**
 * An image's checksums, in pieces: each block table's, of what its runs unpack to; that of the data fork's bytes; and one of
 * the tables' checksums. A table's is one number for all of it, so that one thread checks it; the runs of most kinds of packing have
 * one of their own, and damage is told by run where one fails.
 */
export function makeIntegrity(
  file: ByteSource,
  trailer: Trailer,
  size: number,
  { all, list: tables }: Tables,
  chunks: PackedRuns,
): Integrity {
  const whole = (message: string): Damage => ({ file: file.name, position: 0, length: size, message });
  const forkChecked = trailer.dataChecksum.crc32 !== undefined && trailer.segments <= 1;
  const masterChecked = trailer.masterChecksum.crc32 !== undefined && all.length > 0;
  return {
    pieces: tables.length + Number(forkChecked) + Number(masterChecked),
    check(piece) {
      if (piece < tables.length) return checkTable(tables[piece]!, chunks);
      if (piece === tables.length && forkChecked) return checkFork(chunks, trailer, whole);
      return checkMaster(file.name, all, trailer, whole);
    },
  };
}

function checkTable(table: BlockTable, chunks: PackedRuns): PieceReport {
  const damages: Damage[] = [];
  const buffer = Buffer.allocUnsafe(Math.max(table.largestPacked, partLength));
  let crc = 0;
  let count = 0;
  let bytes = 0;
  for (let number = 0; number < table.runs; number++) {
    const run = table.run(number);
    if (run.length === 0 || run.kind === RunKind.unused) continue;
    if (run.kind === RunKind.zero) {
      crc = crc32OfZeros(crc, run.length);
      continue;
    }
    count++;
    try {
      checkRun(table, number, run, chunks.fork);
      if (run.kind === RunKind.raw) crc = crcOf(chunks, run.at, run.length, crc, buffer);
      else {
        const unpacked = buffer.subarray(0, run.length);
        chunks.unpackRun(table, number, run, unpacked);
        crc = crc32(unpacked, crc);
      }
      bytes += run.length;
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      damages.push({ file: table.image, position: run.start, length: run.length, message: error.message });
    }
  }
  const told = table.checksum.crc32;
  if (damages.length === 0 && told !== undefined && told !== crc)
    damages.push({
      file: table.image,
      position: table.start,
      length: table.size,
      message: `${table.image}: ${table.words} (disk bytes ${table.start} to ${table.end - 1}) has checksum ${hex(crc)}, where the table tells ${hex(told)}. Something in it is damaged.`,
    });
  return { chunks: count, bytes, damages };
}

/** The checksum of the data fork's bytes as they are in the file: it says that they are those that were written. */
function checkFork(chunks: PackedRuns, trailer: Trailer, whole: (message: string) => Damage): PieceReport {
  const { position, length } = trailer.dataFork;
  const damages: Damage[] = [];
  try {
    const crc = crcOf(chunks, 0, length, 0, Buffer.allocUnsafe(partLength));
    const told = trailer.dataChecksum.crc32!;
    if (crc !== told)
      damages.push(
        whole(
          `${chunks.name}: its data (bytes ${position} to ${position + length - 1} of the file) have checksum ${hex(crc)}, where the trailer tells ${hex(told)}. Something in them was changed.`,
        ),
      );
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    damages.push(whole(error.message));
  }
  return { chunks: 0, bytes: 0, damages };
}

/** The checksum of the tables' checksums, in the order in which the image lists the tables. */
function checkMaster(
  name: string,
  tables: readonly BlockTable[],
  trailer: Trailer,
  whole: (message: string) => Damage,
): PieceReport {
  const crc = crc32(Buffer.concat(tables.map(({ checksum }) => checksum.value)));
  const told = trailer.masterChecksum.crc32!;
  const message = `${name}: the checksums of its block tables have checksum ${hex(crc)}, where the trailer at byte ${trailer.position} tells ${hex(told)}. A table is damaged or missing.`;
  return { chunks: 0, bytes: 0, damages: crc === told ? [] : [whole(message)] };
}

/** Continues `crc` over bytes of the data fork. */
function crcOf(chunks: PackedRuns, at: number, length: number, crc: number, buffer: Buffer): number {
  let result = crc;
  for (let done = 0; done < length; done += buffer.length) {
    const part = buffer.subarray(0, Math.min(buffer.length, length - done));
    chunks.readFork(at + done, part);
    result = crc32(part, result);
  }
  return result;
}

const hex = (crc: number) => crc.toString(16).padStart(8, "0");
