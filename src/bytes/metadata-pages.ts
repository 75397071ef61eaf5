import { LRUCache } from "lru-cache";
import { corrupt } from "../errors.js";
import { type ByteSource, readFully } from "./byte-source.js";

/**
 * A bounded number of pages of a source, for small records that are read again and again: allocation tables, inodes,
 * directories. File data doesn't go through here.
 */
export class MetadataPages {
  private readonly pages: LRUCache<number, Buffer>;
  private lastIndex = -1;
  private last: Buffer = Buffer.alloc(0);

  /**
   * @param pageSize bytes a page, a power of two.
   * @param most pages that are kept, at least 1.
   */
  constructor(
    readonly source: ByteSource,
    readonly pageSize: number,
    most: number,
  ) {
    this.pages = new LRUCache({ max: most });
  }

  /** The page with the byte at `position`: shorter than `pageSize`, perhaps empty, where the source ends in it. */
  page(position: number): Buffer {
    const index = Math.floor(position / this.pageSize);
    if (index === this.lastIndex) return this.last;
    let page = this.pages.get(index);
    if (page === undefined) {
      const start = index * this.pageSize;
      const length = Math.max(0, Math.min(this.pageSize, this.source.size - start));
      const buffer = Buffer.allocUnsafeSlow(length);
      page = buffer.subarray(0, readFully(this.source, start, buffer));
      this.pages.set(index, page);
    }
    this.lastIndex = index;
    this.last = page;
    return page;
  }

  /**
   * `length` bytes at `position`, all of them: a view of a page where they lie in one, and not to be changed.
   * @throws ImageError `corrupt` when the source ends before; `what` names the structure.
   */
  bytes(position: number, length: number, what: string): Buffer {
    const within = position % this.pageSize;
    const page = this.page(position);
    if (within + length <= page.length) return page.subarray(within, within + length);
    const bytes = Buffer.allocUnsafe(length);
    for (let filled = 0; filled < length; ) {
      const from = (position + filled) % this.pageSize;
      const part = this.page(position + filled).subarray(from, from + length - filled);
      if (part.length === 0) throw this.ends(position, length, what);
      bytes.set(part, filled);
      filled += part.length;
    }
    return bytes;
  }

  /** @throws ImageError `corrupt` when the source ends before. */
  byte(position: number, what: string): number {
    const value = this.page(position)[position % this.pageSize];
    if (value === undefined) throw this.ends(position, 1, what);
    return value;
  }

  private ends(position: number, length: number, what: string) {
    const { name, size } = this.source;
    return corrupt(
      `${name}: ${what} should take ${length} bytes at byte ${position}, but there are only ${size} bytes. The image is truncated or damaged.`,
    );
  }
}
