import { basename } from "node:path";
import { type ByteSource, Slice } from "../../bytes/byte-source.js";
import { JoinedSource } from "../../bytes/joined.js";
import { corrupt, mismatch, unsupported } from "../../errors.js";
import type { Surroundings } from "../../format.js";
import { readTrailer, type Trailer } from "./trailer.js";

/** What runs are placed in: position `at` of the data fork is byte `base + at` of `source`. */
export interface DataFork {
  readonly source: ByteSource;
  readonly base: number;
  /** In bytes. */
  readonly length: number;
}

/**
 * The data fork of an image, which `hdiutil segment` cuts into parts: NAME.dmg, NAME.002.dmgpart, NAME.003.dmgpart and so
 * on, each with a trailer of its own.
 *
 * @throws ImageError `missing`, `mismatch` or `corrupt`, naming the part.
 */
export function openDataFork(file: ByteSource, trailer: Trailer, around: Surroundings): DataFork {
  const { dataFork, segment, segments } = trailer;
  if (segments <= 1) return { source: file, base: dataFork.position, length: dataFork.length };
  const name = basename(around.path);
  if (segment > 1 || !name.toLowerCase().endsWith(".dmg"))
    throw unsupported(
      `${file.name}: is part ${segment} of ${segments} of a disk image. Open its first part, whose name ends in .dmg.`,
    );
  const stem = name.slice(0, -4);
  const whole = new JoinedSource(`${file.name} and its ${segments - 1} further parts`);
  whole.add(new Slice(file.name, file, dataFork.position, dataFork.length));
  for (let number = 2; number <= segments; number++) {
    const source = around.companion(`${stem}.${String(number).padStart(3, "0")}.dmgpart`);
    const part = readTrailer(source);
    if (part.segmentId !== trailer.segmentId || part.segment !== number || part.segments !== segments)
      throw mismatch(
        `${source.name}: is part ${part.segment} of ${part.segments} of disk image ${part.segmentId}, not part ${number} of ${segments} of ${file.name} (${trailer.segmentId}). Put the right file there.`,
      );
    if (part.runningDataFork !== whole.size)
      throw corrupt(
        `${source.name}: tells of ${part.runningDataFork} bytes of data in the parts before it, but they have ${whole.size}. One of the parts is damaged.`,
      );
    const { position, length } = part.dataFork;
    whole.add(new Slice(source.name, source, position, length));
  }
  return { source: whole, base: 0, length: whole.size };
}
