import { adler32 } from "../../bytes/adler32.js";
import { readExactly, readFully } from "../../bytes/byte-source.js";
import { unpackBzip2 } from "../../bytes/bzip2.js";
import type { PackedChunks } from "../../bytes/chunk-cache.js";
import { unpackZlib } from "../../bytes/zlib.js";
import { corrupt, ImageError, unsupported } from "../../errors.js";
import type { Damage, Integrity, PieceReport } from "../../layers/layer.js";
import type { Evidence } from "./evidence.js";
import { type ChunkPlace, type Gap, Kept } from "./tables.js";

/** Disk bytes of a piece that `verify` checks at once. */
const pieceSize = 4 << 20;

/** Chunks at the start of a disk among which one of zeros is looked for: 128 MiB of most images. */
const mostSearched = 4096;

/** How bzip2 data begins: its header, and without it the mark of its first block. */
const bzip2Start = Buffer.from("BZh");
const bzip2Block = Buffer.from("314159265359", "hex");

/** The chunks of an image, unpacked, each checked by the checksum that its packing has or that is behind it. */
export class EwfChunks implements PackedChunks {
  readonly size: number;
  readonly chunkSize: number;
  private readonly found: ChunkPlace;
  /** A chunk as it is kept. */
  private packed = Buffer.alloc(0);
  /** The last chunk of the disk may be packed whole where the disk ends within it. */
  private whole: Uint8Array | undefined;
  /** What a chunk of zeros was last packed to: much of most disks is the same few bytes. */
  private packedZeros: Buffer | undefined;
  private writersZeros: Buffer | undefined;
  private searched = false;

  constructor(
    readonly name: string,
    private readonly evidence: Evidence,
    file: ChunkPlace["file"],
  ) {
    this.size = evidence.media.size;
    this.chunkSize = evidence.media.chunkSize;
    this.found = { file, position: 0, length: 0, kept: Kept.packed, pattern: undefined };
  }

  /** Where `chunk` is. The answer is overwritten by the next. @throws ImageError `corrupt` where it is nowhere. */
  place(chunk: number): ChunkPlace {
    const { tables } = this.evidence;
    const table = tables.with(chunk);
    if (!table) throw this.missing(tables.gapAt(chunk));
    table.place(chunk - table.first, this.found);
    return this.found;
  }

  /** What is wrong with chunks that no table has. */
  missing({ from, to }: Gap) {
    const { chunkSize, size } = this;
    return corrupt(
      `${this.name}: its tables have no chunks for disk bytes ${from * chunkSize} to ${Math.min(to * chunkSize, size) - 1}: the image was never finished, or is damaged. All else can be read.`,
    );
  }

  /**
   * Whether `chunk` is packed to what zeros are packed to: whoever wrote the image packed all of them alike. It is known to
   * be zeros then without being unpacked.
   */
  isZeros(chunk: number): boolean {
    const zeros = this.zerosOfWriter();
    const place = this.place(chunk);
    if (!zeros || place.kept !== Kept.packed || place.length !== zeros.length) return false;
    if (place.position + zeros.length > place.file.size) return false; // told when it is read
    return this.bytes(place, zeros.length).equals(zeros);
  }

  /** What the writer packed a chunk of zeros to, found among the first chunks, and by every thread alike. */
  private zerosOfWriter(): Buffer | undefined {
    if (this.searched) return this.writersZeros;
    this.searched = true;
    const { chunkSize, size } = this;
    const target = new Uint8Array(chunkSize);
    const tried = new Set<number>();
    for (let chunk = 0; chunk < mostSearched && (chunk + 1) * chunkSize <= size && tried.size < 8; chunk++)
      try {
        const place = this.place(chunk);
        if (place.kept !== Kept.packed || place.length > chunkSize >> 7 || tried.has(place.length)) continue;
        tried.add(place.length);
        const packed = Buffer.from(this.bytes(place, place.length));
        if (this.unpackAll(packed, target) !== chunkSize || !isZero(target)) continue;
        this.writersZeros = packed;
        break;
      } catch (error) {
        if (!(error instanceof ImageError)) throw error; // a chunk that is damaged is told when it is read
      }
    return this.writersZeros;
  }

  isStored(chunk: number): boolean {
    return this.evidence.tables.with(chunk) !== undefined;
  }

  unpack(chunk: number, target: Uint8Array): void {
    const place = this.place(chunk);
    const { file, position, kept, pattern } = place;
    try {
      if (kept === Kept.packed) this.unpackInto(target, place);
      else if (kept === Kept.pattern) repeat(pattern!, target);
      else if (kept === Kept.summed) this.readSummed(target, place);
      else this.readPlain(target, place);
    } catch (error) {
      if (!(error instanceof ImageError) || error.code !== "corrupt") throw error;
      const start = chunk * this.chunkSize;
      throw corrupt(
        `${file.name}: chunk ${chunk} at byte ${position} is damaged, ${error.message}: bytes ${start} to ${start + target.length - 1} of the disk are lost here. Restore the file from another copy; spindle verify lists all damage.`,
        error,
      );
    }
  }

