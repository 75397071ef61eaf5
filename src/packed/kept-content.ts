import type { ByteSource } from "../bytes/byte-source.js";
import { corrupt } from "../errors.js";
import { type PieceWriter, pieceSize } from "./packing.js";

/** What unpacks a stretch of content from its start: a block, a frame. */
export interface Unpacking {
  /** Fills `target`, but at the end; 0 behind the last byte, when what has a checksum was checked. */
  read(target: Uint8Array): number;
  close(): void;
}

const zeros = Buffer.alloc(pieceSize);

/**
 * Content without a way into it, told piece by piece as content to be kept, or as zeros.
 * @param length bytes that it has to have; undefined where nobody knows
 */
export function* keepContent(
  writer: PieceWriter,
  { name }: ByteSource,
  length: number | undefined,
  unpacking: Unpacking,
): Generator<void, void> {
  const buffer = Buffer.alloc(pieceSize);
  let total = 0;
  try {
    for (let count = unpacking.read(buffer); count > 0; count = unpacking.read(buffer)) {
      const part = buffer.subarray(0, count);
      if (part.equals(zeros.subarray(0, count))) writer.zeros(count);
      else writer.kept(part);
      total += count;
      yield;
    }
  } finally {
    unpacking.close();
  }
  if (length !== undefined && total !== length)
    throw corrupt(`${name}: unpacks to ${total} bytes where ${length} are told. Fetch or copy it again.`);
}
