/** What is in a file: its bytes, its holes, a link's target. */
import type { Extent } from "../../bytes/byte-source.js";
import { unsupported } from "../../errors.js";
import { findInExtents, type Stretch } from "./extents.js";
import { findInBlockMap } from "./indirect.js";
import type { Inode } from "./inode.js";
import { joinedStretches, longestTarget } from "./limits.js";
import { inlineRest } from "./xattrs.js";

/** Size of i_block, where a short target or the beginning of inline data lies. */
const inlineStart = 60;

/** Where block `logical` of the file and those behind it are; the last answer is kept with the inode. */
export function stretchAt(inode: Inode, logical: number): Stretch {
  const into = logical - inode.lastLogical;
  if (into < 0 || into >= inode.lastCount) {
    const onDisk = () => (inode.usesExtents ? findInExtents(inode, logical) : findInBlockMap(inode, logical));
    const { changes } = inode.volume;
    const found = changes ? changes.stretch(inode.number, logical, onDisk) : onDisk();
    inode.lastLogical = logical;
    inode.lastPhysical = found.physical;
    inode.lastCount = found.count;
    return found;
  }
  return { physical: inode.lastPhysical === 0 ? 0 : inode.lastPhysical + into, count: inode.lastCount - into };
}

/** As ByteSource.read. */
export function readContents(inode: Inode, position: number, target: Uint8Array): number {
  const length = Math.min(target.length, inode.size - position);
  if (length <= 0) return 0;
  refuseEncrypted(inode, "its content");
  if (inode.inline) {
    const bytes = inlineData(inode).subarray(position, position + length);
    target.set(bytes);
    // The size may tell more than there is room for; the kernel shows zeros.
    target.fill(0, bytes.length, length);
    return length;
  }
  const { source, superblock } = inode.volume;
  const logical = Math.floor(position / superblock.blockSize);
  const within = position - logical * superblock.blockSize;
  const { physical, count } = stretchAt(inode, logical);
  const here = Math.min(length, count * superblock.blockSize - within);
  if (physical === 0) {
    target.fill(0, 0, here);
    return here;
  }
  const from = physical * superblock.blockSize + within;
  const filled = source.read(from, here < target.length ? target.subarray(0, here) : target);
  if (filled === 0) throw inode.volume.corrupt(from, `inode ${inode.number} has data here, but the volume ends before`);
  return filled;
}

/** The hole or data at `position`, joined with what follows of the same kind. */
export function contentsExtent(inode: Inode, position: number): Extent {
  const rest = inode.size - position;
  if (inode.inline || inode.encrypted) return { hole: false, length: rest };
  const { blockSize } = inode.volume.superblock;
  const first = Math.floor(position / blockSize);
  const end = Math.ceil(inode.size / blockSize);
  const { physical, count } = stretchAt(inode, first);
  const hole = physical === 0;
  let next = first + count;
  for (let joined = 0; joined < joinedStretches && next < end; joined++) {
    const further = stretchAt(inode, next);
    if ((further.physical === 0) !== hole) break;
    next += further.count;
  }
  return { hole, length: Math.min(rest, next * blockSize - position) };
}

/** A target of less than 60 bytes lies in the inode, a longer one in a block, or as inline data. */
export function linkTarget(inode: Inode): Uint8Array {
  refuseEncrypted(inode, "its target");
  const { size } = inode;
  if (size === 0 || size > longestTarget) throw inode.corrupt(`is a symbolic link with a target of ${size} bytes`);
  if (inode.inline) return inlineData(inode).subarray(0, size);
  if (size < inlineStart && !inBlocks(inode)) return Buffer.from(inode.blockArea.subarray(0, size));
  const target = Buffer.alloc(size);
  for (let filled = 0; filled < size; ) filled += readContents(inode, filled, target.subarray(filled));
  return target;
}

/** A short target in a block: no writer that is known makes one, but the format allows it. */
function inBlocks(inode: Inode): boolean {
  return inode.usesExtents && inode.blockArea.readUInt16LE(0) === 0xf30a && inode.blockArea.readUInt16LE(2) > 0;
}

/**
 * Inline data: 60 bytes in i_block, its rest in the attribute `system.data`. A copy, for no block to be kept alive.
 * @throws ImageError `corrupt` for an inode that says its data is in extents as well: the kernel refuses it, too.
 */
export function inlineData(inode: Inode): Buffer {
  if (inode.usesExtents) throw inode.corrupt("says that its data is in itself and that it is in extents");
  return Buffer.concat([inode.blockArea, inlineRest(inode)]);
}

/** @throws ImageError `unsupported` for a file that is encrypted (fscrypt): its key is not in the image. */
export function refuseEncrypted(inode: Inode, what: string): void {
  if (inode.encrypted)
    throw unsupported(
      `${inode.volume.name}: inode ${inode.number} is encrypted (fscrypt), and the key is not in the image: ${what} can't be read. Unlock it on the system that it comes from.`,
    );
}
