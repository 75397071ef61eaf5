import { corrupt } from "../errors.js";
import type { Piece } from "./packing.js";

/** What a piece unpacks to now isn't what it unpacked to in the pass. */
export function contentDiffers(name: string, { start, length }: Piece) {
  return corrupt(
    `${name}: bytes ${start} to ${start + length - 1} of its content are not what they were when it was first gone through: the file has changed meanwhile, or is damaged. Fetch or copy it again.`,
  );
}
