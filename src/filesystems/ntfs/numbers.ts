/** Numbers as NTFS keeps them: little-endian, 64 bits wide, and here never beyond 2^53. */

/** The unsigned 64-bit number at `at`; Infinity when it isn't a safe integer, which every later check refuses. */
export function u64(bytes: Buffer, at: number): number {
  const value = bytes.readUInt32LE(at + 4) * 0x100000000 + bytes.readUInt32LE(at);
  return Number.isSafeInteger(value) ? value : Number.POSITIVE_INFINITY;
}

/** The record number of a file reference: its low 48 bits. */
export const referenceRecord = (bytes: Buffer, at: number): number => bytes.readUIntLE(at, 6);
/** The sequence number of a file reference: its high 16 bits. */
export const referenceSequence = (bytes: Buffer, at: number): number => bytes.readUInt16LE(at + 6);

export const isPowerOfTwo = (value: number) => value > 0 && Number.isInteger(Math.log2(value));
