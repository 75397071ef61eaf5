/**
 * Extended attributes (Documentation/filesystems/ext4, "Extended Attributes"): entries with a name each, growing upward,
 * and values growing downward from the end of the same area. There are two areas, behind the fields of an inode larger
 * than 128 bytes, and one block; a large value has an inode of its own.
 */
import { updateCrc32c } from "../../bytes/crc32c.js";
import { aclAttribute } from "./acl.js";
import { readContents } from "./contents.js";
import { incompat } from "./features.js";
import { Inode } from "./inode.js";
import { longestAttribute, mostAttributeBytes } from "./limits.js";
import { Structure, verifiedAs } from "./verified.js";

const magic = 0xea020000;
const blockHeader = 32;
const entryHeader = 16;

/** What stands for the beginning of a name. The kernel hides indexes that aren't here, and so do we. */
const prefixes: Record<number, string> = {
  1: "user.",
  2: "system.posix_acl_access",
  3: "system.posix_acl_default",
  4: "trusted.",
  6: "security.",
  7: "system.",
  8: "system.richacl",
  10: "gnu.",
};
const accessAcl = 2;
const defaultAcl = 3;
const system = 7;

/** Where attributes lie: `bytes`, entries from `first` on, values relative to `base`. */
interface Area {
  readonly bytes: Buffer;
  readonly position: number;
  readonly first: number;
  readonly base: number;
}

interface RawAttribute {
  readonly index: number;
  readonly name: Buffer;
  readonly area: Area;
  /** Inode of the value; 0 for a value in the area. */
  readonly valueInode: number;
  readonly valueAt: number;
  readonly valueSize: number;
}

/**
 * All attributes that the kernel would list, by full name; POSIX ACLs as getxattr(2) gives them.
 * @throws ImageError `corrupt` when an entry or a value is damaged.
 */
export function readAttributes(inode: Inode): Map<string, Uint8Array> {
  const found = new Map<string, Uint8Array>();
  let total = 0;
  for (const area of areas(inode))
    for (const raw of entriesOf(inode, area)) {
      const prefix = prefixes[raw.index];
      if (prefix === undefined || isInlineData(raw)) continue;
      const name = prefix + raw.name.toString("utf8");
      // The inode's own come first; a block that repeats one is older.
      if (found.has(name)) continue;
      total += raw.valueSize;
      if (total > mostAttributeBytes)
        throw inode.corrupt(`has extended attributes of over ${mostAttributeBytes} bytes`);
      const value = attributeValue(inode, raw);
      const isAcl = raw.index === accessAcl || raw.index === defaultAcl;
      found.set(name, isAcl ? aclAttribute(value, (what) => inode.corrupt(what)) : value);
    }
  return found;
}

/** Whether `inode` has any, without reading them: most files have none. */
export function hasAttributes(inode: Inode): boolean {
  return inode.attributeBlock !== 0 || inodeArea(inode) !== undefined;
}

/** Bytes of inline data behind the first 60. */
export function inlineRest(inode: Inode): Uint8Array {
  const area = inodeArea(inode);
  if (area) for (const raw of entriesOf(inode, area)) if (isInlineData(raw)) return attributeValue(inode, raw);
  return new Uint8Array(0);
}

const isInlineData = (raw: RawAttribute) =>
  raw.index === system && raw.name.length === 4 && raw.name.toString("latin1") === "data";

function* areas(inode: Inode): Iterable<Area> {
  const own = inodeArea(inode);
  if (own) yield own;
  if (inode.attributeBlock !== 0) yield blockArea(inode);
}

function inodeArea(inode: Inode): Area | undefined {
  const start = 128 + inode.extraSize;
  if (inode.raw.length < start + 8 || inode.extraSize === 0) return undefined;
  if (inode.raw.readUInt32LE(start) !== magic) return undefined;
  return { bytes: inode.raw, position: inode.position, first: start + 4, base: start + 4 };
}

