import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { corrupt, unsupported } from "../../errors.js";
import { largestDisk, u64be } from "../fields.js";

/**
 * The header of a qcow2 image and its extensions, as docs/interop/qcow2.txt of QEMU specifies them. Version 2 ends at
 * byte 72; version 3 adds feature bits and tells its own length.
 */
export interface Qcow2Header {
  readonly version: 2 | 3;
  readonly clusterSize: number;
  readonly clusterBits: number;
  /** Of the disk, in bytes. */
  readonly size: number;
  readonly l1Position: number;
  readonly l1Entries: number;
  readonly snapshots: number;
  readonly snapshotsPosition: number;
  readonly dirty: boolean;
  readonly corrupt: boolean;
  readonly compression: "zlib" | "zstd";
  /** Entries have 32 subclusters each. */
  readonly extended: boolean;
  readonly refcountBits: number;
  /** Where the table of the reference counts' blocks is, and how many clusters it takes. */
  readonly refcountPosition: number;
  readonly refcountClusters: number;
  /** Bytes are kept in another file of this name. */
  readonly dataFile: string | undefined;
  /** The data file can be used as it is, without this file. */
  readonly rawDataFile: boolean;
  readonly backingFile: string | undefined;
  /** As recorded: `raw`, `qcow2`, `vpc`... */
  readonly backingFormat: string | undefined;
  readonly bitmaps: boolean;
  readonly encryption: "none" | "aes" | "luks";
  /** Where the LUKS header and its key slots are, in bytes. */
  readonly luks: { readonly position: number; readonly length: number } | undefined;
}

export const signature = 0x514649fb; // "QFI\xfb"

const Incompatible = { dirty: 0, corrupt: 1, dataFile: 2, compression: 3, extended: 4 } as const;
const Extension = { end: 0, backingFormat: 0xe2792aca, features: 0x6803f857, dataFile: 0x44415441 } as const;
const bitmapsExtension = 0x23852875;
const luksExtension = 0x0537be77;
/** QEMU's own bounds: a larger table can't have been written by it. */
const largestL1 = 32 << 20;
const longestName = 1023;

interface Extensions {
  backingFormat?: string;
  dataFile?: string;
  bitmaps?: boolean;
  luks?: { position: number; length: number };
  /** Names of incompatible features by bit. */
  features: Map<number, string>;
}

/** @throws ImageError `corrupt` or `unsupported`, naming the byte. */
export function readHeader(file: ByteSource): Qcow2Header {
  const { name } = file;
  const damaged = (what: string) => corrupt(`${name}: ${what} The header is damaged.`);
  const fixed = readExactly(file, 0, 72, "the qcow2 header");
  const version = fixed.readUInt32BE(4);
  if (version !== 2 && version !== 3)
    throw unsupported(`${name}: is a qcow2 image of version ${version}; Spindle reads versions 2 and 3.`);
  const clusterBits = fixed.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21)
    throw damaged(`byte 20 tells clusters of 2^${clusterBits} bytes; 2^9 to 2^21 are possible.`);
  const clusterSize = 2 ** clusterBits;
  const size = u64be(fixed, 24);
  if (size > largestDisk) throw damaged(`byte 24 tells a disk of ${size} bytes.`);

  const more = version === 3 ? readExactly(file, 72, 32, "the qcow2 header") : undefined;
  const headerLength = more?.readUInt32BE(28) ?? 72;
  if (more && (headerLength < 104 || headerLength > clusterSize || headerLength % 8 !== 0))
    throw damaged(`byte 100 tells a header of ${headerLength} bytes.`);
  const backingAt = u64be(fixed, 8);
  const backingLength = fixed.readUInt32BE(16);
  const has = (at: number) => (more ? more.readUInt32BE(4) : 0) & (1 << at);
  const extensionsEnd = backingAt > 0 && backingAt < clusterSize ? backingAt : clusterSize;
  const extensions = readExtensions(file, headerLength, extensionsEnd);
  refuseUnknown(name, more, extensions);
  const encryption = (["none", "aes", "luks"] as const)[fixed.readUInt32BE(32)];
  if (!encryption)
    throw unsupported(`${name}: is encrypted inside qcow2 by an unknown method, number ${fixed.readUInt32BE(32)}.`);
  const { luks } = extensions;
  if (encryption === "luks" && !luks) throw damaged("it is encrypted with LUKS, but names no LUKS header.");
  if (luks && luks.position + luks.length > file.size)
    throw corrupt(
      `${name}: its LUKS header of ${luks.length} bytes should be at byte ${luks.position}, but the file has ${file.size} bytes. It is truncated or damaged.`,
    );

  const l1Entries = fixed.readUInt32BE(36);
  const l1Position = u64be(fixed, 40);
  const extended = has(Incompatible.extended) !== 0;
  if (extended && clusterBits < 14)
    throw damaged(`it has subclusters in clusters of ${clusterSize} bytes, which are too small for them.`);
  checkL1(name, "the disk", l1Position, l1Entries, { size, clusterSize, extended });

  let compression: Qcow2Header["compression"] = "zlib";
  const type = headerLength > 104 ? readExactly(file, 104, 1, "the qcow2 header").readUInt8(0) : 0;
  if ((type !== 0) !== (has(Incompatible.compression) !== 0))
    throw damaged(`its compression type ${type} at byte 104 and its feature bit 3 contradict each other.`);
  if (type === 1) compression = "zstd";
  else if (type !== 0) throw unsupported(`${name}: has clusters packed by an unknown method, number ${type}.`);

  const external = has(Incompatible.dataFile) !== 0;
  if (external && !extensions.dataFile)
    throw corrupt(`${name}: keeps its data in another file, but its header doesn't name that.`);
  return {
    version,
    clusterSize,
    clusterBits,
    size,
    l1Position,
    l1Entries,
    snapshots: fixed.readUInt32BE(60),
    snapshotsPosition: u64be(fixed, 64),
    dirty: has(Incompatible.dirty) !== 0,
    corrupt: has(Incompatible.corrupt) !== 0,
    compression,
    extended,
    refcountBits: more ? 2 ** Math.min(6, more.readUInt32BE(24)) : 16,
    refcountPosition: u64be(fixed, 48),
    refcountClusters: fixed.readUInt32BE(56),
    dataFile: external ? extensions.dataFile : undefined,
    rawDataFile: more !== undefined && external && (more.readUInt32BE(20) & 2) !== 0,
    backingFile: backingAt === 0 ? undefined : readBacking(file, backingAt, backingLength, clusterSize),
    backingFormat: extensions.backingFormat,
    bitmaps: extensions.bitmaps ?? false,
    encryption,
    luks: encryption === "luks" ? luks : undefined,
  };
}

