import type { ByteSource } from "../bytes/byte-source.js";

/** A compression of whole files: how to recognise it, and what its headers tell. One file or folder per compression. */
export interface Packing {
  /** The usual name in lower case, for example `gzip`. */
  readonly name: string;
  /** Whether `source` carries the signature. Reads a few hundred bytes at most, and throws nothing. */
  recognises(source: ByteSource): boolean;
  /** @throws ImageError `corrupt` or `unsupported` */
  open(source: ByteSource): PackedFile;
}

/** A compressed file, opened: the way to its content, whose size may not be known yet. */
export interface PackedFile {
  /** How messages name the packed bytes: by the file's path, and the member of an archive. */
  readonly name: string;
  /**
   * The size of the content as the file tells it.
   *
   * - `proven`: the file can't hold another size; content that differs from it is damage.
   * - `modulo`: the size is `size` plus a multiple of 2^32, and at most `most`, if the file is one stream (gzip).
   */
  readonly told?:
    | { readonly kind: "proven"; readonly size: number }
    | { readonly kind: "modulo"; readonly size: number; readonly least: number; readonly most: number };
  /** Whether the file has checksums of its content. */
  readonly hasChecksums: boolean;
  /** What `spindle info` tells: plain JSON data. */
  readonly facts: Record<string, unknown>;
  /**
   * The pass: goes through the file and tells `writer` its pieces in order. Yields about every mebibyte of content, or more
   * often, so that whoever runs it can stop; `writer.resume()` then lets another pass go on, where the compression can.
   * @throws ImageError `corrupt` where the file is damaged; then nothing of it is served any more
   */
  pass(writer: PieceWriter): Generator<void, void>;
  /** A reader of pieces. Each piece that is begun ends what was begun before. */
  reader(): PieceReader;
}

/** How a piece of content is kept. */
export const PieceKind = {
  /** Zeros. */
  zeros: 0,
  /** In the packed file. */
  packed: 1,
  /** In the cache's data file, as a zstd frame: the packed file has no way into it. */
  kept: 2,
} as const;

/** A stretch of content that can be unpacked without what is before it. */
export interface Piece {
  /** Its number, from 0. */
  readonly number: number;
  /** Bytes of content: where, and how many. */
  readonly start: number;
  readonly length: number;
  readonly kind: number;
  /** In the packed file, in bits. */
  readonly at: number;
  /** CRC-32 of the content; undefined where the packed file has a checksum of the piece itself. */
  readonly crc: number | undefined;
  /** Two numbers for the compression's own use: a 53-bit and a 32-bit one. */
  readonly note: number;
  readonly mark: number;
}

/** Takes the pieces of a pass, in order. */
export interface PieceWriter {
  /**
   * Where to go on when an earlier pass was ended half-way: its last packed piece, which is to be told again. Called
   * before anything else, if at all: without it the pass begins anew.
   */
  resume(): (Piece & { readonly window: Uint8Array }) | undefined;
  /** Content told so far, in bytes. */
  readonly position: number;
  zeros(length: number): void;
  /** @param window content before the piece that unpacking it needs */
  packed(length: number, place: { at: number; crc?: number; note?: number; mark?: number }, window?: Uint8Array): void;
  /** Content that has to be kept itself: at most `pieceSize` bytes. */
  kept(content: Uint8Array): void;
  /** Bytes of the packed file that are done. */
  progress(packed: number): void;
  /** Something about the file that is no damage, as a sentence. */
  remark(text: string): void;
}

/** Unpacks pieces of kind `packed`, from their starts to their ends, and zeros that follow them. */
export interface PieceReader {
  begin(piece: Piece, window: Uint8Array): void;
  /**
   * The next bytes, so many as `target` has.
   * @throws ImageError `corrupt`, naming the file
   */
  fill(target: Uint8Array): void;
  /** After the last byte: checks what the packed file has for checking. @throws ImageError `corrupt` */
  finish(): void;
}

/** Content of a piece that is cached as a whole, in bytes: a small read unpacks that much. Larger pieces go to a scratch file. */
export const pieceSize = 1 << 20;
