/** Bytes of zeros in one RLE block: the most that Zstandard allows. */
const blockSize = 128 * 1024;
const rle = 1;

/** One Zstandard frame that unpacks to `length` zeros, 4 bytes for each 128 KiB of them (FORMAT.md §3, RFC 8878 §3.1.1). */
export function zeroFrame(length: number): Buffer {
  const blocks = Math.max(1, Math.ceil(length / blockSize));
  const bytes = Buffer.alloc(14 + 4 * blocks);
  bytes.writeUInt32LE(0xfd2fb528, 0);
  bytes[4] = 0xc0; // frame content size of 8 bytes, no checksum
  bytes[5] = 0x38; // window of 128 KiB, so that any decoder has room for it
  bytes.writeUInt32LE(length % 2 ** 32, 6);
  bytes.writeUInt32LE(Math.floor(length / 2 ** 32), 10);
  for (let i = 0; i < blocks; i++) {
    const last = i === blocks - 1;
    const size = last ? length - i * blockSize : blockSize;
    // Block header: 1 bit last, 2 bits type, 21 bits size; then the byte to repeat, which is 0.
    bytes.writeUIntLE((last ? 1 : 0) | (rle << 1) | (size << 3), 14 + 4 * i, 3);
  }
  return bytes;
}
