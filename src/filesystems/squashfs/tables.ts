/** Tables of records of one size, in metadata blocks that a list of positions leads to: ids, fragments, xattr ids. */
import { MetadataPages } from "../../bytes/metadata-pages.js";
import { corrupt } from "../../errors.js";
import { uint64 } from "./inode.js";
import { METADATA, type MetadataBlocks, MetadataReader } from "./metadata.js";

export class Table {
  private readonly pages: MetadataPages;

  /**
   * @param list position of the list: 8 bytes for each metadata block.
   * @param recordSize bytes a record, which divides 8192.
   * @param what names a record in messages.
   */
  constructor(
    private readonly blocks: MetadataBlocks,
    private readonly list: number,
    readonly count: number,
    private readonly recordSize: number,
    private readonly what: string,
  ) {
    this.pages = new MetadataPages(blocks.source, 4096, 16);
  }

  /** @throws ImageError `corrupt` for an index that the table doesn't have. */
  record(index: number): Buffer {
    if (index >= this.count)
      throw corrupt(`${this.blocks.source.name}: ${this.what} ${index} is used, and there are only ${this.count}.`);
    const at = index * this.recordSize;
    const entry = this.list + Math.floor(at / METADATA) * 8;
    const position = uint64(this.pages.bytes(entry, 8, `the list of blocks with ${this.what}s`), 0);
    // The list comes after the blocks that it leads to.
    return new MetadataReader(this.blocks, position, at % METADATA, this.list).take(this.recordSize);
  }
}
