/**
 * The tables of sparse extents: a directory of tables of grains, in three kinds. All numbers are little-endian and,
 * unless said otherwise, sectors of 512 bytes.
 *
 *   KDMV   hosted sparse: VMware Workstation's, QEMU's, and OVF's stream-optimized extents (their grains are packed)
 *   COWD   ESX's older deltas (vmfsSparse): tables of 4096 grains, most often of one sector
 *   SE     ESX's newer ones (seSparse): entries of 64 bits
 */
import { type ByteSource, readExactly, readFully } from "../../bytes/byte-source.js";
import type { PackedChunks } from "../../bytes/chunk-cache.js";
import { MetadataPages } from "../../bytes/metadata-pages.js";
import { unpackZlib } from "../../bytes/zlib.js";
import { corrupt, ImageError, unsupported } from "../../errors.js";
import { settings } from "../../settings.js";
import { type BlockEntry, BlockKind, type BlockTable } from "../block-map.js";
import { largestDisk, u64le } from "../fields.js";

const sector = 512;
/** Bytes of the largest grain; those that are packed may have `settings.largestChunk`. */
const largestGrain = 2 ** 30;
const Flag = { redundant: 2, zeroedGrains: 4, compressed: 1 << 16, markers: 1 << 17 } as const;
/** In place of where a stream's directory is. */
const atEnd = Number.POSITIVE_INFINITY;

export interface HostedHeader {
  readonly version: number;
  readonly flags: number;
  /** In bytes, as all that follows but the counts. */
  readonly capacity: number;
  readonly grainSize: number;
  readonly descriptorOffset: number;
  readonly descriptorSize: number;
  readonly grainsPerTable: number;
  /** 0 where there is none. */
  readonly redundantOffset: number;
  readonly directoryOffset: number;
  readonly unclean: boolean;
}

export const signatureOf = (source: ByteSource): string =>
  source.size < 4 ? "" : readExactly(source, 0, 4, "the signature").toString("latin1");

/** The header of a hosted sparse extent; of a stream its footer, where its tables were known. */
export function readHostedHeader(source: ByteSource): HostedHeader {
  const first = parseHosted(source, 0);
  if (first.directoryOffset !== atEnd) return first;
  // The last three sectors: a marker, the footer, the end of the stream.
  const position = source.size - 2 * sector;
  if (position <= 0 || signatureAt(source, position) !== "KDMV")
    throw corrupt(
      `${source.name}: is a stream whose footer should be at byte ${position}, and is not there. The file is truncated or damaged.`,
    );
  const footer = parseHosted(source, position);
  return { ...footer, descriptorOffset: first.descriptorOffset, descriptorSize: first.descriptorSize };
}

const signatureAt = (source: ByteSource, position: number) =>
  readExactly(source, position, 4, "the footer").toString("latin1");

function parseHosted(source: ByteSource, position: number): HostedHeader {
  const { name } = source;
  const bytes = readExactly(source, position, sector, "the header");
  const version = bytes.readUInt32LE(4);
  const flags = bytes.readUInt32LE(8);
  if (version < 1 || version > 3) throw unsupported(`${name}: is a VMDK of version ${version}; 1 to 3 are known.`);
  if ((flags & 1) !== 0 && !bytes.subarray(73, 77).equals(Buffer.from("\n \r\n")))
    throw corrupt(
      `${name}: its line ends were changed, as a transfer in text mode does. Transfer it again, as binary.`,
    );
  if ((flags & Flag.compressed) !== 0 && bytes.readUInt16LE(77) !== 1)
    throw unsupported(`${name}: is compressed by method ${bytes.readUInt16LE(77)}; only 1 (deflate) is known.`);
  return {
    version,
    flags,
    capacity: sectorsAt(name, bytes, 12),
    grainSize: sectorsAt(name, bytes, 20),
    descriptorOffset: sectorsAt(name, bytes, 28),
    descriptorSize: sectorsAt(name, bytes, 36),
    grainsPerTable: bytes.readUInt32LE(44),
    redundantOffset: u64le(bytes, 48) * sector,
    directoryOffset: bytes.readBigUInt64LE(56) === 2n ** 64n - 1n ? atEnd : sectorsAt(name, bytes, 56),
    unclean: bytes[72] !== 0,
  };
}

/**
 * What the header tells in sectors at byte `at`, in bytes.
 * @throws ImageError `corrupt` where no file and no disk has so many
 */
function sectorsAt(name: string, bytes: Buffer, at: number): number {
  const value = bytes.readBigUInt64LE(at) * BigInt(sector);
  if (value > largestDisk)
    throw corrupt(`${name}: byte ${at} of its header tells of ${value} bytes, more than any disk has. It is damaged.`);
  return Number(value);
}

