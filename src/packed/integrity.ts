import { crc32 } from "node:zlib";
import { ImageError } from "../errors.js";
import type { Damage, Integrity, PieceReport } from "../layers/layer.js";
import { type PackedFile, type Piece, PieceKind, type PieceReader, type PieceWriter, pieceSize } from "./packing.js";
import { unpackWindow } from "./pass.js";
import { contentDiffers } from "./piece-check.js";
import type { PieceTable, StoredPiece } from "./piece-table.js";

/**
 * The checks of a packed file that has been gone through: each piece is unpacked from the file again and compared with
 * its own checksum, or with the one that the pass found and compared with the file's. Where content is kept, which would
 * only check what is kept, the whole file is gone through once more.
 */
export function integrityOf(file: PackedFile, table: PieceTable, count: number): Integrity {
  for (let number = 0; number < count; number++)
    if (table.piece(number).kind === PieceKind.kept) return { pieces: 1, check: () => wholeFile(file, table, count) };
  let checker: PieceChecker | undefined;
  return {
    pieces: count,
    check(number) {
      checker ??= new PieceChecker(file, table, count);
      return checker.check(number);
    },
  };
}

class PieceChecker {
  private readonly reader: PieceReader;
  private readonly buffer = Buffer.allocUnsafeSlow(pieceSize);
  private readonly zeros = Buffer.alloc(pieceSize);

  constructor(
    private readonly file: PackedFile,
    private readonly table: PieceTable,
    private readonly count: number,
  ) {
    this.reader = file.reader();
  }

  /** Checks a piece and the zeros that follow it. */
  check(number: number): PieceReport {
    const piece = this.table.piece(number);
    // It was checked with the piece before.
    if (piece.kind === PieceKind.zeros) return { chunks: 1, bytes: piece.length, damages: [] };
    let last = piece;
    try {
      this.unpack(piece);
      this.reader.finish();
      for (let next = number + 1; next < this.count; next++) {
        const following = this.table.piece(next);
        if (following.kind !== PieceKind.zeros) break;
        last = following;
        this.checkZeros(following);
      }
    } catch (error) {
      return { chunks: 1, bytes: 0, damages: [damage(this.file.name, last, error)] };
    }
    return { chunks: 1, bytes: piece.length, damages: [] };
  }

  private unpack(piece: StoredPiece): void {
    const data = this.table.data(piece);
    if (!data) throw contentDiffers(this.file.name, piece);
    this.reader.begin(piece, unpackWindow(data));
    let crc = 0;
    for (let at = 0; at < piece.length; at += this.buffer.length) {
      const part = this.buffer.subarray(0, Math.min(this.buffer.length, piece.length - at));
      this.reader.fill(part);
      crc = crc32(part, crc);
    }
    if (piece.crc !== undefined && crc !== piece.crc) throw contentDiffers(this.file.name, piece);
  }

  private checkZeros(piece: Piece): void {
    for (let at = 0; at < piece.length; at += this.buffer.length) {
      const part = this.buffer.subarray(0, Math.min(this.buffer.length, piece.length - at));
      this.reader.fill(part);
      if (!part.equals(this.zeros.subarray(0, part.length))) throw contentDiffers(this.file.name, piece);
    }
  }
}

function wholeFile(file: PackedFile, table: PieceTable, count: number): PieceReport {
  const last = table.piece(count - 1);
  const whole = { start: 0, length: last.start + last.length };
  const writer = new NoWriter();
  try {
    for (const _ of file.pass(writer));
  } catch (error) {
    return { chunks: count, bytes: 0, damages: [damage(file.name, whole, error)] };
  }
  return { chunks: count, bytes: whole.length, damages: [] };
}

/** A pass for the sake of its checks. */
class NoWriter implements PieceWriter {
  position = 0;
  resume(): undefined {}
  zeros(length: number): void {
    this.position += length;
  }
  packed(length: number): void {
    this.position += length;
  }
  kept(content: Uint8Array): void {
    this.position += content.length;
  }
  progress(): void {}
  remark(): void {}
}

function damage(file: string, { start, length }: Pick<Piece, "start" | "length">, error: unknown): Damage {
  if (!(error instanceof ImageError)) throw error;
  return { file, position: start, length, message: error.message };
}
