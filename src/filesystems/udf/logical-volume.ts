/** From the anchor to the logical volume: its descriptors, its partitions, its root. */
import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import { corrupt, ImageError, unsupported } from "../../errors.js";
import { type Anchor, anchors, extentAt } from "./anchor.js";
import { Contents } from "./contents.js";
import { type Address, type FileEntry, fileTypes, longAddress } from "./entry.js";
import {
  ClosedPartition,
  MetadataPartition,
  type Partition,
  PhysicalPartition,
  SparablePartition,
  VirtualPartition,
} from "./partitions.js";
import { type Integrity, readIntegrity, readSequence, type Sequence } from "./sequence.js";
import { isTag, tagProblem, tags } from "./tag.js";
import { fixedText, identifierOf, uuidOf } from "./text.js";
import { isoTimestamp } from "./times.js";
import { Volume } from "./volume.js";

/**
 * Before the end of a medium, its virtual allocation table is looked for in so many blocks with data, and behind so many
 * bytes of zeros: the end that was never written.
 */
const MOST_BLOCKS_TO_TABLE = 2048;
const MOST_ZEROS = 512 << 20;
const MOST_PARTITIONS = 64;

export interface LogicalVolume {
  readonly volume: Volume;
  readonly label: string;
  readonly root: Address;
  readonly integrity: Integrity | undefined;
  /** Blocks of the partitions as they lie on the volume. */
  readonly blocks: number;
  readonly facts: Record<string, unknown>;
  readonly warnings: readonly string[];
}

/** @throws ImageError `corrupt` or `unsupported` when there is no way to the root directory. */
export function openLogicalVolume(source: ByteSource): LogicalVolume {
  const warnings: string[] = [];
  const { anchor, sequence } = findSequence(source, warnings);
  const { logical, primary, logicalPosition } = sequence;
  const { blockSize } = anchor;
  const told = logical.readUInt32LE(212);
  if (told !== blockSize)
    throw unsupported(
      `${source.name}: the logical volume at byte ${logicalPosition} has blocks of ${told} bytes on sectors of ${blockSize}, which UDF does not allow.`,
    );
  const volume = new Volume(source, blockSize);
  const { partitions, physical } = readPartitions(volume, sequence, warnings);
  volume.setPartitions(partitions);

  const fileSet = longAddress(logical, 248);
  const { bytes } = volume.descriptor(fileSet, [tags.fileSet], "the file set descriptor");
  const root = longAddress(bytes, 400);
  const volumeSet = primary ? fixedText(primary, 72, 128) : "";
  const revision = logical.readUInt16LE(240);
  const integrityExtent = extentAt(logical, 432);
  const integrity = integrityExtent.length > 0 ? readIntegrity(source, blockSize, integrityExtent) : undefined;
  // A medium that is written once tells its state in the table of its virtual partition instead.
  if (integrity && !integrity.closed && !partitions.some(({ kind }) => kind === "virtual"))
    warnings.push("The UDF volume was not closed after it was written: it may be inconsistent.");
  return {
    volume,
    label: fixedText(logical, 84, 128),
    root,
    integrity,
    blocks: physical,
    warnings,
    facts: {
      uuid: uuidOf(volumeSet),
      revision: `${revision >> 8}.${(revision & 0xff).toString(16).padStart(2, "0")}`,
      blockSize,
      volumeSet: volumeSet || undefined,
      volume: primary ? fixedText(primary, 24, 32) || undefined : undefined,
      created: primary && isoTimestamp(primary, 376),
      partitions: partitions.map(({ kind }) => kind),
      files: integrity?.files,
      directories: integrity?.directories,
    },
  };
}

/** The main descriptor sequence of the first anchor with a usable one, or the reserve, of which there is a warning. */
function findSequence(source: ByteSource, warnings: string[]): { anchor: Anchor; sequence: Sequence } {
  const problems: string[] = [];
  let found = false;
  for (const anchor of anchors(source)) {
    found = true;
    for (const [name, extent] of [
      ["main", anchor.main],
      ["reserve", anchor.reserve],
    ] as const) {
      const before = problems.length;
      const sequence = readSequence(source, anchor.blockSize, extent, (what) => problems.push(what));
      if (!sequence) {
        if (problems.length === before)
          problems.push(`the ${name} sequence at byte ${extent.block * anchor.blockSize} is incomplete`);
        continue;
      }
      if (problems.length > 0)
        warnings.push(`The UDF volume's description is damaged (${problems[0]}); its ${name} copy is used.`);
      return { anchor, sequence };
    }
  }
  throw corrupt(
    found
      ? `${source.name}: the UDF volume has no usable volume descriptors: ${problems[0]}.`
      : `${source.name}: byte 32768 says that this is UDF, but no anchor is at block 256, at the end, or 256 blocks before it. The image is damaged or cut off.`,
  );
}

