/** Runs the pass of a packed file: its pieces go to the table, and how far it is to the shared progress. */
import { packZstd, sizeOfPacked, unpackZstd } from "../bytes/zstd.js";
import { corrupt, ImageError, system } from "../errors.js";
import { cacheLimit, makeRoom } from "./cache-folder.js";
import { type PackedFile, type Piece, PieceKind, type PieceWriter } from "./packing.js";
import { type PieceFiles, PieceTable, type Survey, TableWriter } from "./piece-table.js";
import type { Progress } from "./progress.js";

/** zstd's quickest of its usual levels: what is packed here is read once, or never. */
const level = 1;
/** Zeros that are held back to be told with those that follow, in bytes: readers may wait for them. */
const mostZeros = 1 << 28;
/** Bytes of data that are written between two looks at the room there is. */
const roomStep = 1 << 22;

/**
 * A pass under way. What an earlier one has left in the table stays: a pass that can't go on from there goes through the
 * same pieces again, and they are passed over until they are new.
 */
export class RunningPass implements PieceWriter {
  position = 0;
  private readonly table: PieceTable;
  private readonly left: Survey;
  private readonly writer: TableWriter;
  private readonly steps: Generator<void, void>;
  /** Content of the pieces in the table, in bytes. */
  private covered: number;
  private zerosHeld = 0;
  private packedDone = 0;
  private told = "";
  private room = 0;

  constructor(
    private readonly file: PackedFile,
    private readonly files: PieceFiles,
    key: Uint8Array,
    private readonly shared: Progress,
  ) {
    this.table = new PieceTable(files, key);
    this.left = this.table.survey();
    this.covered = this.left.covered;
    this.writer = new TableWriter(files, key, this.left);
    this.steps = file.pass(this);
    this.publish();
  }

  /**
   * Goes on until the pass ends or `enough` says so.
   * @returns whether it has ended, well or not: the progress tells
   */
  run(enough: () => boolean): boolean {
    try {
      while (!enough()) {
        if (this.steps.next().done) {
          this.end(undefined, this.told);
          this.shared.endAs({ code: undefined, text: this.told });
          return true;
        }
        if (this.zerosHeld >= mostZeros) this.flushZeros();
        this.publish();
      }
      this.flushZeros();
      this.publish();
      return false;
    } catch (error) {
      this.steps.return();
      const { name } = this.file;
      const failure = error instanceof ImageError ? error : system(`unpacking ${name}`, error);
      // What the system refused may be granted the next time; the file's own damage stays.
      if (failure.code === "corrupt" || failure.code === "unsupported") this.keepFailure(failure);
      this.shared.fail(failure);
      return true;
    }
  }

  /** Lets a pass that isn't gone on with free what it holds. */
  close(): void {
    this.steps.return();
  }

  resume(): (Piece & { readonly window: Uint8Array }) | undefined {
    for (let number = this.left.count - 1; number >= 0; number--) {
      const piece = this.table.piece(number);
      if (piece.kind !== PieceKind.packed) continue;
      const data = this.table.data(piece);
      if (!data) return undefined;
      this.position = piece.start;
      return { ...piece, window: unpackWindow(data) };
    }
    return undefined;
  }

  zeros(length: number): void {
    const known = Math.min(length, Math.max(0, this.covered - this.position));
    this.position += length;
    this.zerosHeld += length - known;
  }

  packed(
    length: number,
    place: { at: number; crc?: number; note?: number; mark?: number },
    window = new Uint8Array(0),
  ): void {
    const { at, crc, note = 0, mark = 0 } = place;
    this.append(length, { kind: PieceKind.packed, at, crc, note, mark }, () =>
      window.length > 0 ? packZstd(window, level) : window,
    );
  }

  kept(content: Uint8Array): void {
    const place = { kind: PieceKind.kept, at: 0, crc: undefined, note: 0, mark: 0 };
    this.append(content.length, place, () => packZstd(content, level));
  }

  progress(packed: number): void {
    this.packedDone = packed;
  }

  remark(text: string): void {
    this.told = text;
  }

  private append(length: number, place: Omit<Piece, "number" | "start" | "length">, data: () => Uint8Array): void {
    const start = this.position;
    this.position += length;
    if (this.position <= this.covered) return;
    this.flushZeros();
    if (start !== this.covered)
      throw corrupt(
        `${this.file.name}: isn't what it was when ${this.files.name} was made. Remove that file; it is made again.`,
      );
    const packed = data();
    this.room -= packed.length;
    if (this.room < 0) this.makeRoom();
    this.writer.append({ start, length, ...place }, packed);
    this.covered = this.position;
  }

  private flushZeros(): void {
    const { zerosHeld: length, covered: start } = this;
    if (length === 0) return;
    this.writer.append({ start, length, kind: PieceKind.zeros, at: 0, crc: undefined, note: 0, mark: 0 }, none);
    this.covered += length;
    this.zerosHeld = 0;
  }

  private makeRoom(): void {
    // With a small limit, what is needed now may fit where a whole step doesn't.
    const step = Math.max(-this.room, Math.min(roomStep, Math.floor(cacheLimit() / 64)));
    const refused = makeRoom(this.files, step);
    if (refused)
      throw new ImageError(
        "system",
        `${this.file.name}: to read it at any position, seek points or a copy of its content have to be kept, and ${refused}. Unpack the file instead, or make an image of it: spindle create reads it through a pipe too.`,
      );
    this.room += step;
  }

  private publish(): void {
    this.writer.flush();
    this.shared.publish(this.writer.count, this.covered, this.packedDone);
  }

  private keepFailure({ code, message }: ImageError): void {
    try {
      this.end(code, message);
    } catch {
      // it is found again the next time
    }
  }

  private end(code: ImageError["code"] | undefined, text: string): void {
    this.flushZeros();
    this.publish();
    this.writer.end({ size: this.covered, code, text });
  }
}

const none = new Uint8Array(0);

/** A window as the table keeps it: packed, or nothing. */
export function unpackWindow(data: Uint8Array): Uint8Array {
  if (data.length === 0) return data;
  const window = new Uint8Array(sizeOfPacked(data));
  return window.subarray(0, unpackZstd(data, window));
}
