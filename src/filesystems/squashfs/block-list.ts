/**
 * Where a file's data blocks are. An inode lists only how long each block is packed; a block begins where those before it end.
 * Every so many blocks a place in the list is remembered, so that a read anywhere in a large file adds up few lengths.
 */
import { corrupt } from "../../errors.js";
import { packedLength } from "./data.js";
import type { Inode } from "./inode.js";
import { type MetadataBlocks, MetadataReader } from "./metadata.js";

const STEP = 1024;

export class BlockList {
  /** Of blocks 0, STEP, 2 × STEP …: metadata block and byte in it, and the position of the data. */
  private readonly places: number[] = [];
  private readonly offsets: number[] = [];
  private readonly positions: number[] = [];
  /** The block found last, from which reading goes on. */
  private index = 0;
  private reader: MetadataReader | undefined;

  /** The data block found: position, and its word of the list. */
  position = 0;
  word = 0;

  constructor(
    private readonly blocks: MetadataBlocks,
    private readonly inode: Inode,
    private readonly end: number,
  ) {
    this.places.push(inode.restPosition);
    this.offsets.push(inode.restOffset);
    this.positions.push(inode.start);
  }

  /** Makes `position` and `word` those of block `index`. */
  find(index: number): void {
    const place = Math.min(Math.floor(index / STEP), this.places.length - 1);
    if (!this.reader || index < this.index || place * STEP > this.index) this.begin(place);
    while (this.index < index) {
      this.position += packedLength(this.word);
      this.index++;
      this.next();
    }
  }

  private begin(place: number): void {
    this.reader = undefined;
    const reader = new MetadataReader(this.blocks, this.places[place]!, this.offsets[place]!, this.end);
    this.index = place * STEP;
    this.position = this.positions[place]!;
    this.word = reader.uint32();
    this.reader = reader;
  }

  private next(): void {
    const reader = this.reader!;
    if (this.index % STEP === 0 && this.index / STEP === this.places.length) {
      this.places.push(reader.position);
      this.offsets.push(reader.offset);
      this.positions.push(this.position);
    }
    try {
      this.word = reader.uint32();
    } catch (error) {
      this.reader = undefined;
      throw error;
    }
    if (!Number.isSafeInteger(this.position))
      throw corrupt(
        `${this.blocks.source.name}: the inode ${this.inode.number} has a data block at byte ${this.position}.`,
      );
  }
}