/** A sparse extent: its table of grains. */
export abstract class GrainTable implements BlockTable {
  readonly noun = "grain";
  unpacked: ByteSource | undefined;
  protected readonly pages: MetadataPages;
  /** Tables from `gapStart` to `gapEnd` are known to be missing. */
  private gapStart = 0;
  private gapEnd = 0;

  /**
   * @param size bytes of the disk that the extent holds.
   * @param blockSize of a grain, in bytes.
   * @param perTable grains of a table.
   */
  constructor(
    readonly source: ByteSource,
    readonly size: number,
    readonly blockSize: number,
    readonly perTable: number,
    readonly hasParent: boolean,
  ) {
    const { name } = source;
    if (blockSize < sector || blockSize > largestGrain || (blockSize & (blockSize - 1)) !== 0)
      throw corrupt(`${name}: tells of grains of ${blockSize} bytes; powers of two from 512 on are possible.`);
    if (perTable < 1 || perTable > 1 << 20) throw corrupt(`${name}: tells of ${perTable} grains a table.`);
    this.pages = new MetadataPages(source, 4096, 512);
  }

  get name(): string {
    return this.source.name;
  }

  get tables(): number {
    return Math.ceil(this.size / this.blockSize / this.perTable);
  }

  /** Position of a table in the file; 0 where it is missing. */
  abstract tableAt(index: number): number;
  /** The entry at `position` of the file. */
  protected abstract grainAt(position: number, target: BlockEntry): void;
  abstract readonly entrySize: number;

  entry(block: number, target: BlockEntry): void {
    const index = Math.floor(block / this.perTable);
    const table = this.tableAt(index);
    if (table === 0) return;
    this.grainAt(table + (block - index * this.perTable) * this.entrySize, target);
  }

  missingFrom(block: number): number {
    const index = Math.floor(block / this.perTable);
    if (index < this.gapStart || index >= this.gapEnd) {
      if (!this.isMissing(index)) return 0;
      const stop = Math.min(this.tables, index + 64);
      this.gapStart = index;
      this.gapEnd = index + 1;
      while (this.gapEnd < stop && this.isMissing(this.gapEnd)) this.gapEnd++;
    }
    return Math.min(this.gapEnd * this.perTable, Math.ceil(this.size / this.blockSize)) - block;
  }

  /**
   * Whether a table is missing, or lies in a hole of the file: QEMU makes room for all tables of a new disk, which for
   * 16 TiB are 2 GiB of zeros. A damaged entry isn't one that is missing: it is refused when its grains are asked for.
   */
  private isMissing(index: number): boolean {
    try {
      const table = this.tableAt(index);
      if (table === 0) return true;
      if (table >= this.source.size) return false;
      const extent = this.source.extentAt?.(table);
      return extent?.hole === true && extent.length >= this.perTable * this.entrySize;
    } catch (error) {
      if (error instanceof ImageError && error.code === "corrupt") return false;
      throw error;
    }
  }

  /** Checks that a directory of `entrySize` bytes an entry is within the file. */
  protected checkDirectory(position: number, entrySize: number, what = "its grain directory"): void {
    const length = this.tables * entrySize;
    if (position < sector || position + length > this.source.size)
      throw corrupt(
        `${this.name}: ${what} should take ${length} bytes at byte ${position}, where the file has ${this.source.size}. The file is truncated or damaged.`,
      );
  }
}

/** The tables of a hosted sparse extent, and its grains where they are packed. */
export class HostedTable extends GrainTable implements PackedChunks {
  readonly entrySize = 4;
  readonly compressed: boolean;
  private scratch: Buffer | undefined;
  private packed: Buffer | undefined;

  constructor(
    source: ByteSource,
    readonly header: HostedHeader,
    size: number,
    hasParent: boolean,
  ) {
    super(source, size, header.grainSize, header.grainsPerTable, hasParent);
    if (size > header.capacity)
      throw corrupt(
        `${source.name}: holds ${header.capacity} bytes of disk, where its descriptor tells of ${size}. The files do not belong together, or are damaged.`,
      );
    this.compressed = (header.flags & Flag.compressed) !== 0;
    if (this.compressed && header.grainSize > settings.largestChunk)
      throw unsupported(`${source.name}: has compressed grains of ${header.grainSize} bytes, which are too large.`);
    this.checkDirectory(header.directoryOffset, 4);
  }

  get chunkSize(): number {
    return this.blockSize;
  }

