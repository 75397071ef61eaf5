import type { ByteSource } from "../../bytes/byte-source.js";
import { MetadataPages } from "../../bytes/metadata-pages.js";
import { corrupt, ImageError, unsupported } from "../../errors.js";
import { type Address, FileEntry, longAddress } from "./entry.js";
import { ClosedPartition, type Partition } from "./partitions.js";
import { tagProblem, tags } from "./tag.js";

export interface Descriptor {
  /** A whole block: a view of a page, not to be kept. */
  readonly bytes: Buffer;
  /** Byte in the volume. */
  readonly position: number;
}

/** Rewritten ICBs of a medium that is written once form a chain (strategy 4096); a longer one is taken for a loop. */
const LONGEST_CHAIN = 1024;
const CHAINED = 4096;

/** The logical volume as the readers of its descriptors see it. */
export class Volume {
  readonly name: string;
  readonly pages: MetadataPages;
  private partitions: readonly Partition[] = [];

  constructor(
    readonly source: ByteSource,
    readonly blockSize: number,
  ) {
    this.name = source.name;
    this.pages = new MetadataPages(source, Math.max(16384, blockSize), blockSize > 16384 ? 256 : 512);
  }

  /** Partitions rest on others, so that they come one after the other. */
  setPartitions(partitions: readonly Partition[]): void {
    this.partitions = partitions;
  }

  partition(reference: number): Partition {
    return (
      this.partitions[reference] ??
      new ClosedPartition(
        "missing",
        corrupt(
          `${this.name}: partition ${reference} of the UDF volume is named, which has ${this.partitions.length}. The image is damaged.`,
        ),
      )
    );
  }

  corrupt(position: number, what: string): ImageError {
    return corrupt(`${this.name}: byte ${position}: ${what}. The image is damaged or cut off.`);
  }

  unsupported(position: number, what: string): ImageError {
    return unsupported(`${this.name}: byte ${position}: ${what}.`);
  }

  /**
   * The block of a descriptor, verified. Where the partition is mirrored, a damaged one is taken from the mirror.
   * @throws ImageError `corrupt`; `what` names the structure.
   */
  descriptor(address: Address, expected: readonly number[], what: string): Descriptor {
    const partition = this.partition(address.partition);
    const { position } = partition.locate(address.block);
    const bytes = this.pages.bytes(position, this.blockSize, what);
    const problem = tagProblem(bytes, expected, address.block);
    if (problem === undefined) return { bytes, position };
    const mirror = partition.mirror?.(address.block);
    if (mirror && mirror.position !== position) {
      const second = this.pages.bytes(mirror.position, this.blockSize, what);
      if (tagProblem(second, expected, address.block) === undefined)
        return { bytes: second, position: mirror.position };
    }
    throw this.corrupt(position, `${what} ${problem}`);
  }

  /** The file entry at an address, or the newest of those that follow it. */
  fileEntry(address: Address): FileEntry {
    let at = address;
    for (let chain = 0; chain < LONGEST_CHAIN; chain++) {
      const { bytes, position } = this.descriptor(at, [tags.fileEntry, tags.extendedFileEntry], "a file entry");
      const entry = new FileEntry(bytes, at, position);
      if (!entry.isComplete) throw this.corrupt(position, "a file entry's allocation descriptors exceed its block");
      const next = entry.strategy === CHAINED ? this.newer(at) : undefined;
      if (!next) return entry;
      at = next;
    }
    throw this.corrupt(this.partition(address.partition).locate(address.block).position, "a chain of ICBs has no end");
  }

  /** What the indirect entry in the block behind an ICB leads to; there is none behind the newest. */
  private newer({ partition, block }: Address): Address | undefined {
    let bytes: Buffer;
    try {
      ({ bytes } = this.descriptor({ partition, block: block + 1 }, [tags.indirectEntry], "an indirect entry"));
    } catch (error) {
      // Behind the newest, nothing was written yet.
      if (!(error instanceof ImageError)) throw error;
      return undefined;
    }
    const next = longAddress(bytes, 36);
    return next.length === 0 ? undefined : { partition: next.partition, block: next.block };
  }
}
