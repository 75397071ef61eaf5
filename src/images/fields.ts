/** The 64-bit number at `at`, big-endian: exact to 2^53, and beyond that larger than any file. */
export const u64be = (bytes: Buffer, at: number) => bytes.readUInt32BE(at) * 0x100000000 + bytes.readUInt32BE(at + 4);

/** The 64-bit number at `at`, little-endian: exact to 2^53, and beyond that larger than any file. */
export const u64le = (bytes: Buffer, at: number) => bytes.readUInt32LE(at + 4) * 0x100000000 + bytes.readUInt32LE(at);

/** The largest disk whose every byte has an exact position. */
export const largestDisk = Number.MAX_SAFE_INTEGER;

/** Tables of an image are read through pages of this many bytes, of which this many are kept: 1 MiB a layer. */
export const tablePage = { size: 8192, kept: 128 } as const;

/** The largest chunk that is unpacked whole, in bytes: AFF's usual pages, and EWF's largest chunks of usual sectors. */
export const largestPacked = 16 << 20;
