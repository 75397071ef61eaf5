/**
 * The content of a packed file as bytes readable at any position: what is read lies in a piece, the piece is in the table,
 * or the pass is waited for. Every thread has one of its own over the same files.
 */
import { unlinkSync } from "node:fs";
import { crc32 } from "node:zlib";
import { type ByteSource, type Extent, NotYet, type WhileWaiting } from "../bytes/byte-source.js";
import type { ChunkCache, PackedChunks } from "../bytes/chunk-cache.js";
import { unpackZstd } from "../bytes/zstd.js";
import { corrupt, ImageError } from "../errors.js";
import { type PackedFile, PieceKind, type PieceReader, pieceSize } from "./packing.js";
import { unpackWindow } from "./pass.js";
import { contentDiffers } from "./piece-check.js";
import type { PieceTable, StoredPiece } from "./piece-table.js";
import type { Progress } from "./progress.js";
import type { Scratch } from "./scratch.js";

/** Pieces that a table may have at most: chunks of the cache are numbered by them. */
const mostPieces = 2 ** 31;

/** Milliseconds of waiting after which somebody is asked whether to wait on. */
const lookInterval = 20;

export interface ContentParts {
  /** The packed file's path: the content goes by that. */
  readonly name: string;
  readonly file: PackedFile;
  readonly table: PieceTable;
  readonly progress: Progress;
  readonly scratch: Scratch;
  /** Bytes of content; not more than the pass finds, or reading there is an error. */
  readonly size: number;
  readonly whileWaiting: WhileWaiting;
}

export class PackedContent implements ByteSource, PackedChunks {
  readonly name: string;
  readonly size: number;
  readonly chunkSize = pieceSize;
  /** Pieces by number, each a chunk, of which the piece's bytes are the first ones. */
  private readonly pieces: ByteSource;
  private reader: PieceReader | undefined;
  private last: StoredPiece | undefined;

  constructor(
    private readonly parts: ContentParts,
    cache: ChunkCache,
  ) {
    this.name = parts.name;
    this.size = parts.size;
    this.pieces = cache.source({
      name: this.name,
      size: mostPieces * pieceSize,
      chunkSize: pieceSize,
      isStored: (number) => this.isStored(number),
      unpack: (number, target) => this.unpack(number, target),
    });
  }

  read(position: number, target: Uint8Array): number {
    const rest = this.size - position;
    if (rest <= 0) return 0;
    const piece = this.pieceAt(position);
    const within = position - piece.start;
    const length = Math.min(target.length, rest, piece.length - within);
    const part = length === target.length ? target : target.subarray(0, length);
    if (piece.kind === PieceKind.zeros) part.fill(0);
    else if (piece.length <= pieceSize) return this.pieces.read(piece.number * pieceSize + within, part);
    else this.parts.scratch.read(this.name, piece, this.windowOf(piece), this.readerOf(), within, part);
    return length;
  }

  isFar(position: number): boolean {
    const { progress } = this.parts;
    return progress.state === "under way" && position >= progress.covered;
  }

  extentAt(position: number): Extent {
    const { progress } = this.parts;
    const rest = this.size - position;
    // What isn't known yet is data.
    if (position >= progress.covered || progress.state === "failed") return { hole: false, length: rest };
    const piece = this.pieceAt(position);
    return { hole: piece.kind === PieceKind.zeros, length: Math.min(rest, piece.start + piece.length - position) };
  }

  isStored(number: number): boolean {
    if (number >= this.parts.progress.count) return false;
    const { kind, length } = this.parts.table.piece(number);
    return kind !== PieceKind.zeros && length <= pieceSize;
  }

  /** Unpacks piece `number` into the start of `target`. */
  unpack(number: number, target: Uint8Array): void {
    const piece = this.parts.table.piece(number);
    const part = target.subarray(0, piece.length);
    if (piece.kind === PieceKind.kept) {
      const data = this.parts.table.data(piece);
      if (!data || unpackZstd(data, part) !== piece.length) throw this.discarded();
      return;
    }
    const reader = this.readerOf();
    reader.begin(piece, this.windowOf(piece));
    reader.fill(part);
    reader.finish();
    if (piece.crc !== undefined && crc32(part) !== piece.crc) throw contentDiffers(this.name, piece);
  }

  private pieceAt(position: number): StoredPiece {
    const { last } = this;
    const { progress, table } = this.parts;
    // Nothing of a file that is damaged somewhere is served, as soon as that is known.
    if (progress.state === "failed") this.refuse(position);
    if (last !== undefined && position >= last.start && position < last.start + last.length) return last;
    this.waitFor(position);
    this.last = table.find(position, progress.count);
    return this.last;
  }

  /** Returns when the pass has come to `position`. */
  private waitFor(position: number): void {
    const { progress, whileWaiting } = this.parts;
    for (const begun = performance.now(); ; ) {
      const moment = progress.moment;
      if (position < progress.covered) return;
      if (progress.state === "failed") this.refuse(position);
      if (position < progress.covered) return;
      if (progress.state === "whole" && position >= progress.covered)
        throw corrupt(
          `${this.name}: its content ends at byte ${progress.covered}, but should have ${this.size} bytes by what the file and the disk in it tell. Fetch or copy it again.`,
        );
      if (progress.stopping) throw new NotYet(position);
      progress.isAwaited = true;
      whileWaiting(performance.now() - begun, position);
      progress.wait(moment, lookInterval);
    }
  }

  private refuse(position: number): void {
    const failure = this.parts.progress.failure();
    if (failure.code === "corrupt" || failure.code === "unsupported" || position >= this.parts.progress.covered)
      throw failure;
  }

  private windowOf(piece: StoredPiece): Uint8Array {
    const data = this.parts.table.data(piece);
    if (!data) throw this.discarded();
    return unpackWindow(data);
  }

  private readerOf(): PieceReader {
    this.reader ??= this.parts.file.reader();
    return this.reader;
  }

  /** The table's data isn't what was written: it isn't used any more. */
  private discarded(): ImageError {
    const { name } = this.parts.table.files;
    try {
      unlinkSync(name);
    } catch {
      // it has no name, or is gone already
    }
    return new ImageError(
      "system",
      `${this.name}: what was kept for reading it at any position is damaged, and was removed (${name}). Open the image again: it is made anew.`,
    );
  }
}
