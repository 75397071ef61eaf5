/** CRC-16 (polynomial 0x8005 reflected), which group descriptors had before metadata_csum; continued from `sum`. */
export function crc16(sum: number, bytes: Uint8Array): number {
  let crc = sum;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xa001 : 0);
  }
  return crc;
}
