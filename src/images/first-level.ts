import type { MetadataPages } from "../bytes/metadata-pages.js";
import { corrupt } from "../errors.js";
import type { ReservedPlace } from "./map-check.js";

/** The first of two table levels, as qcow, qcow2 and qed have them: 8-byte entries, each the place of a second table. */
export class FirstLevel {
  private gapStart = 0;
  private gapEnd = 0;

  /**
   * @param count entries that the disk needs: not more are looked at.
   * @param place what an entry's 8 bytes name: a position in bytes, 0 for no table.
   * @throws ImageError `corrupt` where the table would be beyond the file's end.
   */
  constructor(
    private readonly pages: MetadataPages,
    private readonly position: number,
    private readonly count: number,
    private readonly place: (bytes: Buffer) => number,
  ) {
    const { name, size } = pages.source;
    if (position + count * 8 > size)
      throw corrupt(
        `${name}: its table of ${count} entries should be at byte ${position}, but the file has ${size} bytes. It is truncated or damaged.`,
      );
  }

  /** Position of the second-level table that entry `index` names; 0 where there is none. */
  at(index: number): number {
    return this.place(this.pages.bytes(this.position + index * 8, 8, "the first-level table"));
  }

  /**
   * The second-level tables that lie within the file, each with what it maps.
   *
   * @param length bytes of a table.
   * @param covered bytes of the disk that one maps, of `size`.
   */
  *tables(length: number, covered: number, size: number): Iterable<ReservedPlace> {
    for (let index = 0; index < this.count; index++) {
      const missing = this.missing(index);
      index += missing;
      if (index >= this.count) return;
      const position = this.at(index);
      if (position === 0 || position + length > this.pages.source.size) continue;
      const disk = { position: index * covered, length: Math.min(covered, size - index * covered) };
      yield {
        position,
        length,
        disk,
        what: `the table of disk bytes ${disk.position} to ${disk.position + disk.length - 1}`,
      };
    }
  }

  /** How many entries from `index` on name no table, as far as a bounded look goes. */
  missing(index: number): number {
    if (index >= this.gapStart && index < this.gapEnd) return this.gapEnd - index;
    const end = Math.min(this.count, index + 4096);
    let next = index;
    while (next < end && this.at(next) === 0) next++;
    if (next > index) {
      this.gapStart = index;
      this.gapEnd = next;
    }
    return next - index;
  }
}
