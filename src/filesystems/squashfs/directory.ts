/**
 * A directory: headers of 12 bytes (how many entries, the block of their inodes, a number to which theirs are relative), each
 * with up to 256 entries of 8 bytes and a name. The listing is sorted; the index of a large directory, which leads to the
 * metadata block where a name must be, isn't used: names are found in memory.
 */
import { corrupt } from "../../errors.js";
import type { NamedEntry } from "../directory-index.js";
import { type Inode, isType, kindOf } from "./inode.js";
import { type MetadataBlocks, MetadataReader } from "./metadata.js";
import type { Superblock } from "./superblock.js";

const MOST_ENTRIES = 256;
const LONGEST_NAME = 256;
/** A directory's size counts the two entries . and .. that it doesn't hold. */
const UNHELD = 3;

/** Names as latin1, a character a byte. Those that the kernel can't be given are left out. */
export function* readDirectory(blocks: MetadataBlocks, superblock: Superblock, inode: Inode): Iterable<NamedEntry> {
  let left = inode.size - UNHELD;
  if (left <= 0) return;
  const { directoryTable } = superblock;
  const start = directoryTable + inode.start;
  const reader = new MetadataReader(blocks, start, inode.offset, superblock.size);
  const wrong = (what: string) =>
    corrupt(
      `${blocks.source.name}: the directory at byte ${inode.offset} of the SquashFS metadata block at byte ${start} ${what}.`,
    );
  while (left > 0) {
    const head = reader.take(12);
    left -= 12;
    const count = head.readUInt32LE(0) + 1;
    const block = head.readUInt32LE(4);
    if (count > MOST_ENTRIES) throw wrong(`has a header of ${count} entries`);
    for (let index = 0; index < count && left > 0; index++) {
      const entry = reader.take(8);
      const offset = entry.readUInt16LE(0);
      const type = entry.readUInt16LE(4);
      const length = entry.readUInt16LE(6) + 1;
      if (length > LONGEST_NAME || !isType(type))
        throw wrong(`has an entry of type ${type} with a name of ${length} bytes`);
      const name = reader.take(length).toString("latin1");
      left -= 8 + length;
      if (name !== "." && name !== ".." && !name.includes("/") && !name.includes("\0"))
        yield { name, file: block * 65536 + offset, kind: kindOf(type)! };
    }
    if (left < 0) throw wrong(`goes ${-left} bytes beyond its ${inode.size}`);
  }
}
