import { type ByteSource, readFully } from "../bytes/byte-source.js";
import { corrupt, ImageError } from "../errors.js";

/** Most bytes of the buffer. */
const capacity = 256 * 1024;

/** A packed file read from a position on, through one buffer. */
export class PackedInput {
  private buffer: Buffer;
  /** The buffer's bytes from `from` to `to` are not used yet; `base` is where its first byte is in the file. */
  private from = 0;
  private to = 0;
  private base = 0;

  /** @param atOnce bytes that are read at once: few for who leaps from header to header, or for what is small. */
  constructor(
    readonly source: ByteSource,
    private readonly atOnce = capacity,
  ) {
    this.buffer = Buffer.allocUnsafeSlow(atOnce);
  }

  /** Where the next byte is. */
  get position(): number {
    return this.base + this.from;
  }

  seek(position: number): void {
    this.base = position;
    this.from = 0;
    this.to = 0;
  }

  /** What comes next, as far as it is in memory: at least one byte, but none at the end of the file. */
  bytes(): Buffer {
    if (this.from === this.to) {
      this.seek(this.position);
      this.to = this.source.read(this.base, this.buffer.subarray(0, this.atOnce));
    }
    return this.buffer.subarray(this.from, this.to);
  }

  skip(count: number): void {
    if (count <= this.to - this.from) this.from += count;
    else this.seek(this.position + count);
  }

  get atEnd(): boolean {
    return this.bytes().length === 0;
  }

  /**
   * The next `length` bytes without taking them; fewer at the end of the file. The bytes are good until the next call.
   * @param length at most 256 KiB
   */
  peek(length: number): Buffer {
    if (this.to - this.from < length) {
      const kept = this.to - this.from;
      if (length <= this.buffer.length) this.buffer.copyWithin(0, this.from, this.to);
      else {
        const larger = Buffer.allocUnsafeSlow(capacity);
        this.buffer.copy(larger, 0, this.from, this.to);
        this.buffer = larger;
      }
      this.base += this.from;
      this.from = 0;
      const wanted = this.buffer.subarray(kept, Math.max(length, this.atOnce));
      this.to = kept + readFully(this.source, this.base + kept, wanted);
    }
    return this.buffer.subarray(this.from, Math.min(this.to, this.from + length));
  }

  /**
   * The next `length` bytes; good until the next call.
   * @throws ImageError `corrupt` when the file ends before; `what` names them, for example `a gzip trailer`.
   */
  take(length: number, what: string): Buffer {
    const bytes = this.peek(length);
    if (bytes.length < length) throw truncated(this.source, what);
    this.from += length;
    return bytes;
  }
}

/** Whether a frame begins with this that zstd and lz4 alike pass over: a mark, its size, 4, and so many bytes. */
export const isSkippable = (mark: number) => (mark & 0xfffffff0) >>> 0 === 0x184d2a50;

/**
 * Passes over skippable frames.
 * @param packing whose they are, for messages
 * @throws ImageError `corrupt` where the file ends within one
 */
export function skipSkippable(input: PackedInput, packing: string): void {
  for (;;) {
    const head = input.peek(8);
    if (head.length < 8 || !isSkippable(head.readUInt32LE(0))) return;
    const end = input.position + 8 + head.readUInt32LE(4);
    if (end > input.source.size) throw truncated(input.source, `a skippable ${packing} frame`);
    input.seek(end);
  }
}

/** The file ends where it should go on. */
export function truncated(source: ByteSource, what: string) {
  return corrupt(
    `${source.name}: ends at ${placeIn(source, source.size)} in the middle of ${what}: the file is truncated or damaged. Fetch or copy it again.`,
  );
}

/** `byte 700`, and of a file in parts which byte of which part that is; the file's end is that of its last part. */
export function placeIn(source: ByteSource, position: number): string {
  const { size } = source;
  const found = size > 0 ? source.partAt?.(Math.min(position, size - 1)) : undefined;
  if (!found) return `byte ${position}`;
  return `byte ${position} (${found.part.name}, byte ${found.position + Math.max(0, position - size + 1)})`;
}

/** What a decompressor threw without knowing of the file, as a sentence about the file. */
export function damaged(source: ByteSource, position: number, error: unknown): unknown {
  if (!(error instanceof ImageError)) return error;
  const { name } = source;
  if (error.code !== "corrupt") return new ImageError(error.code, `${name}: ${error.message}`, { cause: error });
  return corrupt(
    `${name}: ${error.message}, at or before ${placeIn(source, position)}. Fetch or copy the file again.`,
    error,
  );
}