  private unpackInto(target: Uint8Array, place: ChunkPlace): void {
    const packed = this.bytes(place, place.length);
    if (this.packedZeros?.equals(packed)) {
      target.fill(0);
      return;
    }
    if (target.length === this.chunkSize) {
      const got = this.unpackAll(packed, target);
      if (got < target.length) throw corrupt(`it unpacks to ${got} bytes instead of ${target.length}`);
      if (packed.length <= target.length >> 7 && isZero(target)) this.packedZeros = Buffer.from(packed);
      return;
    }
    this.whole ??= new Uint8Array(this.chunkSize);
    const got = this.unpackAll(packed, this.whole);
    if (got < target.length) throw corrupt(`it unpacks to ${got} bytes instead of ${target.length}`);
    target.set(this.whole.subarray(0, target.length));
  }

  private unpackAll(packed: Buffer, target: Uint8Array): number {
    if (this.evidence.packing === "zlib") return unpackZlib(packed, target);
    // EnCase is said to leave out bzip2's header and end; no file of that kind was to be had.
    if (packed.subarray(0, 6).equals(bzip2Block))
      throw unsupported(
        `${this.found.file.name}: has bzip2 chunks without bzip2's header, which this Spindle does not read. Export it with EnCase.`,
      );
    if (!packed.subarray(0, 3).equals(bzip2Start)) throw corrupt("it isn't bzip2 data");
    return unpackBzip2(packed, target);
  }

  /** A chunk as it is, with its Adler-32 behind it. The disk's last may be kept whole where the disk ends within it. */
  private readSummed(target: Uint8Array, place: ChunkPlace): void {
    const { length } = target;
    if (place.length < length + 4) throw corrupt(`it has only ${place.length} bytes`);
    const bytes = this.bytes(place, Math.min(place.length, this.chunkSize + 4));
    const holds = (data: number) => adler32(bytes.subarray(0, data)) === bytes.readUInt32LE(data);
    if (!holds(length) && (bytes.length === length + 4 || !holds(bytes.length - 4)))
      throw corrupt("its checksum is wrong");
    target.set(bytes.subarray(0, length));
  }

  private readPlain(target: Uint8Array, place: ChunkPlace): void {
    if (place.length < target.length) throw corrupt(`it has only ${place.length} bytes`);
    target.set(this.bytes(place, target.length));
  }

  /** The first `length` bytes of a chunk as it is kept, until the next call. */
  private bytes({ file, position }: ChunkPlace, length: number): Buffer {
    if (this.packed.length < length) this.packed = Buffer.allocUnsafe(Math.max(length, this.chunkSize + 1024));
    const bytes = this.packed.subarray(0, length);
    if (readFully(file, position, bytes) !== length) readExactly(file, position, length, "it"); // throws why
    return bytes;
  }
}

/** Pieces of some MiB, which `verify` checks side by side: every chunk, and a table where its first chunk is. */
export function integrityOf(chunks: EwfChunks, { tables }: Evidence): Integrity {
  const { chunkSize, size, name } = chunks;
  const perPiece = Math.max(1, Math.floor(pieceSize / chunkSize));
  const total = Math.ceil(size / chunkSize);
  const pieces = Math.ceil(total / perPiece);
  const place = (from: number, to: number) => {
    const position = from * chunkSize;
    return { file: name, position, length: Math.min(to * chunkSize, size) - position };
  };
  let buffer: Uint8Array | undefined;

  const check = (piece: number): PieceReport => {
    const damages: Damage[] = [];
    const first = piece * perPiece;
    const stop = Math.min(first + perPiece, total);
    let checked = 0;
    let bytes = 0;
    buffer ??= new Uint8Array(chunkSize);
    for (let chunk = first; chunk < stop; ) {
      const table = tables.with(chunk);
      if (!table) {
        // A gap is passed at once: an image that tells of an absurd size has little else.
        const gap = tables.gapAt(chunk);
        const end = Math.min(gap.to, total);
        damages.push({ ...place(chunk, end), message: chunks.missing(gap).message });
        if (end >= stop) {
          const passed = end === total ? pieces - piece : Math.floor((end - first) / perPiece);
          return { chunks: checked, bytes, damages, pieces: passed };
        }
        chunk = end;
        continue;
      }
      if (table.first === chunk)
        for (const message of table.complaints())
          damages.push({ ...place(chunk, Math.min(chunk + table.count, total)), message });
      const where = place(chunk, chunk + 1);
      try {
        checked++;
        bytes += where.length;
        chunks.unpack(chunk, buffer.subarray(0, where.length));
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
        damages.push({ ...where, message: error.message });
      }
      chunk++;
    }
    return { chunks: checked, bytes, damages };
  };

  return { pieces, check };
}

function repeat(pattern: Buffer, target: Uint8Array): void {
  Buffer.from(target.buffer, target.byteOffset, target.length).fill(pattern);
}

/** Compared with itself a byte further, so that the system's own comparison does the work. */
function isZero(bytes: Uint8Array): boolean {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  return buffer[0] === 0 && buffer.compare(buffer, 1, buffer.length, 0, buffer.length - 1) === 0;
}
