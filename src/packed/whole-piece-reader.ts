import { corrupt } from "../errors.js";
import type { Unpacking } from "./kept-content.js";
import type { Piece, PieceReader } from "./packing.js";

/** Reads pieces from their start to their end, each as `unpackingOf` gives it. */
export class WholePieceReader implements PieceReader {
  private unpacking: Unpacking | undefined;
  private readonly spare = Buffer.alloc(64);

  constructor(
    private readonly name: string,
    private readonly unpackingOf: (piece: Piece) => Unpacking,
  ) {}

  begin(piece: Piece): void {
    this.unpacking?.close();
    this.unpacking = undefined;
    this.unpacking = this.unpackingOf(piece);
  }

  fill(target: Uint8Array): void {
    if (this.unpacking!.read(target) < target.length) throw this.wrongLength();
  }

  finish(): void {
    if (this.unpacking!.read(this.spare) > 0) throw this.wrongLength();
    this.unpacking!.close();
    this.unpacking = undefined;
  }

  private wrongLength() {
    return corrupt(`${this.name}: unpacks to another length than it should. Fetch or copy it again.`);
  }
}
