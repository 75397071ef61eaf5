/**
 * CRC-32C (Castagnoli, polynomial 0x1EDC6F41 reflected), eight bytes a step ("slicing by 8"): tables[k][b] is what byte
 * b does to the sum when k more bytes follow it.
 */
const tables = makeTables();

function makeTables(): Uint32Array {
  const made = new Uint32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let sum = byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0x82f63b78 : 0);
    made[byte] = sum;
  }
  for (let index = 256; index < made.length; index++) {
    const before = made[index - 256];
    made[index] = (before >>> 8) ^ made[before & 0xff];
  }
  return made;
}

/**
 * The sum of `bytes` from `start` to `end`, continued from `sum`, without the inversions at the beginning and the end
 * that most users of CRC-32C add: those start with 0xffffffff and invert the result, see `crc32c`.
 */
export function updateCrc32c(sum: number, bytes: Uint8Array, start = 0, end = bytes.length): number {
  const t = tables;
  let crc = sum;
  let at = start;
  for (const last = end - 7; at < last; at += 8) {
    crc ^= bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
    crc =
      t[1792 + (crc & 0xff)] ^
      t[1536 + ((crc >>> 8) & 0xff)] ^
      t[1280 + ((crc >>> 16) & 0xff)] ^
      t[1024 + (crc >>> 24)] ^
      t[768 + bytes[at + 4]] ^
      t[512 + bytes[at + 5]] ^
      t[256 + bytes[at + 6]] ^
      t[bytes[at + 7]];
  }
  for (; at < end; at++) crc = (crc >>> 8) ^ t[(crc ^ bytes[at]) & 0xff];
  return crc >>> 0;
}

/** CRC-32C of `bytes` as RFC 3720 (iSCSI) has it. */
export function crc32c(bytes: Uint8Array): number {
  return (updateCrc32c(0xffffffff, bytes) ^ 0xffffffff) >>> 0;
}
