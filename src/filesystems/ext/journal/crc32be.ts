/** CRC-32 (polynomial 0x04C11DB7, most significant bit first, no inversions), continued from `sum`: whole transactions. */
export function crc32be(sum: number, bytes: Uint8Array): number {
  let crc = sum;
  for (const byte of bytes) crc = (crc << 8) ^ table[((crc >>> 24) ^ byte) & 0xff];
  return crc >>> 0;
}

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 24;
  for (let bit = 0; bit < 8; bit++) crc = (crc << 1) ^ (crc & 0x80000000 ? 0x04c11db7 : 0);
  return crc >>> 0;
});
