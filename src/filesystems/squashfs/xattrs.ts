/**
 * Extended attributes: a table of sets (where one is, how many attributes it has), and the sets, each attribute with its name
 * and its value, or a reference to a value that another one has too.
 */
import { readExactly } from "../../bytes/byte-source.js";
import { corrupt } from "../../errors.js";
import { uint64 } from "./inode.js";
import { type MetadataBlocks, MetadataReader } from "./metadata.js";
import { ABSENT, type Superblock } from "./superblock.js";
import { Table } from "./tables.js";

const prefixes = ["user.", "trusted.", "security."];
const ELSEWHERE = 0x100;
/** The kernel's limits are 64 KiB for a value and for all names; this is for a hostile image. */
const LARGEST_VALUE = 1 << 20;
const MOST_ATTRIBUTES = 1 << 14;
const LARGEST_SET = 16 << 20;

export class Xattrs {
  private readonly sets: Table | undefined;
  private readonly values: number = 0;

  constructor(
    private readonly blocks: MetadataBlocks,
    private readonly superblock: Superblock,
  ) {
    const { xattrTable } = superblock;
    if (xattrTable === ABSENT) return;
    const head = readExactly(blocks.source, xattrTable, 16, "the table of SquashFS xattrs");
    this.values = uint64(head, 0);
    this.sets = new Table(blocks, xattrTable + 16, head.readUInt32LE(8), 16, "set of xattrs");
  }

  /** Bytes that a set takes, unpacked. */
  size(index: number): number {
    return this.sets?.record(index).readUInt32LE(12) ?? 0;
  }

  read(index: number): ReadonlyMap<string, Uint8Array> {
    const found = new Map<string, Uint8Array>();
    // A table that isn't there holds none, as mksquashfs -no-xattrs leaves it.
    if (!this.sets) return found;
    const set = this.sets.record(index);
    const wrong = (what: string) => corrupt(`${this.blocks.source.name}: the SquashFS set of xattrs ${index} ${what}.`);
    const count = set.readUInt32LE(8);
    if (count > MOST_ATTRIBUTES) throw wrong(`has ${count} attributes`);
    const reader = this.reader(uint64(set, 0));
    let total = 0;
    for (let each = 0; each < count; each++) {
      const head = reader.take(4);
      const type = head.readUInt16LE(0);
      const name = reader.take(head.readUInt16LE(2)).toString("utf8");
      let length = reader.take(4).readUInt32LE(0);
      let from = reader;
      if (type & ELSEWHERE) {
        if (length !== 8) throw wrong(`has a reference of ${length} bytes`);
        from = this.reader(uint64(reader.take(8), 0));
        length = from.take(4).readUInt32LE(0);
      }
      total += length;
      if (length > LARGEST_VALUE || total > LARGEST_SET) throw wrong(`has a value of ${length} bytes`);
      const value = Uint8Array.from(from.take(length));
      const prefix = prefixes[type & 0xff];
      // The kernel leaves out prefixes that it doesn't know, too.
      if (prefix !== undefined) found.set(prefix + name, value);
    }
    return found;
  }

  private reader(reference: number): MetadataReader {
    const position = this.values + Math.floor(reference / 65536);
    return new MetadataReader(this.blocks, position, reference % 65536, this.superblock.xattrTable);
  }
}
