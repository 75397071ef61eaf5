/**
 * Unpacked pieces that are too large for the chunk cache, in a file without a name that all threads share: an xz block of
 * 24 MiB is unpacked and checked once, however many reads it takes to get all of it.
 *
 *     words   clock | for each slot: generation | piece | last use | length
 *     file    a slot each, sparse: what isn't used takes no room
 *
 * A slot's generation is odd while a thread fills or empties it. Who reads looks at the generation before and after: when it
 * is the same and even, the bytes were those of the piece. A thread that dies while it fills leaves its slot odd for ever:
 * after a while the slot is given up, and its piece gets another.
 */
import { closeSync, readSync, writeSync } from "node:fs";
import { crc32 } from "node:zlib";
import { system } from "../errors.js";
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate } from "../libc.js";
import { settings } from "../settings.js";
import { namelessFile } from "./cache-folder.js";
import { type Piece, type PieceReader, pieceSize } from "./packing.js";
import { contentDiffers } from "./piece-check.js";

/** Content of the largest piece, in bytes. What is larger has no way into it but its start, and is kept. */
export const largestPiece = 1 << 28;
const slots = 64;

const CLOCK = 0;
const SLOT = 4;
const GENERATION = 0;
const PIECE = 1;
const USED = 2;
const LENGTH = 3;

/** Milliseconds of waiting for another thread's unpacking after which it is taken for dead. */
const patience = 60_000;

/** What threads share: plain data. */
export interface ScratchData {
  readonly fd: number;
  readonly words: SharedArrayBuffer;
}

export class Scratch {
  static create(): Scratch {
    const words = new SharedArrayBuffer((slots + 1) * SLOT * 4);
    new Int32Array(words).forEach((_, at, all) => {
      if (at >= SLOT && at % SLOT === PIECE) all[at] = -1;
    });
    return new Scratch({ fd: namelessFile(), words });
  }

  private readonly words: Int32Array;
  private readonly buffer = Buffer.allocUnsafeSlow(pieceSize);

  /** @param wait milliseconds, see `patience` */
  constructor(
    readonly data: ScratchData,
    private readonly wait = patience,
  ) {
    this.words = new Int32Array(data.words);
  }

  /** Fills `target` with the piece's bytes from `offset` on; they are in the piece. */
  read(name: string, piece: Piece, window: Uint8Array, reader: PieceReader, offset: number, target: Uint8Array): void {
    for (let begun = performance.now(); ; ) {
      const slot = this.slotOf(piece.number);
      if (slot !== undefined) {
        const generation = Atomics.load(this.words, slot + GENERATION);
        if (generation % 2 === 0) {
          this.readAt(slot, offset, target);
          const same = Atomics.load(this.words, slot + GENERATION) === generation;
          if (same && Atomics.load(this.words, slot + PIECE) === piece.number) {
            this.words[slot + USED] = Atomics.add(this.words, CLOCK, 1);
            return;
          }
        } else if (performance.now() - begun > this.wait) {
          // Should the thread live after all, the slot will have the piece again when it is filled.
          Atomics.compareExchange(this.words, slot + PIECE, piece.number, -1);
          begun = performance.now();
        } else Atomics.wait(this.words, slot + GENERATION, generation, Math.min(1000, this.wait));
        continue;
      }
      const claimed = this.claim(piece);
      if (claimed === undefined) break;
      this.fill(name, claimed, piece, window, reader);
    }
    this.skim(name, piece, window, reader, offset, target);
  }

  close(): void {
    closeSync(this.data.fd);
  }

  private slotOf(piece: number): number | undefined {
    for (let slot = SLOT; slot < this.words.length; slot += SLOT)
      if (Atomics.load(this.words, slot + PIECE) === piece) return slot;
    return undefined;
  }