function readPartitions(volume: Volume, sequence: Sequence, warnings: string[]) {
  const { logical, logicalPosition } = sequence;
  const { name } = volume;
  const partitions: Partition[] = [];
  let physical = 0;
  const end = Math.min(440 + logical.readUInt32LE(264), logical.length);
  const count = logical.readUInt32LE(268);
  if (count === 0 || count > MOST_PARTITIONS)
    throw volume.corrupt(logicalPosition, `the logical volume has ${count} partitions`);
  for (let at = 440; partitions.length < count; ) {
    const length = at + 2 <= end ? logical[at + 1] : 0;
    const type = logical[at];
    if (length < 2 || at + length > end || (type === 1 && length < 6) || (type === 2 && length < 64))
      throw volume.corrupt(logicalPosition, `the logical volume's partition map ${partitions.length} is damaged`);
    const map = logical.subarray(at, at + length);
    at += length;
    const number = type === 1 ? map.readUInt16LE(4) : type === 2 ? map.readUInt16LE(38) : -1;
    const descriptor = sequence.partitions.get(number);
    if (!descriptor) {
      const reason = unsupported(
        `${name}: the logical volume at byte ${logicalPosition} needs partition ${number}, which isn't here. It may be on another volume of a set.`,
      );
      partitions.push(new ClosedPartition("missing", reason));
      continue;
    }
    const whole = new PhysicalPartition(
      name,
      volume.blockSize,
      descriptor.readUInt32LE(188),
      descriptor.readUInt32LE(192),
    );
    if (type === 1) {
      physical += whole.blocks;
      partitions.push(whole);
      continue;
    }
    // A partition that rests on another finds it among those before it, or as it lies on the volume.
    const known = partitions.find(
      (other): other is PhysicalPartition => other instanceof PhysicalPartition && other.start === whole.start,
    );
    const base = known ?? whole;
    const identifier = identifierOf(map, 4);
    volume.setPartitions(partitions);
    if (identifier === "*UDF Sparable Partition") {
      physical += whole.blocks;
      partitions.push(sparable(volume, map, whole, warnings));
    } else if (identifier === "*UDF Virtual Partition")
      partitions.push(closedOnDamage("virtual", () => virtual(volume, base, partitions, warnings)));
    else if (identifier === "*UDF Metadata Partition")
      partitions.push(closedOnDamage("metadata", () => metadata(volume, map, base, partitions, warnings)));
    else partitions.push(ClosedPartition.unknown(name, identifier));
  }
  return { partitions, physical };
}

/** Damage of one partition doesn't close the others. */
function closedOnDamage(kind: string, open: () => Partition): Partition {
  try {
    return open();
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    return new ClosedPartition(kind, error);
  }
}

/** Which packets were moved: the newest table that is whole (UDF 2.60, 2.2.12). */
function sparable(volume: Volume, map: Buffer, whole: PhysicalPartition, warnings: string[]): Partition {
  const { source, blockSize, name } = volume;
  const packet = map.readUInt16LE(40);
  const tables = Math.min(map[42], 4);
  const size = Math.min(map.readUInt32LE(44), 56 + 65535 * 8);
  let best: Buffer | undefined;
  for (let index = 0; index < tables; index++) {
    const position = map.readUInt32LE(48 + index * 4) * blockSize;
    const bytes = Buffer.alloc(Math.max(size, 56));
    const table = bytes.subarray(0, readFully(source, position, bytes));
    const problem = table.length < 56 ? "is cut off" : tagProblem(table, [0], position / blockSize);
    const entries = problem === undefined ? table.readUInt16LE(48) : 0;
    if (problem !== undefined || identifierOf(table, 16) !== "*UDF Sparing Table" || 56 + entries * 8 > table.length)
      warnings.push(`The sparing table at byte ${position} ${problem ?? "is damaged"}; another copy is used, if any.`);
    else if (!best || table.readUInt32LE(52) > best.readUInt32LE(52)) best = table;
  }
  if (packet === 0 || !best)
    return new ClosedPartition("sparable", corrupt(`${name}: no sparing table of the UDF partition can be read.`));
  const moved = new Map<number, number>();
  for (let index = 0; index < best.readUInt16LE(48); index++) {
    const original = best.readUInt32LE(56 + index * 8);
    // From there on: entries in reserve, and packets that are damaged themselves.
    if (original < 0xfffffff0) moved.set(original, best.readUInt32LE(60 + index * 8));
  }
  return new SparablePartition(name, blockSize, whole, packet, moved);
}

