import { readFully } from "../../bytes/byte-source.js";
import type { PackedChunks } from "../../bytes/chunk-cache.js";
import { corrupt, ImageError, unsupported } from "../../errors.js";
import type { BlockTable, TableRun } from "./block-table.js";
import type { DataFork } from "./data-fork.js";
import { mostUnpacked, packings, RunKind } from "./packing.js";
import type { Tables } from "./tables.js";

/** @throws ImageError where a run can't be as its table says. */
export function checkRun(table: BlockTable, number: number, run: TableRun, fork: DataFork): void {
  const { kind, start, length, at, packed } = run;
  const what = () => `${table.image}: run ${number} of ${table.words} (disk bytes ${start} to ${start + length - 1})`;
  const isRaw = kind === RunKind.raw;
  if (!isRaw && !packings.has(kind))
    throw unsupported(`${what()} is of kind 0x${kind.toString(16)}, which this Spindle does not know.`);
  if (at + packed > fork.source.size - fork.base)
    throw corrupt(
      `${what()} should take ${packed} bytes at byte ${at} of the data, beyond the end of ${fork.source.name}. The file is truncated or damaged: restore it from another copy.`,
    );
  if (isRaw && packed < length)
    throw corrupt(`${what()} is stored as it is, in ${packed} bytes, which are too few. The file is damaged.`);
  if (!isRaw && length > mostUnpacked)
    throw unsupported(`${what()} is packed as one piece of ${length} bytes; up to ${mostUnpacked} are possible.`);
  if (!isRaw && packed > 2 * length + 65536)
    throw corrupt(`${what()} takes ${packed} bytes packed, more than it can. The file is damaged.`);
}

/** The packed runs, as chunks with the runs' numbers. */
export class PackedRuns implements PackedChunks {
  readonly size: number;
  readonly chunkSize: number;
  private scratch: Buffer = Buffer.alloc(0);

  constructor(
    readonly name: string,
    private readonly tables: Tables,
    readonly fork: DataFork,
  ) {
    this.chunkSize = tables.largestPacked;
    this.size = tables.runs * this.chunkSize;
  }

  isStored(chunk: number): boolean {
    const table = this.tables.tableOf(chunk);
    const { kind, length } = table.run(chunk - table.firstRun);
    return length > 0 && packings.has(kind);
  }

  unpack(chunk: number, target: Uint8Array): void {
    const table = this.tables.tableOf(chunk);
    const number = chunk - table.firstRun;
    const run = table.run(number);
    this.unpackRun(table, number, run, target.subarray(0, run.length));
    target.fill(0, run.length);
  }

  /** @throws ImageError `corrupt` where `target`, which has the run's length, isn't what comes out. */
  unpackRun(table: BlockTable, number: number, run: TableRun, target: Uint8Array): void {
    checkRun(table, number, run, this.fork);
    const { kind, start, length, at, packed } = run;
    try {
      const got = packings.get(kind)!.unpack(this.packed(at, packed), target);
      if (got !== length) throw corrupt(`it unpacks to ${got} bytes instead of ${length}`);
    } catch (error) {
      if (!(error instanceof ImageError) || error.code !== "corrupt") throw error;
      throw corrupt(
        `${table.image}: run ${number} of ${table.words} at byte ${at} of the data is damaged, ${error.message}: disk bytes ${start} to ${start + length - 1} are lost. Restore the file from another copy; spindle verify lists all damage.`,
        error,
      );
    }
  }

  /** Fills `target` with the data fork's bytes from `at` on. @throws ImageError `corrupt` where they end before. */
  readFork(at: number, target: Uint8Array): void {
    const { source, base } = this.fork;
    const filled = readFully(source, base + at, target);
    if (filled < target.length) throw corrupt(`${source.name}: ends within its data, at byte ${base + at + filled}.`);
  }

  private packed(at: number, length: number): Buffer {
    if (this.scratch.length < length) this.scratch = Buffer.allocUnsafeSlow(length);
    const bytes = this.scratch.subarray(0, length);
    this.readFork(at, bytes);
    return bytes;
  }
}
