/**
 * Partitions, as addresses of files name them: by their place in the logical volume's table of partition maps (UDF 2.60,
 * 2.2.8 to 2.2.10). A map of type 1 is a partition as it lies on the volume; the others rest on one:
 *
 * - sparable: packets that can't be rewritten any more have been put elsewhere; a table tells which;
 * - virtual: blocks of a medium that can be written only once, by their number in a table (VAT) at its end;
 * - metadata: the blocks of a file, of which a mirror may exist.
 */
import { corrupt, type ImageError, unsupported } from "../../errors.js";

/** Blocks that lie one behind the other. */
export interface Stretch {
  /** Byte in the volume. */
  readonly position: number;
  /** At least 1. */
  readonly blocks: number;
}

export interface Partition {
  readonly kind: string;
  /** @throws ImageError `corrupt` for a block that it doesn't have. */
  locate(block: number): Stretch;
  /** Where the same block is kept a second time. */
  mirror?(block: number): Stretch | undefined;
}

export class PhysicalPartition implements Partition {
  readonly kind: string = "physical";

  constructor(
    protected readonly name: string,
    protected readonly blockSize: number,
    /** Block of the volume at which it begins. */
    readonly start: number,
    readonly blocks: number,
  ) {}

  locate(block: number): Stretch {
    this.check(block);
    return { position: (this.start + block) * this.blockSize, blocks: this.blocks - block };
  }

  protected check(block: number): void {
    if (block >= this.blocks)
      throw corrupt(
        `${this.name}: block ${block} of the partition at byte ${this.start * this.blockSize} is named, which has ${this.blocks}. The image is damaged.`,
      );
  }
}

export class SparablePartition extends PhysicalPartition {
  override readonly kind = "sparable";
  /** First blocks of the packets that were moved, ascending, and the volume's blocks where they are now. */
  private readonly moved: readonly (readonly [number, number])[];

  constructor(
    name: string,
    blockSize: number,
    partition: PhysicalPartition,
    private readonly packet: number,
    moved: ReadonlyMap<number, number>,
  ) {
    super(name, blockSize, partition.start, partition.blocks);
    this.moved = [...moved].sort((one, other) => one[0] - other[0]);
  }

  override locate(block: number): Stretch {
    this.check(block);
    const { moved, packet, blockSize } = this;
    let low = 0;
    let high = moved.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (moved[middle][0] + packet > block) high = middle;
      else low = middle + 1;
    }
    const found = moved[low];
    if (found && found[0] <= block) {
      const within = block - found[0];
      return { position: (found[1] + within) * blockSize, blocks: packet - within };
    }
    const end = found ? Math.min(found[0], this.blocks) : this.blocks;
    return { position: (this.start + block) * blockSize, blocks: end - block };
  }
}

/** Bytes of a file that tables are in. */
export interface TableBytes {
  readonly size: number;
  /** `length` bytes at `position`, which are there. */
  bytes(position: number, length: number): Buffer;
}

export class VirtualPartition implements Partition {
  readonly kind = "virtual";

  /** @param first byte of `table` at which the entries begin; there are `entries`. */
  constructor(
    private readonly name: string,
    private readonly partition: Partition,
    private readonly table: TableBytes,
    private readonly first: number,
    readonly entries: number,
  ) {}

  locate(block: number): Stretch {
    if (block >= this.entries)
      throw corrupt(
        `${this.name}: virtual block ${block} is named, of a table of ${this.entries}. The image is damaged.`,
      );
    const entry = this.table.bytes(this.first + block * 4, 4).readUInt32LE(0);
    if (entry === 0xffffffff)
      throw corrupt(`${this.name}: virtual block ${block} is named, which isn't in use. The image is damaged.`);
    return { position: this.partition.locate(entry).position, blocks: 1 };
  }
}

/** Where the bytes of a file lie. */
export interface FileMap {
  /** The stretch with the file's byte `position`, in bytes; `at` is undefined for a hole. */
  stretch(position: number): { readonly at: number | undefined; readonly length: number };
}

export class MetadataPartition implements Partition {
  readonly kind = "metadata";

  constructor(
    private readonly name: string,
    private readonly blockSize: number,
    private readonly main: FileMap | undefined,
    private readonly mirrored: FileMap | undefined,
  ) {}

  locate(block: number): Stretch {
    const found = this.find(this.main, block) ?? this.find(this.mirrored, block);
    if (!found)
      throw corrupt(
        `${this.name}: block ${block} of the metadata partition is named, which isn't there. The image is damaged.`,
      );
    return found;
  }

  mirror(block: number): Stretch | undefined {
    return this.main && this.find(this.mirrored, block);
  }

  private find(map: FileMap | undefined, block: number): Stretch | undefined {
    const { blockSize } = this;
    const { at, length } = map?.stretch(block * blockSize) ?? { at: undefined, length: 0 };
    // Extents that don't begin and end with blocks would have blocks lie across each other.
    return at === undefined || length < blockSize || at % blockSize !== 0
      ? undefined
      : { position: at, blocks: Math.floor(length / blockSize) };
  }
}

/** A kind that isn't known, or one whose tables are damaged: refused when a file needs it. */
export class ClosedPartition implements Partition {
  constructor(
    readonly kind: string,
    private readonly reason: ImageError,
  ) {}

  static unknown(name: string, identifier: string): ClosedPartition {
    return new ClosedPartition(
      identifier,
      unsupported(`${name}: has a UDF partition of the unknown kind ${JSON.stringify(identifier)}.`),
    );
  }

  locate(): Stretch {
    throw this.reason;
  }
}