/** How many bytes of disk one second-level table maps. */
export function coveredByTable(header: Pick<Qcow2Header, "clusterSize" | "extended">): number {
  return (header.clusterSize / (header.extended ? 16 : 8)) * header.clusterSize;
}

/** @throws ImageError `corrupt` for a first-level table that can't be that of a disk of `size` bytes. */
export function checkL1(
  name: string,
  whose: string,
  position: number,
  entries: number,
  header: Pick<Qcow2Header, "size" | "clusterSize" | "extended">,
): void {
  const needed = Math.ceil(header.size / coveredByTable(header));
  if (entries * 8 > largestL1) throw corrupt(`${name}: the table of ${whose} has ${entries} entries: too many.`);
  if (needed > entries)
    throw corrupt(`${name}: the table of ${whose} has ${entries} entries, but ${header.size} bytes need ${needed}.`);
  if (position % header.clusterSize !== 0)
    throw corrupt(`${name}: the table of ${whose} at byte ${position} doesn't begin with a cluster.`);
}

function readBacking(file: ByteSource, position: number, length: number, clusterSize: number): string | undefined {
  if (length === 0) return undefined;
  if (length > longestName || position + length > clusterSize)
    throw corrupt(`${file.name}: its parent's name of ${length} bytes at byte ${position} doesn't fit the header.`);
  return text(file, position, length, "its parent's name");
}

/** A name, which is a path in whatever encoding the system uses: taken as UTF-8. */
function text(file: ByteSource, position: number, length: number, what: string): string {
  const name = readExactly(file, position, length, what).toString("utf8");
  if (name.includes("\0")) throw corrupt(`${file.name}: ${what} at byte ${position} has a zero byte in it.`);
  return name;
}

function readExtensions(file: ByteSource, start: number, end: number): Extensions {
  const found: Extensions = { features: new Map() };
  // The end of a shorter header is an end of the list, too.
  for (let at = start; at + 8 <= end; ) {
    const head = readExactly(file, at, 8, "a header extension");
    const type = head.readUInt32BE(0);
    const length = head.readUInt32BE(4);
    if (type === Extension.end) break;
    at += 8;
    if (length > end - at)
      throw corrupt(
        `${file.name}: the header extension at byte ${at - 8} takes ${length} bytes: it leaves the header.`,
      );
    if (type === Extension.backingFormat) found.backingFormat = text(file, at, length, "its parent's format");
    else if (type === Extension.dataFile) found.dataFile = text(file, at, length, "its data file's name");
    else if (type === Extension.features) readFeatures(readExactly(file, at, length, "the names of features"), found);
    else if (type === bitmapsExtension) found.bitmaps = true;
    else if (type === luksExtension && length >= 16) {
      const place = readExactly(file, at, 16, "where the LUKS header is");
      found.luks = { position: u64be(place, 0), length: u64be(place, 8) };
    }
    at += Math.ceil(length / 8) * 8;
  }
  return found;
}

/** Entries of 48 bytes: type (0 is incompatible), bit, name. */
function readFeatures(table: Buffer, found: Extensions): void {
  for (let at = 0; at + 48 <= table.length; at += 48)
    if (table[at] === 0) {
      const name = table.toString("latin1", at + 2, at + 48);
      const end = name.search(/[^ -~]/);
      found.features.set(table[at + 1]!, end < 0 ? name : name.slice(0, end));
    }
}

function refuseUnknown(name: string, more: Buffer | undefined, extensions: Extensions): void {
  if (!more) return;
  const unknown: string[] = [];
  for (let bit = Incompatible.extended + 1; bit < 64; bit++) {
    const word = more.readUInt32BE(bit < 32 ? 4 : 0);
    if (((word >>> (bit % 32)) & 1) === 0) continue;
    const known = extensions.features.get(bit);
    unknown.push(known ? `"${known}" (bit ${bit})` : `bit ${bit}`);
  }
  if (unknown.length > 0)
    throw unsupported(
      `${name}: needs ${unknown.length === 1 ? "a feature" : "features"} that Spindle doesn't know: ${unknown.join(", ")}. Copy it with qemu-img convert to an image without.`,
    );
}
