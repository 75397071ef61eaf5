/**
 * What `zstd -d` meets in a full image and Spindle itself doesn't read: the frames of zeros, and the 8 bytes before each
 * page. A wrong byte there leaves the disk as Spindle reads it and breaks the promise that zstd reads it too.
 */
import type { ByteSource } from "../../bytes/byte-source.js";
import { readFully } from "../../bytes/byte-source.js";
import { ChunkKind, fanOut, frameHeader, type Leaf, skippableMagic } from "./pages.js";
import type { Spot } from "./reader.js";
import { zeroFrame } from "./zero-frame.js";

/** A place where `zstd -d` would give other bytes than the disk's, or give up. */
export interface StreamFault {
  readonly firstChunk: number;
  /** Behind the last chunk that the fault hits. */
  readonly endChunk: number;
  /** What is wrong at which byte of the file. */
  readonly what: string;
}

/** What is needed of the layer. */
export interface StreamOf {
  readonly file: ByteSource;
  readonly size: number;
  readonly chunkSize: number;
  /** @throws ImageError where the index is damaged. */
  spot(chunk: number): Spot;
}

/** Pages begin with a type and a CRC: a shorter payload is none. */
const shortestPage = 8;

export class StreamCheck {
  private readonly frames = new Map<number, Buffer>();
  private readonly head = Buffer.alloc(frameHeader);
  private found = Buffer.alloc(0);
  private readonly chunkCount: number;

  constructor(private readonly image: StreamOf) {
    this.chunkCount = Math.ceil(image.size / image.chunkSize);
  }

  /** The frames of zeros between a leaf's chunks. */
  zerosOf(leaf: Leaf, firstChunk: number): StreamFault[] {
    const faults: StreamFault[] = [];
    for (let i = 0; i < leaf.count; i = leaf.runEnds[i]!) {
      if (leaf.kinds[i] !== ChunkKind.zero) continue;
      const end = leaf.runEnds[i]!;
      const expected = this.zeros(firstChunk + i, firstChunk + end);
      const at = leaf.positions[i]!;
      let taken = 0;
      for (let chunk = i; chunk < end; chunk++) taken += leaf.lengths[chunk]!;
      if (taken !== expected.length || !this.isAt(at, expected))
        faults.push({
          firstChunk: firstChunk + i,
          endChunk: firstChunk + end,
          what: `the frame of zeros at byte ${at} is damaged`,
        });
    }
    return faults;
  }

  /**
   * Walks what lies between two leaves with chunks, or before the first, or behind the last: pages, and a frame of zeros
   * for each leaf that is zero as a whole.
   * @param position where it begins in the file: 0, or behind the frames of a leaf
   * @param chunk the first chunk whose frames come then
   * @returns the first thing that is wrong
   */
  gap(position: number, chunk: number): StreamFault | undefined {
    const { file } = this.image;
    let at = position;
    for (let next = chunk; ; ) {
      let spot: Spot | undefined;
      try {
        spot = next < this.chunkCount ? this.image.spot(next) : undefined;
      } catch {
        return undefined; // the index is damaged from there on, which is reported where it is checked
      }
      if (spot?.kind === "zero") {
        for (; next < spot.endChunk; next += fanOut) {
          const end = Math.min(next + fanOut, this.chunkCount);
          const expected = this.zeros(next, end);
          if (!this.isAt(at, expected)) at = this.behindPages(at);
          if (!this.isAt(at, expected))
            return {
              firstChunk: next,
              endChunk: end,
              what: `no sound frame of zeros, or head of a page, is at byte ${at}`,
            };
          at += expected.length;
        }
        continue;
      }
      const expected = spot?.kind === "leaf" ? spot.leaf.positions[0]! : file.size;
      if (at !== expected) at = this.behindPages(at);
      if (at === expected) return undefined;
      const last = Math.min(next, this.chunkCount - 1);
      const what = `the pages before byte ${expected} can't be passed by their heads, from byte ${at} on`;
      return { firstChunk: last, endChunk: Math.min(last + fanOut, this.chunkCount), what };
    }
  }

  /** The position behind the pages that follow each other from `at` on, by what their heads tell. */
  private behindPages(at: number): number {
    const { file } = this.image;
    for (let position = at; ; ) {
      if (readFully(file, position, this.head) < frameHeader) return position;
      const length = this.head.readUInt32LE(4);
      const end = position + frameHeader + length;
      if (this.head.readUInt32LE(0) !== skippableMagic || length < shortestPage || end > file.size) return position;
      position = end;
    }
  }

  /** The frame of zeros for the chunks from `first` to before `end`, which are at most a leaf. */
  private zeros(first: number, end: number): Buffer {
    const { chunkSize, size } = this.image;
    const length = Math.min(end * chunkSize, size) - first * chunkSize;
    let frame = this.frames.get(length);
    if (!frame) {
      frame = zeroFrame(length);
      // Whole leaves come again and again; of the others there are up to 1,024 lengths, which are as quickly made anew.
      if (length === fanOut * chunkSize) this.frames.set(length, frame);
    }
    return frame;
  }

  private isAt(position: number, expected: Buffer): boolean {
    if (this.found.length < expected.length) this.found = Buffer.allocUnsafe(expected.length);
    const found = this.found.subarray(0, expected.length);
    return readFully(this.image.file, position, found) === expected.length && found.equals(expected);
  }
}