function blockArea(inode: Inode): Area {
  const { volume, attributeBlock: number } = inode;
  if (!volume.holds(number, 1)) throw inode.corrupt(`has extended attributes at block ${number}, where nothing can be`);
  const block = volume.block(number, `the extended attributes of inode ${inode.number}`);
  const { bytes, position } = block;
  const mark = verifiedAs(Structure.attributes, 0);
  if (block.verified !== mark) {
    if (bytes.readUInt32LE(0) !== magic || bytes.readUInt32LE(8) !== 1)
      throw volume.corrupt(position, `the extended attributes of inode ${inode.number} have no signature`);
    if (volume.superblock.checksums) {
      const place = Buffer.alloc(8);
      place.writeBigUInt64LE(BigInt(number));
      let sum = updateCrc32c(volume.superblock.checksumSeed, place);
      sum = updateCrc32c(sum, bytes, 0, 16);
      sum = updateCrc32c(updateCrc32c(sum, new Uint8Array(4)), bytes, 20);
      if (sum !== bytes.readUInt32LE(16))
        throw volume.corrupt(position, `the extended attributes of inode ${inode.number} do not match their checksum`);
    }
    block.verified = mark;
  }
  return { bytes, position, first: blockHeader, base: 0 };
}

/** The entries of an area, up to four zero bytes. Each takes 16 bytes at least, which bounds their number. */
function* entriesOf(inode: Inode, area: Area): Iterable<RawAttribute> {
  const { bytes } = area;
  const wrong = (at: number, what: string) =>
    inode.volume.corrupt(area.position + at, `the extended attributes of inode ${inode.number} ${what}`);
  for (let at = area.first; ; ) {
    if (at + 4 > bytes.length) throw wrong(at, "have no end");
    if (bytes.readUInt32LE(at) === 0) return;
    const nameLength = bytes[at];
    if (at + entryHeader + nameLength > bytes.length) throw wrong(at, "have an entry that goes beyond their end");
    const valueInode = bytes.readUInt32LE(at + 4);
    const valueSize = bytes.readUInt32LE(at + 8);
    const valueAt = area.base + bytes.readUInt16LE(at + 2);
    if (valueSize > longestAttribute || (valueInode === 0 && valueSize > 0 && valueAt + valueSize > bytes.length))
      throw wrong(at, `have a value of ${valueSize} bytes that goes beyond their end`);
    yield {
      index: bytes[at + 1],
      name: bytes.subarray(at + entryHeader, at + entryHeader + nameLength),
      area,
      valueInode,
      valueAt,
      valueSize,
    };
    at += entryHeader + ((nameLength + 3) & ~3);
  }
}

/** A copy of the value, so that none keeps a block alive. */
function attributeValue(inode: Inode, raw: RawAttribute): Buffer {
  if (raw.valueInode === 0 || raw.valueSize === 0)
    return Buffer.from(raw.area.bytes.subarray(raw.valueAt, raw.valueAt + raw.valueSize));
  return largeValue(inode, raw);
}

/** A value in an inode of its own (ea_inode): its hash is kept where an ordinary inode has its time of access. */
function largeValue(inode: Inode, raw: RawAttribute): Buffer {
  const wrong = (what: string) =>
    inode.corrupt(`has an extended attribute whose value, in inode ${raw.valueInode}, ${what}`);
  if (!(inode.volume.superblock.incompat & incompat.eaInode)) throw wrong("is there without the feature ea_inode");
  if (raw.valueInode === inode.number) throw wrong("is the file itself");
  const holder = Inode.read(inode.volume, raw.valueInode);
  if (!holder.holdsAttribute || holder.kind !== "file" || holder.inline) throw wrong("is an ordinary file");
  if (holder.size !== raw.valueSize) throw wrong(`has ${holder.size} bytes, not ${raw.valueSize}`);
  const value = Buffer.alloc(raw.valueSize);
  for (let filled = 0; filled < value.length; ) filled += readContents(holder, filled, value.subarray(filled));
  const stored = holder.raw.readUInt32LE(8);
  // Lustre's way, before ea_inode was in the kernel, has no hash, but tells whose value it is.
  const lustre = holder.raw.readUInt32LE(16) === inode.number && holder.generation === inode.generation;
  if (updateCrc32c(inode.volume.superblock.checksumSeed, value) !== stored && !lustre)
    throw wrong("does not match its hash");
  return value;
}
