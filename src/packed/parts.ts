/**
 * A packed file in parts, which are read end to end. When it is damaged, a part is mostly missing, cut off or in the place
 * of another, so that what is told of the damage tells of the parts too.
 */
import { basename } from "node:path";
import type { ByteSource } from "../bytes/byte-source.js";
import { endToEnd } from "../bytes/joined.js";
import { ImageError } from "../errors.js";
import type { PackedFile, Packing, PieceReader, PieceWriter } from "./packing.js";

/** @throws ImageError as `packing.open` does */
export function openParts(parts: readonly ByteSource[], packing: Packing): { source: ByteSource; file: PackedFile } {
  const source = endToEnd(parts);
  if (parts.length === 1) return { source, file: packing.open(source) };
  try {
    return { source, file: new FileInParts(packing.open(source), parts) };
  } catch (error) {
    throw toldOf(parts, error);
  }
}

class FileInParts implements PackedFile {
  constructor(
    private readonly whole: PackedFile,
    private readonly parts: readonly ByteSource[],
  ) {}

  get name(): string {
    return this.whole.name;
  }

  get told(): PackedFile["told"] {
    return this.telling(() => this.whole.told);
  }

  get hasChecksums(): boolean {
    return this.whole.hasChecksums;
  }

  get facts(): Record<string, unknown> {
    return this.whole.facts;
  }

  *pass(writer: PieceWriter): Generator<void, void> {
    try {
      yield* this.whole.pass(writer);
    } catch (error) {
      throw toldOf(this.parts, error);
    }
  }

  reader(): PieceReader {
    const reader = this.whole.reader();
    return {
      begin: (piece, window) => this.telling(() => reader.begin(piece, window)),
      fill: (target) => this.telling(() => reader.fill(target)),
      finish: () => this.telling(() => reader.finish()),
    };
  }

  private telling<Result>(act: () => Result): Result {
    try {
      return act();
    } catch (error) {
      throw toldOf(this.parts, error);
    }
  }
}

function toldOf(parts: readonly ByteSource[], error: unknown): unknown {
  if (!(error instanceof ImageError) || error.code !== "corrupt") return error;
  const words = `It is in ${parts.length} parts, up to ${basename(parts.at(-1)!.name)}`;
  const odd = oddPart(parts);
  return new ImageError(error.code, `${error.message} ${words}${odd ? `; ${odd}` : "."}`, { cause: error });
}

/** What cuts a file up makes all parts but the last alike: whether one isn't, as a part of a sentence. */
function oddPart(parts: readonly ByteSource[]): string | undefined {
  const sizes = parts.slice(0, -1).map(({ size }) => size);
  const counts = new Map<number, number>();
  for (const size of sizes) counts.set(size, (counts.get(size) ?? 0) + 1);
  const usual = [...counts].reduce((most, one) => (one[1] > most[1] ? one : most))[0];
  const odd = parts[sizes.findIndex((size) => size !== usual)];
  const last = parts.at(-1)!;
  if (odd)
    return `${basename(odd.name)} has ${odd.size} bytes, where others have ${usual}: it may be cut off, or another file.`;
  return last.size > usual
    ? `${basename(last.name)} has ${last.size} bytes, and those before it ${usual}: they may be cut off, or others' files.`
    : undefined;
}
