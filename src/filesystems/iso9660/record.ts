/**
 * Directory records (ECMA-119, 9.1): lie one behind the other, none across the edge of a sector; the rest of a sector is zeros.
 *
 *     0 length   1 XAR   2 extent   10 size   18 time   25 flags   26 unit   27 gap   28 volume   32 name length   33 name, use
 */
import { ImageError } from "../../errors.js";
import { SECTOR, type Volume } from "./volume.js";

export const ASSOCIATED = 0x04;
const DIRECTORY = 0x02;
const CONTINUES = 0x80;
const HEADER = 33;

/** Sectors without a record in a row that end a directory: its size is then damaged. */
const MOST_EMPTY = 1024;

export class DirectoryRecord {
  constructor(
    /** Byte in the volume. */
    readonly position: number,
    readonly bytes: Buffer,
    private readonly blockSize: number,
  ) {}

  /** Byte in the volume at which the data lie, behind an extended attribute record. */
  get extent(): number {
    return (this.bytes.readUInt32LE(2) + this.bytes[1]) * this.blockSize;
  }
  /** In bytes, of this record's extent. */
  get size(): number {
    return this.bytes.readUInt32LE(10);
  }
  get flags(): number {
    return this.bytes[25];
  }
  get isDirectory(): boolean {
    return (this.bytes[25] & DIRECTORY) !== 0;
  }
  /** Whether the file goes on in the extent of the next record. */
  get continues(): boolean {
    return (this.bytes[25] & CONTINUES) !== 0;
  }
  get isInterleaved(): boolean {
    return this.bytes[26] !== 0 || this.bytes[27] !== 0;
  }
  /** Number of the volume with the data, in a set of volumes. */
  get sequence(): number {
    return this.bytes.readUInt16LE(28);
  }
  get name(): Buffer {
    return this.bytes.subarray(HEADER, HEADER + this.bytes[32]);
  }
  /** Whether it stands for the directory itself (1) or its parent (2); otherwise 0. */
  get dots(): 0 | 1 | 2 {
    if (this.bytes[32] !== 1) return 0;
    return this.bytes[HEADER] === 0 ? 1 : this.bytes[HEADER] === 1 ? 2 : 0;
  }
  /** What Rock Ridge and others add, behind the name and a byte that makes it even. */
  get systemUse(): Buffer {
    const nameLength = this.bytes[32];
    return this.bytes.subarray(HEADER + nameLength + (nameLength % 2 === 0 ? 1 : 0));
  }

  /** Whether `other` is a further extent of the same file. */
  continuedBy(other: DirectoryRecord): boolean {
    return this.name.equals(other.name) && ((this.flags ^ other.flags) & ASSOCIATED) === 0;
  }
}

/**
 * The record at `position`; undefined where the rest of the sector has none.
 * @throws ImageError `corrupt` when there are other bytes.
 */
export function recordAt(volume: Volume, position: number): DirectoryRecord | undefined {
  const length = volume.pages.byte(position, "a directory record");
  if (length === 0) return undefined;
  const left = SECTOR - (position % SECTOR);
  if (length <= HEADER || length > left)
    throw volume.corrupt(position, `a directory record of ${length} bytes can't be`);
  const bytes = volume.pages.bytes(position, length, "a directory record");
  if (bytes[32] === 0 || HEADER + bytes[32] > length)
    throw volume.corrupt(position, `a directory record of ${length} bytes has a name of ${bytes[32]}`);
  return new DirectoryRecord(position, bytes, volume.blockSize);
}

/**
 * The first record of the directory whose extent is at `position`, which describes itself.
 * @throws ImageError `corrupt` when it doesn't.
 */
export function ownRecord(volume: Volume, position: number): DirectoryRecord {
  const record = recordAt(volume, position);
  if (record?.dots !== 1 || !record.isDirectory)
    throw volume.corrupt(position, "a directory should begin here, and doesn't");
  return record;
}

/**
 * All records of a directory. A damaged sector is passed over, and thrown at the end: what can be read is read first, and
 * nobody takes the rest for all.
 */
export function* records(volume: Volume, start: number, size: number): Generator<DirectoryRecord> {
  let damage: ImageError | undefined;
  const end = Math.min(start + size, volume.source.size);
  if (end < start + size)
    damage = volume.corrupt(start, `a directory of ${size} bytes ends beyond the volume's ${volume.source.size}`);
  let empty = 0;
  for (let position = start; position < end; ) {
    let record: DirectoryRecord | undefined;
    try {
      record = recordAt(volume, position);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      damage ??= error;
    }
    if (record) {
      yield record;
      position += record.bytes.length;
      empty = 0;
    } else {
      position = (Math.floor(position / SECTOR) + 1) * SECTOR;
      if (++empty > MOST_EMPTY) throw damage ?? volume.corrupt(start, `a directory of ${size} bytes is mostly empty`);
    }
  }
  if (damage) throw damage;
}
