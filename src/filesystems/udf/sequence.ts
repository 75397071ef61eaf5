/**
 * The volume descriptor sequence (ECMA-167, 3/8.4): which partitions there are and what logical volume they make. Of
 * descriptors of one kind, the one with the highest sequence number counts.
 */
import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import { type Extent, extentAt } from "./anchor.js";
import { isTag, tagProblem, tags } from "./tag.js";

/** Blocks of a sequence that are read at most; 16 are usual. */
const MOST_BLOCKS = 1024;

export interface Sequence {
  readonly primary: Buffer | undefined;
  readonly logical: Buffer;
  /** Byte in the volume of the logical volume's descriptor, for messages. */
  readonly logicalPosition: number;
  /** By partition number. */
  readonly partitions: ReadonlyMap<number, Buffer>;
}

/** Undefined when the sequence lacks what is needed, or is damaged there; `problems` is told of what is wrong. */
export function readSequence(
  source: ByteSource,
  blockSize: number,
  start: Extent,
  problems: (what: string) => void,
): Sequence | undefined {
  let primary: Buffer | undefined;
  let logical: Buffer | undefined;
  let logicalPosition = 0;
  const partitions = new Map<number, Buffer>();
  let extent: Extent | undefined = start;
  let left = MOST_BLOCKS;
  while (extent) {
    let next: Extent | undefined;
    const { block: first, length }: Extent = extent;
    for (let block = first; block < first + Math.ceil(length / blockSize) && left > 0; block++, left--) {
      const bytes = Buffer.alloc(blockSize);
      const position = block * blockSize;
      if (readFully(source, position, bytes) < blockSize) {
        problems(`the volume ends before the volume descriptor at byte ${position}`);
        break;
      }
      // Blocks without a descriptor may follow the last.
      if (!isTag(bytes, 0)) {
        if (bytes.some((byte) => byte !== 0)) problems(`the volume descriptor at byte ${position} is damaged`);
        continue;
      }
      const kind = bytes.readUInt16LE(0);
      const problem = tagProblem(bytes, [kind], block);
      if (problem !== undefined) {
        problems(`the volume descriptor at byte ${position} ${problem}`);
        continue;
      }
      if (kind === tags.terminating) break;
      if (kind === tags.primaryVolume) primary = newer(primary, bytes);
      else if (kind === tags.logicalVolume) {
        logical = newer(logical, bytes);
        if (logical === bytes) logicalPosition = position;
      } else if (kind === tags.partition) {
        const number = bytes.readUInt16LE(22);
        partitions.set(number, newer(partitions.get(number), bytes));
      } else if (kind === tags.volumePointer) {
        next = extentAt(bytes, 20);
        break;
      }
    }
    extent = next && left-- > 0 ? next : undefined;
  }
  if (!logical || partitions.size === 0) return undefined;
  return { primary, logical, logicalPosition, partitions };
}

const newer = (known: Buffer | undefined, found: Buffer) =>
  known && known.readUInt32LE(16) > found.readUInt32LE(16) ? known : found;

/** What the logical volume integrity descriptors tell: the last of their chain counts. */
export interface Integrity {
  readonly closed: boolean;
  readonly freeBlocks: number;
  readonly blocks: number;
  readonly files: number;
  readonly directories: number;
}

export function readIntegrity(source: ByteSource, blockSize: number, start: Extent): Integrity | undefined {
  let found: Buffer | undefined;
  let extent: Extent | undefined = start;
  let left = MOST_BLOCKS;
  while (extent) {
    let next: Extent | undefined;
    const { block: first, length }: Extent = extent;
    for (let block = first; block < first + Math.ceil(length / blockSize) && left-- > 0; block++) {
      const bytes = Buffer.alloc(blockSize);
      if (readFully(source, block * blockSize, bytes) < blockSize) break;
      if (!isTag(bytes, 0) || tagProblem(bytes, [tags.integrity], block) !== undefined) break;
      found = bytes;
      next = extentAt(bytes, 32);
      if (next.length > 0) break;
      next = undefined;
    }
    extent = next && left-- > 0 ? next : undefined;
  }
  return found && parseIntegrity(found);
}

function parseIntegrity(bytes: Buffer): Integrity | undefined {
  const partitions = bytes.readUInt32LE(72);
  const implementationUse = 80 + partitions * 8;
  if (implementationUse > bytes.length) return undefined;
  let freeBlocks = 0;
  let blocks = 0;
  for (let index = 0; index < partitions; index++) {
    const free = bytes.readUInt32LE(80 + index * 4);
    const size = bytes.readUInt32LE(80 + (partitions + index) * 4);
    // All ones: not told. A partition that maps another is as large as that one, and is counted with it.
    if (free !== 0xffffffff) freeBlocks += free;
    if (size !== 0xffffffff) blocks = Math.max(blocks, size);
  }
  const told = bytes.readUInt32LE(76) >= 46 && implementationUse + 46 <= bytes.length;
  return {
    closed: bytes.readUInt32LE(28) === 1,
    freeBlocks,
    blocks,
    files: told ? bytes.readUInt32LE(implementationUse + 32) : 0,
    directories: told ? bytes.readUInt32LE(implementationUse + 36) : 0,
  };
}