  tableAt(index: number): number {
    const { directoryOffset } = this.header;
    const table = this.pages.bytes(directoryOffset + index * 4, 4, "the grain directory").readUInt32LE(0) * sector;
    if (table + this.perTable * 4 <= this.source.size) return table;
    const second = this.redundantTableAt(index);
    if (second > 0) return second;
    throw corrupt(
      `${this.name}: entry ${index} of its grain directory names byte ${table}, beyond the file's end at ${this.source.size}. The file is truncated or damaged.`,
    );
  }

  /** The table in the second directory; 0 where there is none, or none within the file. */
  redundantTableAt(index: number): number {
    const { redundantOffset, flags } = this.header;
    if ((flags & Flag.redundant) === 0 || redundantOffset < sector) return 0;
    if (redundantOffset + index * 4 + 4 > this.source.size) return 0;
    const bytes = this.pages.bytes(redundantOffset + index * 4, 4, "the redundant grain directory");
    const table = bytes.readUInt32LE(0) * sector;
    return table + this.perTable * 4 <= this.source.size ? table : 0;
  }

  /** @throws ImageError `corrupt` when a table differs from its second copy. */
  checkCopies(index: number): void {
    const table = this.tableAt(index);
    const second = this.redundantTableAt(index);
    if (table === 0 || second === 0 || table === second) return;
    const length = this.perTable * 4;
    if (!readExactly(this.source, table, length, "a table").equals(readExactly(this.source, second, length, "a table")))
      throw corrupt(
        `${this.name}: the grain table at byte ${table} and its copy at byte ${second} differ. One of them is damaged; the first is used.`,
      );
  }

  protected grainAt(position: number, target: BlockEntry): void {
    const entry = this.pages.bytes(position, 4, "a grain table").readUInt32LE(0);
    if (entry === 0) return;
    if (entry === 1 && (this.header.flags & Flag.zeroedGrains) !== 0) {
      target.kind = BlockKind.zero;
      return;
    }
    target.kind = this.compressed ? BlockKind.packed : BlockKind.stored;
    target.position = entry * sector;
  }

  isStored(chunk: number): boolean {
    const found: BlockEntry = { kind: BlockKind.absent, position: 0 };
    this.entry(chunk, found);
    return found.kind === BlockKind.packed;
  }

  unpack(chunk: number, target: Uint8Array): void {
    const found: BlockEntry = { kind: BlockKind.absent, position: 0 };
    this.entry(chunk, found);
    const { position } = found;
    if (found.kind !== BlockKind.packed) throw new Error(`grain ${chunk} is not stored`);
    try {
      const packed = this.packedGrain(chunk, position);
      // The last grain may be packed whole where the disk ends within it.
      this.scratch ??= Buffer.allocUnsafe(this.blockSize);
      const whole = target.length === this.blockSize ? target : this.scratch;
      const got = unpackZlib(packed, whole);
      if (got < target.length) throw corrupt(`it unpacks to ${got} bytes instead of ${target.length}`);
      if (whole !== target) target.set(whole.subarray(0, target.length));
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      const start = chunk * this.blockSize;
      throw corrupt(
        `${this.name}: grain ${chunk} at byte ${position} is damaged, ${error.message}: bytes ${start} to ${start + target.length - 1} of this extent's disk are lost here. Restore the file from another copy; spindle verify lists all damage.`,
        error,
      );
    }
  }

  /** The packed bytes of a grain. A marker before them tells their length and whose they are. */
  private packedGrain(chunk: number, position: number): Buffer {
    const { source, blockSize } = this;
    const longest = 2 * blockSize;
    this.packed ??= Buffer.allocUnsafeSlow(longest);
    if ((this.header.flags & Flag.markers) === 0) {
      const length = readFully(source, position, this.packed);
      if (length === 0) throw corrupt("the file ends before it");
      return this.packed.subarray(0, length);
    }
    const marker = readExactly(source, position, 12, "its marker");
    const lba = u64le(marker, 0);
    const length = marker.readUInt32LE(8);
    if (lba * sector !== chunk * blockSize)
      throw corrupt(`its marker says that it belongs at byte ${lba * sector} of the disk`);
    if (length === 0 || length > longest) throw corrupt(`its marker tells of an impossible length of ${length} bytes`);
    const packed = this.packed.subarray(0, length);
    if (readFully(source, position + 12, packed) !== length) readExactly(source, position + 12, length, "it"); // throws why
    return packed;
  }
}

/** The tables of an ESX COWD extent. */
export class CowdTable extends GrainTable {
  readonly entrySize = 4;
  private readonly directory: number;

