/**
 * The tag with which every descriptor begins (ECMA-167, 3/7.2):
 *
 *     0 identifier   2 version   4 checksum of the tag   6 serial   8 CRC of what follows   10 its length   12 own block
 */
export const TAG_SIZE = 16;

/** Descriptors by the number in their tag. */
export const tags = {
  primaryVolume: 1,
  anchor: 2,
  volumePointer: 3,
  partition: 5,
  logicalVolume: 6,
  terminating: 8,
  integrity: 9,
  fileSet: 256,
  fileIdentifier: 257,
  allocationExtent: 258,
  indirectEntry: 259,
  fileEntry: 261,
  extendedFileEntry: 266,
} as const;

const crcTable = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
  return crc;
});

/** The CRC of ITU-T V.41, starting from 0 (ECMA-167, 1/7.2.6). */
export function crc16(bytes: Uint8Array, start: number, end: number): number {
  let crc = 0;
  for (let at = start; at < end; at++) crc = ((crc << 8) & 0xffff) ^ crcTable[(crc >>> 8) ^ bytes[at]];
  return crc;
}

/** Whether a tag is at `at`, by its own checksum; all zeros have a right one and are none. */
export function isTag(bytes: Buffer, at: number): boolean {
  if (at + TAG_SIZE > bytes.length || bytes.readUInt16LE(at) === 0) return false;
  return tagSum(bytes, at) === bytes[at + 4];
}

function tagSum(bytes: Buffer, at: number): number {
  let sum = 0;
  for (let index = 0; index < TAG_SIZE; index++) if (index !== 4) sum += bytes[at + index];
  return sum & 0xff;
}

/**
 * What is wrong with the descriptor that fills `bytes`; undefined when all is well.
 * @param location the block that it has to name as its own; undefined where that isn't checked.
 */
export function tagProblem(bytes: Buffer, expected: readonly number[], location?: number): string | undefined {
  if (bytes.length < TAG_SIZE) return "has no room for a descriptor";
  if (tagSum(bytes, 0) !== bytes[4]) return "has a wrong checksum in its tag";
  const identifier = bytes.readUInt16LE(0);
  if (!expected.includes(identifier)) return `is descriptor ${identifier} instead of ${expected.join(" or ")}`;
  const length = bytes.readUInt16LE(10);
  if (TAG_SIZE + length > bytes.length) return `has a CRC over ${length} bytes, more than there are`;
  if (crc16(bytes, TAG_SIZE, TAG_SIZE + length) !== bytes.readUInt16LE(8)) return "has a wrong CRC";
  const own = bytes.readUInt32LE(12);
  if (location !== undefined && own !== location) return `says that it is of block ${own} instead of ${location}`;
  return undefined;
}