  /** A slot for a piece, now odd; the pieces used longest ago make room. Undefined when all slots are being filled. */
  private claim(piece: Piece): number | undefined {
    const { words } = this;
    for (;;) {
      let taken = piece.length;
      let empty: number | undefined;
      let oldest: number | undefined;
      for (let slot = SLOT; slot < words.length; slot += SLOT) {
        const length = words[slot + LENGTH]!;
        taken += length;
        if (words[slot + GENERATION]! % 2 !== 0) continue;
        if (length === 0) empty = slot;
        else if (oldest === undefined || words[slot + USED]! < words[oldest + USED]!) oldest = slot;
      }
      const isCrowded = oldest !== undefined && taken > settings.scratchBytes;
      const slot = isCrowded || empty === undefined ? oldest : empty;
      if (slot === undefined) return undefined;
      const generation = Atomics.load(words, slot + GENERATION);
      if (generation % 2 !== 0) continue;
      if (Atomics.compareExchange(words, slot + GENERATION, generation, generation + 1) !== generation) continue;
      const kept = isCrowded ? 0 : piece.length;
      const length = words[slot + LENGTH]!;
      if (length > kept) punchHole(this.data.fd, this.positionOf(slot) + kept, length - kept);
      words[slot + LENGTH] = kept;
      Atomics.store(words, slot + PIECE, isCrowded ? -1 : piece.number);
      if (!isCrowded) return slot;
      this.release(slot, -1);
    }
  }

  /** Makes a slot even, holding `piece`, or nothing (-1). */
  private release(slot: number, piece: number): void {
    Atomics.store(this.words, slot + PIECE, piece);
    this.words[slot + USED] = piece < 0 ? 0 : Atomics.add(this.words, CLOCK, 1) + 1;
    Atomics.add(this.words, slot + GENERATION, 1);
    Atomics.notify(this.words, slot + GENERATION);
  }

  private fill(name: string, slot: number, piece: Piece, window: Uint8Array, reader: PieceReader): void {
    let held = -1;
    try {
      unpackInParts(name, piece, window, reader, this.buffer, (part, at) => this.writeAt(slot, at, part));
      held = piece.number;
    } finally {
      this.release(slot, held);
    }
  }

  /** Unpacks all of a piece for the sake of a part of it. */
  private skim(
    name: string,
    piece: Piece,
    window: Uint8Array,
    reader: PieceReader,
    offset: number,
    target: Uint8Array,
  ) {
    unpackInParts(name, piece, window, reader, this.buffer, (part, at) => {
      const from = Math.max(offset, at);
      const to = Math.min(offset + target.length, at + part.length);
      if (from < to) target.set(part.subarray(from - at, to - at), from - offset);
    });
  }

  private positionOf(slot: number): number {
    return (slot / SLOT - 1) * largestPiece;
  }

  private readAt(slot: number, offset: number, target: Uint8Array): void {
    const position = this.positionOf(slot) + offset;
    try {
      for (let filled = 0; filled < target.length; ) {
        const count = readSync(this.data.fd, target, filled, target.length - filled, position + filled);
        // Nothing there: the slot is being filled with something else, as its generation will tell.
        if (count === 0) return;
        filled += count;
      }
    } catch (error) {
      throw system("reading a temporary file", error);
    }
  }

  private writeAt(slot: number, offset: number, bytes: Uint8Array): void {
    const position = this.positionOf(slot) + offset;
    try {
      for (let done = 0; done < bytes.length; )
        done += writeSync(this.data.fd, bytes, done, bytes.length - done, position + done);
    } catch (error) {
      throw system("writing a temporary file", error);
    }
  }
}

function punchHole(fd: number, position: number, length: number): void {
  // Where the filesystem can't, the room is used again by what comes to the slot.
  fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, position, length);
}

function unpackInParts(
  name: string,
  piece: Piece,
  window: Uint8Array,
  reader: PieceReader,
  buffer: Buffer,
  give: (part: Uint8Array, at: number) => void,
): void {
  let crc = 0;
  reader.begin(piece, window);
  for (let at = 0; at < piece.length; at += buffer.length) {
    const part = buffer.subarray(0, Math.min(buffer.length, piece.length - at));
    reader.fill(part);
    if (piece.crc !== undefined) crc = crc32(part, crc);
    give(part, at);
  }
  reader.finish();
  if (piece.crc !== undefined && crc !== piece.crc) throw contentDiffers(name, piece);
}