  constructor(source: ByteSource, size: number, hasParent: boolean) {
    const bytes = readExactly(source, 0, 32, "the header");
    if (bytes.readUInt32LE(4) !== 1)
      throw unsupported(`${source.name}: is a COWD extent of version ${bytes.readUInt32LE(4)}; only 1 is known.`);
    super(source, size, bytes.readUInt32LE(16) * sector, 4096, hasParent);
    if (size > bytes.readUInt32LE(12) * sector)
      throw corrupt(
        `${source.name}: holds ${bytes.readUInt32LE(12) * sector} bytes of disk, where its descriptor tells of ${size}.`,
      );
    this.directory = bytes.readUInt32LE(20) * sector;
    if (bytes.readUInt32LE(24) < this.tables)
      throw corrupt(`${source.name}: its directory has ${bytes.readUInt32LE(24)} entries, but needs ${this.tables}.`);
    this.checkDirectory(this.directory, 4);
  }

  tableAt(index: number): number {
    return this.pages.bytes(this.directory + index * 4, 4, "the grain directory").readUInt32LE(0) * sector;
  }

  protected grainAt(position: number, target: BlockEntry): void {
    const entry = this.pages.bytes(position, 4, "a grain table").readUInt32LE(0);
    if (entry === 0) return;
    target.kind = BlockKind.stored;
    target.position = entry * sector;
  }
}

/** The tables of an ESX seSparse extent. The format is VMware's own; these are the fields that QEMU's reader tells of. */
export class SeSparseTable extends GrainTable {
  readonly entrySize = 8;
  private readonly directory: number;
  private readonly tablesOffset: number;
  private readonly tableSize: number;
  private readonly grainsOffset: number;

  constructor(source: ByteSource, size: number, hasParent: boolean) {
    const { name } = source;
    const bytes = readExactly(source, 0, sector, "the header");
    const field = (index: number) => sectorsAt(name, bytes, index * 8);
    if (u64le(bytes, 0) !== 0xcafebabe) throw corrupt(`${name}: is no seSparse extent: its signature is missing.`);
    if (bytes.readBigUInt64LE(8) !== 0x200000001n)
      throw unsupported(`${name}: is a seSparse extent of version ${bytes.readBigUInt64LE(8).toString(16)}.`);
    const tableSize = field(4);
    super(source, size, field(3), tableSize / 8, hasParent);
    if (size > field(2))
      throw corrupt(`${name}: holds ${field(2)} bytes of disk, where its descriptor tells of ${size}.`);
    const volatile = readExactly(source, field(10), 32, "the volatile header");
    if (u64le(volatile, 0) !== 0xcafecafe) throw corrupt(`${name}: its volatile header is damaged.`);
    if (u64le(volatile, 24) !== 0)
      throw unsupported(
        `${name}: was not closed cleanly, and its journal has to be replayed first: start and stop the machine on its ESX host, or clone the disk there.`,
      );
    this.tableSize = tableSize;
    this.directory = field(16);
    this.tablesOffset = field(18);
    this.grainsOffset = field(24);
    this.checkDirectory(this.directory, 8);
  }

  tableAt(index: number): number {
    const bytes = this.pages.bytes(this.directory + index * 8, 8, "the grain directory");
    const [low, high] = [bytes.readUInt32LE(0), bytes.readUInt32LE(4)];
    if (low === 0 && high === 0) return 0;
    if (high !== 0x10000000)
      throw corrupt(
        `${this.name}: entry ${index} of its grain directory is ${high.toString(16)}:${low.toString(16)}, which means nothing. The file is damaged.`,
      );
    return this.tablesOffset + low * this.tableSize;
  }

  protected grainAt(position: number, target: BlockEntry): void {
    const bytes = this.pages.bytes(position, 8, "a grain table");
    const [low, high] = [bytes.readUInt32LE(0), bytes.readUInt32LE(4)];
    const kind = high >>> 28;
    if (low === 0 && high === 0) return;
    // 1: unmapped by the guest, 2: zeros.
    if (kind === 1 || kind === 2) target.kind = BlockKind.zero;
    else if (kind === 3) {
      // The number's highest 48 bits come last, its lowest 12 before them.
      const grain = ((high >>> 16) & 0xfff) + ((high & 0xffff) * 2 ** 32 + low) * 4096;
      target.kind = BlockKind.stored;
      target.position = this.grainsOffset + grain * this.blockSize;
    } else
      throw corrupt(
        `${this.name}: the grain table has the entry ${high.toString(16)}:${low.toString(16)} at byte ${position}, which means nothing. The file is damaged.`,
      );
  }
}
