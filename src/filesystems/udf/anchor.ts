/**
 * How a UDF volume is recognised, and where its description begins. From byte 32768 on, descriptors of 2 KiB (or of a sector,
 * where that is larger) name the standards in use: NSR02 or NSR03 is UDF's. The anchor, which tells where the volume's
 * descriptors are, is in two of three places: block 256, the last block, and the 256th before it (UDF 2.60, 2.2.3).
 */
import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import { isTag, TAG_SIZE, tagProblem, tags } from "./tag.js";

const FIRST = 32768;
/** The usual ones first: of media, of disks. */
const blockSizes = [2048, 512, 4096, 1024, 8192, 16384, 32768];
const MOST_RECOGNITION = 64;
const known = new Set(["BEA01", "BOOT2", "CD001", "CDW02", "NSR02", "NSR03", "TEA01"]);

/** Names of the standards that the volume says it follows, by descriptors of `step` bytes. */
function recognitionSequence(source: ByteSource, step: number): string[] {
  const names: string[] = [];
  const bytes = Buffer.alloc(7);
  for (let index = 0; index < MOST_RECOGNITION; index++) {
    if (readFully(source, FIRST + index * step, bytes) < 7) break;
    const name = bytes.toString("latin1", 1, 6);
    if (!known.has(name)) break;
    names.push(name);
    if (name === "TEA01") break;
  }
  return names;
}

/** An unfinished disc has its anchor at block 512; drives count up to 152 blocks behind the last that holds data. */
function anchorBlocks(blocks: number): number[] {
  const last = [blocks - 1, blocks - 257, blocks - 3, blocks - 151, blocks - 153];
  return [256, ...last.filter((block) => block > 256), 512];
}

export interface Anchor {
  readonly blockSize: number;
  readonly block: number;
  readonly main: Extent;
  readonly reserve: Extent;
}

/** Consecutive blocks of the volume. */
export interface Extent {
  readonly block: number;
  /** In bytes. */
  readonly length: number;
}

export const extentAt = (bytes: Buffer, at: number): Extent => ({
  length: bytes.readUInt32LE(at) & 0x3fffffff,
  block: bytes.readUInt32LE(at + 4),
});

/** Every anchor that there is, in the order in which they are to be tried. */
export function* anchors(source: ByteSource): Generator<Anchor> {
  const tag = Buffer.alloc(TAG_SIZE);
  for (const blockSize of blockSizes) {
    for (const block of anchorBlocks(Math.floor(source.size / blockSize))) {
      const position = block * blockSize;
      if (position + 512 > source.size || readFully(source, position, tag) < TAG_SIZE || !isTag(tag, 0)) continue;
      if (tag.readUInt16LE(0) !== tags.anchor || tag.readUInt32LE(12) !== block) continue;
      const bytes = Buffer.alloc(512);
      readFully(source, position, bytes);
      if (tagProblem(bytes, [tags.anchor], block) !== undefined) continue;
      yield { blockSize, block, main: extentAt(bytes, 16), reserve: extentAt(bytes, 24) };
    }
  }
}

/** ISO 9660's name alone does not make it UDF; UDF's without an anchor does, so that the damage is told. */
export function recognisesUdf(source: ByteSource): boolean {
  for (const step of [2048, 4096, 8192, 16384, 32768]) {
    const names = recognitionSequence(source, step);
    if (!names.some((name) => name === "NSR02" || name === "NSR03")) continue;
    return !names.includes("CD001") || !anchors(source).next().done;
  }
  return false;
}
