import { LRUCache } from "lru-cache";
import type { ByteSource } from "../bytes/byte-source.js";
import { corrupt, ImageError } from "../errors.js";
import type { Run } from "../layers/layer.js";
import { settings } from "../settings.js";

/** What a table says of one block. `broken` is kept as such, so that one bad entry costs no other block. */
export const BlockKind = { absent: 0, zero: 1, stored: 2, packed: 3, broken: 4 } as const;

/** A block's entry, taken from the image's table by `BlockTable.entry`. */
export interface BlockEntry {
  kind: number;
  /** Where the block is in `BlockTable.source`, in bytes, for `stored`. */
  position: number;
}

/** The allocation table of an image whose disk is cut into blocks of one size. */
export interface BlockTable {
  /** How messages name the image. */
  readonly name: string;
  /** Of the disk, in bytes. */
  readonly size: number;
  /** In bytes. */
  readonly blockSize: number;
  /** Where stored blocks are kept. */
  readonly source: ByteSource;
  /** Packed blocks, unpacked, at their positions on the disk. */
  readonly unpacked?: ByteSource;
  /** Whether a block without entry is left to a parent; otherwise it is zero. */
  readonly hasParent: boolean;
  /** `block`, `cluster`: for messages. */
  readonly noun: string;
  /** Looks `block` up. @throws ImageError `corrupt` where its entry can't be. */
  entry(block: number, target: BlockEntry): void;
  /** How many blocks from `block` on have no entry because whole tables are missing; 0 where there is a table. */
  missingFrom?(block: number): number;
}

interface Page {
  readonly kinds: Uint8Array;
  readonly positions: Float64Array;
  /** For each block the index behind the last that continues it. */
  readonly runEnds: Uint16Array;
}

const blocksPerPage = 1024;

/**
 * Answers `locate` from an allocation table, of which a bounded number of decoded pages is kept: neighbours that continue
 * each other in the file are joined once a page, so that an answer costs the same for any fragmentation.
 */
export class BlockMap {
  private readonly pages = new LRUCache<number, Page>({ max: settings.indexPages });
  private readonly blocks: number;
  private readonly found: BlockEntry = { kind: BlockKind.absent, position: 0 };

  constructor(private readonly table: BlockTable) {
    this.blocks = Math.ceil(table.size / table.blockSize);
  }

  /** @throws ImageError `corrupt` when the entry of the block at `position` leads nowhere. */
  locate(position: number): Run {
    const { blockSize, size } = this.table;
    const block = Math.floor(position / blockSize);
    const missing = this.table.missingFrom?.(block) ?? 0;
    if (missing > 0) return { kind: this.empty, length: Math.min((block + missing) * blockSize, size) - position };
    const number = Math.floor(block / blocksPerPage);
    const page = this.pages.get(number) ?? this.decode(number);
    const first = number * blocksPerPage;
    const index = block - first;
    const length = Math.min((first + page.runEnds[index]!) * blockSize, size) - position;
    switch (page.kinds[index]) {
      case BlockKind.absent:
        return { kind: this.empty, length };
      case BlockKind.zero:
        return { kind: "zero", length };
      case BlockKind.stored: {
        const at = page.positions[index]! + (position - block * blockSize);
        return { kind: "stored", length, source: this.table.source, at };
      }
      case BlockKind.packed:
        return { kind: "stored", length, source: this.table.unpacked!, at: position };
      default:
        this.look(block); // throws, again, what is wrong with it
        throw corrupt(`${this.table.name}: the entry of ${this.table.noun} ${block} changed while it was read.`);
    }
  }

  private get empty(): "absent" | "zero" {
    return this.table.hasParent ? "absent" : "zero";
  }

  /** The entry of `block`, checked against the file. */
  private look(block: number): BlockEntry {
    const { table, found } = this;
    found.kind = BlockKind.absent;
    table.entry(block, found);
    if (found.kind !== BlockKind.stored) return found;
    const start = block * table.blockSize;
    const length = Math.min(table.blockSize, table.size - start);
    if (found.position + length > table.source.size)
      throw corrupt(
        `${table.name}: ${table.noun} ${block} (disk bytes ${start} to ${start + length - 1}) should be at byte ${found.position}${table.source.name === table.name ? "" : ` of ${table.source.name}`}, but the file has ${table.source.size} bytes. It is truncated or damaged: restore it from another copy.`,
      );
    return found;
  }

  private decode(number: number): Page {
    const { table } = this;
    const first = number * blocksPerPage;
    const count = Math.min(blocksPerPage, this.blocks - first);
    const page: Page = {
      kinds: new Uint8Array(count),
      positions: new Float64Array(count),
      runEnds: new Uint16Array(count),
    };
    const { kinds, positions, runEnds } = page;
    for (let index = 0; index < count; index++) {
      try {
        const { kind, position } = this.look(first + index);
        kinds[index] = kind;
        positions[index] = position;
      } catch (error) {
        if (!(error instanceof ImageError) || error.code !== "corrupt") throw error;
        kinds[index] = BlockKind.broken;
      }
    }
    for (let index = count - 1, end = count; index >= 0; index--) {
      const kind = kinds[index]!;
      const next = index + 1;
      const continued =
        next < count &&
        kinds[next] === kind &&
        kind !== BlockKind.broken &&
        (kind !== BlockKind.stored || positions[next] === positions[index]! + table.blockSize);
      if (!continued) end = next;
      runEnds[index] = end;
    }
    this.pages.set(number, page);
    return page;
  }
}
