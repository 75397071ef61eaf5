import { type Extent, readFully } from "../../bytes/byte-source.js";
import type { ChunkCache } from "../../bytes/chunk-cache.js";
import { largestLzx, unpackLzx } from "../../bytes/lzx.js";
import { unpackXpress } from "../../bytes/xpress.js";
import { corrupt, ImageError, unsupported } from "../../errors.js";
import { u64 } from "./numbers.js";
import { PackedSource } from "./packed-source.js";
import { ResidentStream, RunStream, type Stream } from "./streams.js";

/*
 * System compression of Windows 10 (`compact /exe`; the Windows Overlay Filter, WOF): the unnamed stream is one hole of the
 * file's size, a reparse point names the algorithm, and the stream WofCompressedData holds, as a resource of a WIM file:
 *
 *   offsets of the chunks but the first, counted from the end of this table: 4 bytes each (8 if the file has 4 GiB or more)
 *   chunks, packed; one that has its unpacked length is stored as it is
 */

export const wofStreamName = "WofCompressedData";

interface Algorithm {
  readonly name: string;
  readonly chunkSize: number;
  /** Less than the smallest packed chunk takes: its code lengths alone are more. */
  readonly step: number;
  unpack(packed: Uint8Array, target: Uint8Array): void;
}

/** By the reparse point's number. */
const algorithms: readonly Algorithm[] = [
  { name: "XPRESS4K", chunkSize: 4096, step: 256, unpack: unpackXpress },
  { name: "LZX", chunkSize: largestLzx, step: 32, unpack: unpackLzx },
  { name: "XPRESS8K", chunkSize: 8192, step: 256, unpack: unpackXpress },
  { name: "XPRESS16K", chunkSize: 16384, step: 256, unpack: unpackXpress },
];

export class Wof {
  private readonly sources: readonly PackedSource[];

  constructor(volumeName: string, volumeSize: number, cache: ChunkCache) {
    this.sources = algorithms.map(
      ({ name, chunkSize, step }) => new PackedSource(`${volumeName}: ${name}`, chunkSize, step, volumeSize, cache),
    );
  }

  /**
   * @param reparse data of the reparse point after its header.
   * @param packed the stream WofCompressedData.
   * @throws ImageError `unsupported` for what isn't in this file, `corrupt` for what can't be.
   */
  open(name: string, reparse: Buffer, size: number, packed: Stream | undefined): Stream {
    if (reparse.length < 8 || reparse.readUInt32LE(0) !== 1)
      throw unsupported(`${name}: its system compression is of a version that Spindle doesn't know.`);
    if (reparse.readUInt32LE(4) !== 2)
      throw unsupported(
        `${name}: its data is in a WIM file elsewhere (provider ${reparse.readUInt32LE(4)}), not on this volume.`,
      );
    const number = reparse.length >= 16 ? reparse.readUInt32LE(12) : -1;
    const algorithm = algorithms[number];
    if (!algorithm) throw unsupported(`${name}: Spindle doesn't know system compression algorithm ${number}.`);
    if (!(packed instanceof ResidentStream || packed instanceof RunStream))
      throw corrupt(`${name}: it is marked as compressed by the system, but has no stream ${wofStreamName}.`);
    return new WofStream(name, size, algorithm, packed, this.sources[number]!);
  }
}

class WofStream implements Stream {
  private readonly chunks: number;
  private readonly entrySize: number;
  private readonly tableSize: number;
  private readonly entries = Buffer.alloc(16);

  constructor(
    readonly name: string,
    readonly size: number,
    private readonly algorithm: Algorithm,
    private readonly packed: ResidentStream | RunStream,
    private readonly source: PackedSource,
  ) {
    this.chunks = Math.ceil(size / algorithm.chunkSize);
    this.entrySize = size < 2 ** 32 ? 4 : 8;
    this.tableSize = Math.max(0, this.chunks - 1) * this.entrySize;
    if (this.tableSize > packed.size)
      throw corrupt(
        `${name}: a file of ${size} bytes in ${algorithm.name} can't be in ${packed.size} bytes of ${wofStreamName}.`,
      );
  }

  get weight(): number {
    return 300 + this.packed.weight;
  }

  read(position: number, target: Uint8Array): number {
    const count = Math.min(target.length, this.size - position);
    if (count <= 0) return 0;
    const { chunkSize, name } = this.algorithm;
    const chunk = Math.floor(position / chunkSize);
    const within = position - chunk * chunkSize;
    const length = Math.min(chunkSize, this.size - chunk * chunkSize);
    const wanted = target.subarray(0, Math.min(count, length - within));
    const { start, stop } = this.bounds(chunk);
    if (!(start < stop && stop <= this.packed.size && stop - start <= length))
      throw this.damaged(chunk, `it lies from byte ${start} to ${stop} of the ${this.packed.size} of ${wofStreamName}`);
    if (stop - start === length) {
      const filled = this.packed.read(start + within, wanted);
      return filled;
    }
    const place = this.placeOf(start);
    if (place === undefined || (chunk < this.chunks - 1 && stop - start < this.algorithm.step))
      throw this.damaged(chunk, `${stop - start} bytes of ${name} can't be`);
    return this.source.read(place, within, wanted, (unpacked) => this.unpack(chunk, start, stop, length, unpacked));
  }

  extentAt(position: number): Extent {
    return { hole: false, length: this.size - position };
  }

  /** Where chunk `chunk` begins and ends in the packed stream. */
  private bounds(chunk: number): { start: number; stop: number } {
    const { entrySize, tableSize, entries, packed } = this;
    // The table has no entry for the first chunk, which begins right after it, and none for the end.
    const first = Math.max(0, chunk - 1);
    const length = Math.min(this.chunks - 1, chunk + 1) - first;
    const bytes = entries.subarray(0, length * entrySize);
    if (readFully(packed, first * entrySize, bytes) !== bytes.length) throw this.damaged(chunk, "the table is cut off");
    const entry = (index: number) =>
      entrySize === 4 ? bytes.readUInt32LE((index - first) * 4) : u64(bytes, (index - first) * 8);
    return {
      start: tableSize + (chunk === 0 ? 0 : entry(chunk - 1)),
      stop: chunk === this.chunks - 1 ? packed.size : tableSize + entry(chunk),
    };
  }

  private placeOf(position: number): number | undefined {
    const { packed } = this;
    return packed instanceof ResidentStream ? packed.attribute.position + position : packed.placeOf(position);
  }

  private unpack(chunk: number, start: number, stop: number, length: number, target: Uint8Array): void {
    const bytes = Buffer.allocUnsafe(stop - start);
    if (readFully(this.packed, start, bytes) !== bytes.length) throw this.damaged(chunk, "it is cut off");
    try {
      this.algorithm.unpack(bytes, target.subarray(0, length));
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      throw this.damaged(chunk, error.message);
    }
    target.fill(0, length);
  }

  private damaged(chunk: number, what: string): ImageError {
    const start = chunk * this.algorithm.chunkSize;
    return corrupt(
      `${this.name}: its chunk at byte ${start}, packed with ${this.algorithm.name}, is damaged: ${what}.`,
    );
  }
}
