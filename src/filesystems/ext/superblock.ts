/**
 * The superblock: 1024 bytes at byte 1024 of the volume, little-endian (Documentation/filesystems/ext4, "Super Block").
 * Everything later is found by its numbers, so each is checked here.
 */
import { type ByteSource, readExactly, readFully } from "../../bytes/byte-source.js";
import { updateCrc32c } from "../../bytes/crc32c.js";
import { corrupt, unsupported } from "../../errors.js";
import { compat, featureNames, incompat, roCompat, typeName, unreadableFeatures } from "./features.js";
import { mostGroups } from "./limits.js";

export const superblockPosition = 1024;
const size = 1024;
const magic = 0xef53;

export interface Superblock {
  readonly type: string;
  readonly compat: number;
  readonly incompat: number;
  readonly roCompat: number;
  readonly blockSize: number;
  /** Blocks a cluster: more than 1 with bigalloc only. */
  readonly clusterBlocks: number;
  readonly blocks: number;
  readonly firstDataBlock: number;
  readonly blocksPerGroup: number;
  readonly groups: number;
  readonly inodes: number;
  readonly inodesPerGroup: number;
  readonly inodeSize: number;
  /** Bytes of a group descriptor. */
  readonly descriptorSize: number;
  readonly firstMetaGroup: number;
  readonly reservedDescriptorBlocks: number;
  readonly overheadClusters: number;
  /** Free blocks that are kept for root. */
  readonly reservedBlocks: number;
  readonly backupGroups: readonly [number, number];
  readonly journalInode: number;
  /** UUID of the journal on another device, where there is one. */
  readonly journalUuid: string;
  readonly uuid: Buffer;
  readonly label: string;
  /** Whether metadata carries crc32c sums, and what they begin with. */
  readonly checksums: boolean;
  readonly checksumSeed: number;
  readonly facts: Record<string, unknown>;
  readonly warnings: readonly string[];
}

export function hasMagic(source: ByteSource): boolean {
  if (source.size < superblockPosition + size) return false;
  const start = Buffer.alloc(100);
  if (readFully(source, superblockPosition, start) < start.length) return false;
  // An external journal has no inodes; it is recognised for its refusal to say what it is.
  const isJournal = (start.readUInt32LE(96) & incompat.journalDevice) !== 0;
  return start.readUInt16LE(56) === magic && start.readUInt32LE(24) <= 6 && (start.readUInt32LE(0) !== 0 || isJournal);
}

