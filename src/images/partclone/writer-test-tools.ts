/** Tests only: writes partclone images by partclone's IMAGE_FORMATS.md, bit by bit and apart from what reads them. */

import { Xxh128 } from "../../bytes/xxh128.js";
import { Xxh64 } from "../../bytes/xxhash.js";

export interface Written {
  readonly version: 1 | 2;
  readonly blockSize: number;
  /** Whether each block is in the image. */
  readonly used: readonly boolean[];
  /** The disk; of unused blocks nothing is taken. */
  readonly disk: Buffer;
  /** Of format 2: used blocks a checksum, 0 for none; default 4. */
  readonly perChecksum?: number;
  readonly reseed?: boolean;
  /** Of format 2; default CRC-32. */
  readonly sum?: "xxh64" | "xxh128";
  readonly bitmap?: "bits" | "bytes" | "none";
  /** Of format 1: checksums of 8 bytes, as partclone before 0.1.0 wrote on machines of 64 bits. */
  readonly wide?: boolean;
  /** Of the partition in bytes, where it isn't all blocks. */
  readonly size?: number;
  readonly filesystem?: string;
}

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  return value;
});

/** CRC-32 (0xEDB88320) from `sum` on, not inverted at its end. */
function crc(bytes: Uint8Array, sum = 0xffffffff): number {
  let value = sum;
  for (let at = 0; at < bytes.length; at++) value = (value >>> 8) ^ table[(value ^ bytes[at]!) & 0xff]!;
  return value >>> 0;
}

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
};

const u64 = (value: number) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};

const padded = (text: string, length: number) =>
  Buffer.concat([Buffer.from(text, "latin1"), Buffer.alloc(length)], length);

export function partcloneImage(spec: Written): Buffer {
  return spec.version === 1 ? first(spec) : second(spec);
}

function first({ blockSize, used, disk, wide, size, filesystem }: Written): Buffer {
  const parts: Uint8Array[] = [
    padded("partclone-image", 15),
    padded(filesystem ?? "EXTFS", 15),
    Buffer.from("0001\0\0"),
    u32(blockSize),
    u64(size ?? used.length * blockSize),
    u64(used.length),
    u64(used.filter(Boolean).length),
    Buffer.alloc(4096),
    Buffer.from(used.map(Number)),
    Buffer.from("BiTmAgIc"),
  ];
  let sum = 0xffffffff;
  for (const block of blocks(used, disk, blockSize)) {
    sum = crc(Buffer.alloc(blockSize, block[0]!), sum);
    parts.push(block, u32(sum), wide ? u32(0x64626974) : Buffer.alloc(0));
  }
  return Buffer.concat(parts);
}

function second({ blockSize, used, disk, size, filesystem, ...spec }: Written): Buffer {
  const { perChecksum = 4, reseed = true, bitmap = "bits" } = spec;
  const count = used.filter(Boolean).length;
  const options = Buffer.alloc(18);
  options.writeUInt32LE(18, 0);
  options.writeUInt16LE(2, 4);
  options.writeUInt16LE(64, 6);
  const [mode, sumSize] = { crc32: [0x20, 4], xxh64: [0x30, 8], xxh128: [0x31, 16] }[spec.sum ?? "crc32"] as [
    number,
    number,
  ];
  options.writeUInt16LE(perChecksum === 0 ? 0 : mode, 8);
  options.writeUInt16LE(perChecksum === 0 ? 0 : sumSize, 10);
  options.writeUInt32LE(perChecksum, 12);
  options[16] = Number(reseed);
  options[17] = { none: 0, bits: 1, bytes: 8 }[bitmap];
  const head = Buffer.concat([
    padded("partclone-image", 16),
    padded("0.3.99", 14),
    Buffer.from("0002"),
    Buffer.from([0xde, 0xc0]),
    padded(filesystem ?? "EXTFS", 16),
    u64(size ?? used.length * blockSize),
    u64(used.length),
    u64(count + 7), // as a filesystem may tell it: what counts is the bitmap
    u64(count),
    u32(blockSize),
    options,
  ]);
  const parts: Uint8Array[] = [head, u32(crc(head))];
  if (bitmap === "bytes") parts.push(Buffer.from(used.map(Number)), Buffer.from("BiTmAgIc"));
  if (bitmap === "bits") {
    const bits = Buffer.alloc(Math.ceil(used.length / 8));
    for (const [block, is] of used.entries()) if (is) bits[block >> 3]! |= 1 << (block & 7);
    parts.push(bits, u32(crc(bits)));
  }
  let sum = sumOf(spec.sum);
  let inStrip = 0;
  for (const block of blocks(used, disk, blockSize)) {
    parts.push(block);
    if (perChecksum === 0) continue;
    sum.update(block);
    if (++inStrip < perChecksum) continue;
    parts.push(sum.digest());
    inStrip = 0;
    if (reseed) sum = sumOf(spec.sum);
  }
  if (inStrip > 0) parts.push(sum.digest());
  return Buffer.concat(parts);
}

function sumOf(kind: Written["sum"]): { update(bytes: Uint8Array): void; digest(): Buffer } {
  // Whether those are right is their own test's business.
  if (kind) return kind === "xxh64" ? new Xxh64() : new Xxh128();
  let sum = 0xffffffff;
  return {
    update(bytes) {
      sum = crc(bytes, sum);
    },
    digest: () => u32(sum),
  };
}

/** Puts the checksum of a header of format 2 right, and where it can be that of the bitmap. */
export function sealPartclone(bytes: Buffer): void {
  if (bytes.length < 110) return;
  bytes.writeUInt32LE(crc(bytes.subarray(0, 106)), 106);
  const end = 110 + Math.ceil(Number(bytes.readBigUInt64LE(60) & 0xffffffn) / 8);
  if (end + 4 <= bytes.length) bytes.writeUInt32LE(crc(bytes.subarray(110, end)), end);
}

function* blocks(used: readonly boolean[], disk: Buffer, blockSize: number): Generator<Buffer> {
  for (const [block, is] of used.entries())
    if (is) yield Buffer.concat([disk.subarray(block * blockSize, (block + 1) * blockSize)], blockSize);
}

/** What the image's disk is: the used blocks of `disk`, zeros elsewhere. */
export function expectedDisk({ used, disk, blockSize, size }: Written): Buffer {
  const bytes = Buffer.alloc(size ?? used.length * blockSize);
  for (const [block, is] of used.entries())
    if (is) disk.copy(bytes, block * blockSize, block * blockSize, (block + 1) * blockSize);
  return bytes;
}
