/** The 64-bit number at `at`, big-endian: exact to 2^53, and beyond that larger than any file. */
export const u64be = (bytes: Buffer, at: number) => bytes.readUInt32BE(at) * 0x100000000 + bytes.readUInt32BE(at + 4);

/** The 64-bit number at `at`, little-endian: exact to 2^53, and beyond that larger than any file. */
export const u64le = (bytes: Buffer, at: number) => bytes.readUInt32LE(at + 4) * 0x100000000 + bytes.readUInt32LE(at);

/** The largest disk whose every byte has an exact position. */
export const largestDisk = Number.MAX_SAFE_INTEGER;

/** Tables of an image are read through pages of this many bytes, of which this many are kept: 1 MiB a layer. */
export const tablePage = { size: 8192, kept: 128 } as const;

/** A GUID as Windows writes it: three little-endian numbers, then eight bytes in order. */
export function guidText(bytes: Buffer): string {
  const hex = (from: number, to: number) => Buffer.from(bytes.subarray(from, to)).toString("hex");
  const turned = (from: number, to: number) => Buffer.from(bytes.subarray(from, to)).reverse().toString("hex");
  return `${turned(0, 4)}-${turned(4, 6)}-${turned(6, 8)}-${hex(8, 10)}-${hex(10, 16)}`;
}

/** The largest chunk that is unpacked whole, in bytes: AFF's usual pages, and EWF's largest chunks of usual sectors. */
export const largestPacked = 16 << 20;