/** @throws ImageError `corrupt`, or `unsupported` naming the features that are missing here. */
export function readSuperblock(source: ByteSource): Superblock {
  const bytes = readExactly(source, superblockPosition, size, "the ext superblock");
  const wrong = (what: string) =>
    corrupt(
      `${source.name}: the ext superblock at byte ${superblockPosition} ${what}. Run e2fsck on a copy of the image; it can use a backup superblock.`,
    );
  if (bytes.readUInt16LE(56) !== magic) throw wrong("has no ext signature");
  const revision = bytes.readUInt32LE(76);
  const words =
    revision === 0
      ? { compat: 0, incompat: 0, roCompat: 0 }
      : { compat: bytes.readUInt32LE(92), incompat: bytes.readUInt32LE(96), roCompat: bytes.readUInt32LE(100) };
  if (words.incompat & incompat.journalDevice)
    throw unsupported(
      `${source.name}: this is the external journal of an ext filesystem, without files of its own. Open the filesystem that it belongs to.`,
    );
  const unreadable = unreadableFeatures(words.incompat);
  if (unreadable.length > 0)
    throw unsupported(
      `${source.name}: this ext filesystem uses ${unreadable.join(", ")}, which Spindle can't read. Mount it on a Linux system that can.`,
    );
  const checksums = (words.roCompat & roCompat.metadataChecksum) !== 0;
  if (checksums && bytes[0x175] !== 1) throw unsupported(`${source.name}: its checksums are of type ${bytes[0x175]}.`);
  if (checksums && updateCrc32c(0xffffffff, bytes, 0, 1020) !== bytes.readUInt32LE(1020))
    throw wrong("does not match its checksum");

  const blockShift = bytes.readUInt32LE(24);
  if (blockShift > 6) throw wrong(`has blocks of 2^${blockShift + 10} bytes`);
  const blockSize = 1024 << blockShift;
  const bigalloc = (words.roCompat & roCompat.bigalloc) !== 0;
  const clusterShift = bytes.readUInt32LE(28);
  if (bigalloc && (clusterShift < blockShift || clusterShift > 20)) throw wrong("has clusters of an impossible size");
  const wide = (words.incompat & incompat.sixtyFourBit) !== 0;
  const high = (at: number) => (wide ? bytes.readUInt32LE(at) * 0x100000000 : 0);
  const blocks = bytes.readUInt32LE(4) + high(0x150);
  const firstDataBlock = bytes.readUInt32LE(20);
  const blocksPerGroup = bytes.readUInt32LE(32);
  const inodes = bytes.readUInt32LE(0);
  const inodesPerGroup = bytes.readUInt32LE(40);
  const inodeSize = revision === 0 ? 128 : bytes.readUInt16LE(88);
  const descriptorSize = wide ? bytes.readUInt16LE(0xfe) : 32;
  if (inodeSize < 128 || inodeSize > blockSize || (inodeSize & (inodeSize - 1)) !== 0)
    throw wrong(`has inodes of ${inodeSize} bytes`);
  if (wide && (descriptorSize < 64 || descriptorSize > 1024 || (descriptorSize & (descriptorSize - 1)) !== 0))
    throw wrong(`has group descriptors of ${descriptorSize} bytes`);
  // A block bitmap is one block; with bigalloc a bit is a cluster.
  const clusterBlocks = bigalloc ? 2 ** (clusterShift - blockShift) : 1;
  if (blocksPerGroup === 0 || blocksPerGroup > blockSize * 8 * clusterBlocks)
    throw wrong(`has groups of ${blocksPerGroup} blocks`);
  if (inodesPerGroup === 0 || inodesPerGroup > blockSize * 8) throw wrong(`has groups of ${inodesPerGroup} inodes`);
  if (firstDataBlock > 1 || firstDataBlock >= blocks) throw wrong(`begins at block ${firstDataBlock} of ${blocks}`);
  if (blocks > Number.MAX_SAFE_INTEGER / blockSize) throw wrong(`has ${blocks} blocks`);
  const groups = Math.ceil((blocks - firstDataBlock) / blocksPerGroup);
  if (groups > mostGroups) throw wrong(`has ${groups} block groups`);
  if (inodes > groups * inodesPerGroup || inodes < 2) throw wrong(`has ${inodes} inodes in ${groups} groups`);

  const warnings: string[] = [];
  if (blocks * blockSize > source.size)
    warnings.push(
      `The filesystem has ${blocks * blockSize} bytes, but its volume ends after ${source.size}: files beyond are lost.`,
    );
  const state = bytes.readUInt16LE(58);
  if (state & 2) warnings.push("The kernel found errors in this filesystem and marked it: some files may be damaged.");
  if (!(state & 1) && !(words.compat & compat.hasJournal))
    warnings.push("The filesystem was not unmounted cleanly and has no journal: what was written last may be missing.");

  const uuid = Buffer.from(bytes.subarray(104, 120));
  return {
    ...words,
    type: typeName(words),
    blockSize,
    clusterBlocks,
    blocks,
    firstDataBlock,
    blocksPerGroup,
    groups,
    inodes,
    inodesPerGroup,
    inodeSize,
    descriptorSize,
    firstMetaGroup: bytes.readUInt32LE(0x104),
    reservedDescriptorBlocks: bytes.readUInt16LE(0xce),
    overheadClusters: bytes.readUInt32LE(0x248),
    reservedBlocks: bytes.readUInt32LE(8) + high(0x154),
    backupGroups: [bytes.readUInt32LE(0x24c), bytes.readUInt32LE(0x250)],
    journalInode: bytes.readUInt32LE(0xe0),
    journalUuid: uuidText(bytes.subarray(0xd0, 0xe0)),
    uuid,
    label: text(bytes.subarray(120, 136)),
    checksums,
    checksumSeed:
      words.incompat & incompat.csumSeed ? bytes.readUInt32LE(0x270) : updateCrc32c(0xffffffff, uuid, 0, uuid.length),
    facts: {
      uuid: uuidText(uuid),
      features: [
        ...featureNames("compat", words.compat),
        ...featureNames("incompat", words.incompat),
        ...featureNames("roCompat", words.roCompat),
      ],
      blockSize,
      ...(bigalloc ? { clusterSize: blockSize * clusterBlocks } : {}),
      inodeSize,
      lastMountedOn: text(bytes.subarray(136, 200)) || undefined,
      made: bytes.readUInt32LE(264) ? new Date(bytes.readUInt32LE(264) * 1000).toISOString() : undefined,
      lastWritten: bytes.readUInt32LE(48) ? new Date(bytes.readUInt32LE(48) * 1000).toISOString() : undefined,
    },
    warnings,
  };
}

/** Characters up to the first NUL. */
function text(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString("utf8", 0, end < 0 ? bytes.length : end);
}

export function uuidText(bytes: Buffer): string {
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
