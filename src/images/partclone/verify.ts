import type { Damage, Integrity, PieceReport } from "../../layers/layer.js";
import { type Strips, wordsOf } from "./strips.js";

/** Bytes of a piece. */
const pieceSize = 4 << 20;

/** The checksums of an image's strips, some strips a piece; undefined where there are none that can be checked. */
export function partcloneIntegrity(strips: Strips): Integrity | undefined {
  if (strips.checkable === undefined) return undefined;
  if (strips.checkable === "in order") return { pieces: Math.min(1, strips.count), check: () => checkInOrder(strips) };
  const perPiece = Math.max(1, Math.floor(pieceSize / strips.length));
  const pieces = Math.ceil(strips.count / perPiece);
  return {
    pieces,
    check(piece) {
      const damages: Damage[] = [];
      const first = piece * perPiece;
      const end = Math.min(first + perPiece, strips.count);
      let bytes = 0;
      for (let strip = first; strip < end; strip++) {
        if (strips.isCut(strip)) {
          damages.push(cutFrom(strips, strip));
          return { chunks: strip - first, bytes, damages, pieces: pieces - piece };
        }
        bytes += strips.lengthOf(strip);
        const wrong = strips.damageOf(strip);
        if (wrong !== undefined) damages.push(damage(strips, strip, strip, `${wordsOf(strips, strip)} ${wrong}.`));
      }
      return { chunks: end - first, bytes, damages };
    },
  };
}

/**
 * Strips whose sum goes on from one to the next: a checksum that holds proves all strips up to it, those too whose own did
 * not, and behind one that doesn't nothing is known until then.
 */
function checkInOrder(strips: Strips): PieceReport {
  const { name } = strips.source;
  const damages: Damage[] = [];
  const notes: string[] = [];
  const sum = strips.newSum();
  /** Strips that are proven, their bytes, and whether those that follow had wrong checksums. */
  let proven = 0;
  let bytes = 0;
  let unproven = 0;
  let strip = 0;
  for (; strip < strips.count && !strips.isCut(strip); strip++) {
    unproven += strips.lengthOf(strip);
    if (strips.damageOf(strip, undefined, sum) !== undefined) continue;
    if (proven < strip) {
      const last = strip - 1;
      const what =
        last === proven
          ? `${wordsOf(strips, proven)} does not have its recorded checksum`
          : `${wordsOf(strips, proven)} and ${last - proven} behind it do not have their recorded checksums`;
      damages.push(
        damage(strips, proven, last, `${what}, but the next checksum holds for it: the blocks are what they were.`),
      );
    }
    proven = strip + 1;
    bytes += unproven;
    unproven = 0;
  }
  if (proven < strip) {
    const words = `${wordsOf(strips, proven)} does not have its recorded checksum: it is damaged.`;
    damages.push(damage(strips, proven, proven, words));
    if (proven + 1 < strips.count)
      notes.push(
        `${name}: the checksums of the ${strips.count - proven - 1} strips behind the damaged one, from byte ${strips.placeOf(proven + 1)} on, go on from its own, so that they can't be checked.`,
      );
  }
  if (strip < strips.count) damages.push(cutFrom(strips, strip));
  return { chunks: proven, bytes, damages, notes };
}

/** All that is missing from a strip on, where the file ends. */
function cutFrom(strips: Strips, strip: number): Damage {
  const last = strips.count - 1;
  const end = strips.placeOf(last) + strips.lengthOf(last) + strips.header.checksum.size;
  const { name, size } = strips.source;
  const message = `${name}: is cut off: it has ${size} bytes, and its blocks should go on to byte ${end}.`;
  return damage(strips, strip, last, message);
}

const damage = (strips: Strips, first: number, last: number, message: string): Damage => ({
  file: strips.source.name,
  ...strips.onDisk(first, last),
  message,
});
