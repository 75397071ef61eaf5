import { type ByteSource, readExactly } from "../../../bytes/byte-source.js";
import { corrupt } from "../../../errors.js";
import { journalMagic } from "./superblock.js";

/** A block whose newest content lies elsewhere. */
export interface Moved {
  /** Byte in the volume of the content. */
  readonly position: number;
  readonly escaped: boolean;
  readonly damaged: boolean;
}

/** A volume as it would be after its journal was replayed: some blocks come from the journal. */
export class ReplayedSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  /** Numbers of the moved blocks in order. */
  private readonly numbers: Float64Array;

  constructor(
    private readonly source: ByteSource,
    private readonly blockSize: number,
    private readonly moved: ReadonlyMap<number, Moved>,
  ) {
    this.name = source.name;
    this.size = source.size;
    this.numbers = Float64Array.from(moved.keys()).sort();
  }

  read(position: number, target: Uint8Array): number {
    const { blockSize } = this;
    const block = Math.floor(position / blockSize);
    const moved = this.moved.get(block);
    const until = (moved === undefined ? this.nextMoved(block) : block + 1) * blockSize;
    const length = Math.min(target.length, until - position, this.size - position);
    if (length <= 0) return 0;
    const part = length < target.length ? target.subarray(0, length) : target;
    if (moved === undefined) return this.source.read(position, part);
    if (moved.damaged)
      throw corrupt(
        `${this.name}: block ${block} was written last through the journal, and its copy there, at byte ${moved.position}, does not match its checksum.`,
      );
    const within = position - block * blockSize;
    const content = readExactly(this.source, moved.position, blockSize, `the journal's copy of block ${block}`);
    if (moved.escaped) content.writeUInt32BE(journalMagic, 0);
    part.set(content.subarray(within, within + length));
    return length;
  }

  /** The first moved block behind `block`; infinity for none. */
  private nextMoved(block: number): number {
    const { numbers } = this;
    let low = 0;
    let high = numbers.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (numbers[middle] <= block) low = middle + 1;
      else high = middle;
    }
    return low < numbers.length ? numbers[low] : Number.POSITIVE_INFINITY;
  }
}
