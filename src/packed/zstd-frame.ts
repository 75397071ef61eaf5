/** A zstd frame as it stands in a file: its header, and what unpacks it from its start or from a block within (see zstd-points.ts). */
import type { ByteSource } from "../bytes/byte-source.js";
import { Unzstd } from "../bytes/zstd.js";
import { corrupt, unsupported } from "../errors.js";
import type { Unpacking } from "./kept-content.js";
import { damaged, PackedInput, skipSkippable, truncated } from "./packed-input.js";

export const magic = 0xfd2fb528;

/** What libzstd takes by itself, in bytes. */
const largestWindow = 2 ** 27;
/** Bytes of a frame that are read at once. */
const largestRead = 1 << 18;

export interface FrameHeader {
  /** Bytes of content; undefined where that isn't told. */
  readonly size: number | undefined;
  readonly checksum: boolean;
  /** How far back in the content blocks refer, in bytes, and the byte that tells; undefined for all of it. */
  readonly window: { readonly size: number; readonly descriptor: number } | undefined;
}

/** RFC 8878, 3.1.1.1. Reads up to the first block. */
export function readFrameHeader(input: PackedInput): FrameHeader {
  const { source, position } = input;
  const what = "the header of a zstd frame";
  const descriptor = input.take(5, what)[4]!;
  const single = (descriptor & 0x20) !== 0;
  if ((descriptor & 8) !== 0)
    throw unsupported(`${source.name}: the zstd frame at byte ${position} has flags that Spindle doesn't know.`);
  let window: FrameHeader["window"];
  if (!single) {
    const byte = input.take(1, what)[0]!;
    const base = 2 ** (10 + (byte >> 3));
    window = { size: base + (base / 8) * (byte & 7), descriptor: byte };
  }
  const dictionaryLength = [0, 1, 2, 4][descriptor & 3]!;
  if (dictionaryLength > 0 && input.take(dictionaryLength, what).some((byte) => byte !== 0))
    throw unsupported(
      `${source.name}: was packed with a dictionary, which is another file. Unpack it with zstd -d -D.`,
    );
  const sizeLength = [single ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
  let size: number | undefined;
  if (sizeLength > 0) {
    const bytes = Buffer.alloc(8);
    input.take(sizeLength, what).copy(bytes);
    size = Number(bytes.readBigUInt64LE(0)) + (sizeLength === 2 ? 256 : 0);
    if (!Number.isSafeInteger(size))
      throw corrupt(`${source.name}: the zstd frame at byte ${position} tells ${size} bytes. It is damaged.`);
  }
  const memory = window?.size ?? size ?? 0;
  if (memory > largestWindow)
    throw unsupported(
      `${source.name}: the zstd frame at byte ${position} needs ${memory} bytes of memory (it was packed with --long or --ultra); Spindle takes up to ${largestWindow}. Unpack it with zstd -d --long=31.`,
    );
  return { size, checksum: (descriptor & 4) !== 0, window };
}

/** A place within a frame to begin at. */
export interface Point {
  /** The byte that tells the frame's window. */
  readonly descriptor: number;
  /** What of the content before it is referred to. */
  readonly before: Uint8Array;
  /** Whether the frame ends with a checksum. */
  readonly checksum: boolean;
}

/** Unpacks one frame, or the rest of one. */
export class FrameUnpacker implements Unpacking {
  private readonly unpacker: Unzstd;
  private readonly input: PackedInput;

  /** @param place with `packed`, the bytes that a whole frame takes, no more is read at once: there may be many small ones. */
  constructor(
    private readonly source: ByteSource,
    { at, packed = largestRead }: { readonly at: number; readonly packed?: number },
    private readonly point?: Point,
  ) {
    this.input = new PackedInput(source, Math.min(packed, largestRead));
    this.input.seek(at);
    if (!point) this.checkHeader();
    // Only now: who is refused closes nothing.
    this.unpacker = new Unzstd(point?.before);
    // A header for the blocks that follow: it tells no size and no checksum, but the window.
    if (point) this.unpacker.step(Buffer.of(0x28, 0xb5, 0x2f, 0xfd, 0, point.descriptor), new Uint8Array(0));
  }

  /** The first byte behind what was used of the file: at the end, behind the frame. */
  get position(): number {
    return this.input.position + (this.unpacker.ended && this.point?.checksum ? 4 : 0);
  }

  read(target: Uint8Array): number {
    const { unpacker, input, source } = this;
    for (let filled = 0; ; ) {
      if (unpacker.ended || filled === target.length) return filled;
      const bytes = input.bytes();
      try {
        unpacker.step(bytes, target.subarray(filled));
      } catch (error) {
        throw damaged(source, input.position, error);
      }
      input.skip(unpacker.consumed);
      filled += unpacker.produced;
      if (unpacker.consumed === 0 && unpacker.produced === 0 && !unpacker.ended)
        throw bytes.length === 0
          ? truncated(source, "a zstd frame")
          : damaged(source, input.position, corrupt("the zstd data is damaged"));
    }
  }

  close(): void {
    this.unpacker.close();
  }

  /** What it would allocate is looked at first. */
  private checkHeader(): void {
    skipSkippable(this.input, "zstd");
    const start = this.input.position;
    if (this.input.peek(4).length === 4) readFrameHeader(this.input);
    this.input.seek(start);
  }
}
