import { type Face, type FacedDisk, made, type Part, uuidOf } from "./face.js";

const blockSize = 1 << 20;
const headerSize = 512;
/** Bytes of VDIHEADER1PLUS from its own size field on. */
const plusSize = 400;

/**
 * VirtualBox' disk image of fixed size (VDIPREHEADER, VDIHEADER1PLUS in src/VBox/Storage/VDICore.h):
 *
 *     header, 512 bytes | a number for each block of 1 MiB: its place, here its own | to the next MiB | the disk | zeros
 */
export function vdi({ size, id }: FacedDisk): Face {
  const blocks = Math.ceil(size / blockSize);
  const mapLength = blocks * 4;
  const data = Math.ceil((headerSize + mapLength) / blockSize) * blockSize;
  const header = Buffer.alloc(headerSize);
  header.write("<<< Oracle VM VirtualBox Disk Image >>>\n", 0, "latin1");
  header.writeUInt32LE(0xbeda107f, 64);
  header.writeUInt32LE(0x00010001, 68); // version 1.1
  header.writeUInt32LE(plusSize, 72);
  header.writeUInt32LE(2, 76); // a fixed size
  header.writeUInt32LE(headerSize, 340); // where the map is
  header.writeUInt32LE(data, 344);
  header.writeUInt32LE(512, 360); // bytes of a sector; the geometry before it is VirtualBox' to choose
  header.writeBigUInt64LE(BigInt(size), 368);
  header.writeUInt32LE(blockSize, 376);
  header.writeUInt32LE(blocks, 384);
  header.writeUInt32LE(blocks, 388); // all of them are there
  const uuid = uuidOf(id);
  uuid.copy(header, 392); // of the creation
  uuid.copy(header, 408); // of the last change
  const map: Part = { kind: "made", length: mapLength, fill: fillMap };
  const parts: Part[] = [made(header), map];
  const gap = data - headerSize - mapLength;
  if (gap > 0) parts.push({ kind: "zeros", length: gap });
  parts.push({ kind: "disk", length: size, disk: 0 });
  if (size % blockSize !== 0) parts.push({ kind: "zeros", length: blockSize - (size % blockSize) });
  return { file: "disk.vdi", parts };
}

/** The map's bytes from `position` on: little-endian numbers that count up. */
function fillMap(position: number, target: Uint8Array): void {
  for (let at = 0; at < target.length; at++) {
    const byte = position + at;
    target[at] = (Math.floor(byte / 4) >>> ((byte % 4) * 8)) & 0xff;
  }
}