/** The address of a block of the partition that others rest on, by its place in the table of maps. */
function referenceOf(base: PhysicalPartition, partitions: readonly Partition[], volume: Volume): number {
  const reference = partitions.indexOf(base);
  if (reference < 0) throw corrupt(`${volume.name}: a UDF partition rests on one that has no map of its own.`);
  return reference;
}

/**
 * The table is the file whose ICB is the last block that was written. Its type tells whether it is of UDF 2.00, with a header
 * before its entries, or of 1.50, with 36 bytes behind them.
 */
function virtual(
  volume: Volume,
  base: PhysicalPartition,
  partitions: readonly Partition[],
  warnings: string[],
): Partition {
  const { blockSize, source, name } = volume;
  const partition = referenceOf(base, partitions, volume);
  let problem: ImageError | undefined;
  for (const block of lastEntries(source, blockSize, base)) {
    const address = { partition, block: block - base.start };
    let entry: FileEntry;
    let table: Contents;
    try {
      entry = volume.fileEntry(address);
      table = new Contents(volume, entry);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      problem ??= error;
      continue;
    }
    if (entry.type === fileTypes.virtualTable) {
      const header = table.bytes(0, 2).readUInt16LE(0);
      if (problem)
        warnings.push(`The UDF volume's last file entry is damaged; an older table is used. ${problem.message}`);
      return new VirtualPartition(name, base, table, header, Math.max(0, Math.floor((table.size - header) / 4)));
    }
    if (entry.type === fileTypes.unspecified && table.size >= 36) {
      const entries = Math.floor((table.size - 36) / 4);
      if (identifierOf(table.bytes(entries * 4, 32), 0) === "*UDF Virtual Alloc Tbl")
        return new VirtualPartition(name, base, table, 0, entries);
    }
  }
  if (problem) throw problem;
  throw corrupt(
    `${name}: the virtual allocation table, which is the last file of a medium that is written once, isn't among the last blocks. The image is cut off, or the medium was not closed.`,
  );
}

/** Blocks of the volume that look like file entries, the last first. */
function* lastEntries(source: ByteSource, blockSize: number, base: PhysicalPartition): Generator<number> {
  const window = Buffer.alloc(1 << 20);
  let end = Math.min(Math.floor(source.size / blockSize), base.start + base.blocks);
  let zeros = MOST_ZEROS;
  for (let left = MOST_BLOCKS_TO_TABLE; end > base.start && left > 0 && zeros > 0; ) {
    const first = Math.max(base.start, end - window.length / blockSize);
    const filled = window.subarray(
      0,
      readFully(source, first * blockSize, window.subarray(0, (end - first) * blockSize)),
    );
    for (let block = end - 1; block >= first && left > 0; block--) {
      const at = (block - first) * blockSize;
      const kind = at + 16 <= filled.length ? filled.readUInt16LE(at) : 0;
      if ((kind === tags.fileEntry || kind === tags.extendedFileEntry) && isTag(filled, at)) yield block;
      if (filled.subarray(at, at + blockSize).every((byte) => byte === 0)) zeros -= blockSize;
      else left--;
    }
    end = first;
  }
}

/** Both files are in the partition beneath. Either is enough. */
function metadata(
  volume: Volume,
  map: Buffer,
  base: PhysicalPartition,
  partitions: readonly Partition[],
  warnings: string[],
): Partition {
  const partition = referenceOf(base, partitions, volume);
  let problem: ImageError | undefined;
  const open = (block: number, what: string) => {
    if (block === 0xffffffff) return undefined;
    try {
      return new Contents(volume, volume.fileEntry({ partition, block }));
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      problem ??= error;
      warnings.push(`The ${what} of the UDF volume can't be read; the other copy is used. ${error.message}`);
      return undefined;
    }
  };
  const main = open(map.readUInt32LE(40), "metadata file");
  const mirror = open(map.readUInt32LE(44), "metadata mirror file");
  if (!main && !mirror) throw problem ?? corrupt(`${volume.name}: the UDF volume has no metadata file.`);
  return new MetadataPartition(volume.name, volume.blockSize, main, mirror);
}
