import type { LRUCache } from "lru-cache";
import { readFully } from "../../bytes/byte-source.js";
import { corrupt, ImageError } from "../../errors.js";
import { applyFixups } from "./fixups.js";
import { isPowerOfTwo, u64 } from "./numbers.js";
import type { Stream } from "./streams.js";

/*
 * An index: a B-tree whose root is an attribute ($INDEX_ROOT), and whose other nodes are the blocks of another
 * ($INDEX_ALLOCATION), of which a bitmap ($BITMAP) tells which are in use. Directories are such ($I30: names), and the
 * tables of $Secure.
 *
 *   root:   0  type of what is indexed    8  bytes a block       16  node
 *   block:  0  "INDX"   4  fixups        16  its own number (VCN)   24  node
 *   node:   0  first entry   4  end of the entries (both from the node's begin)   12  1: it has children
 *   entry:  0  file reference, or 0 and 2 where its data is and how long   8  length   10  length of the key
 *          12  1: a child goes before it, 2: the last, without a key       16  key      length - 8: the child's VCN
 */

/** A node's bytes, and where its entries are in them. */
export interface Node {
  readonly bytes: Buffer;
  readonly first: number;
  readonly end: number;
}

/** Blocks of all indexes that were read last. */
export type NodeCache = LRUCache<number, Node>;

const LAST = 2;
const CHILD = 1;
/** Levels that a tree may have: 255-unit names in blocks of 512 bytes would not need more. */
const deepest = 32;
/** Nodes that one search may visit: those of one path, and the siblings among which names of equal fold may lie. */
const mostVisited = 1000;

export class IndexTree {
  private readonly root: Node;
  private readonly blockSize: number;
  /** Bytes that VCNs of blocks count. */
  private readonly unit: number;

  /**
   * @param name how messages name it.
   * @param key of its first block in the cache; `keys` are its own from there on.
   * @throws ImageError `corrupt` when its root is damaged.
   */
  constructor(
    private readonly name: string,
    root: Buffer,
    private readonly blocks: Stream | undefined,
    private readonly bitmap: Stream | undefined,
    clusterSize: number,
    volumeSize: number,
    private readonly key: number,
    private readonly keys: number,
    private readonly cache: NodeCache,
  ) {
    if (root.length < 32) throw corrupt(`${name} has a root of only ${root.length} bytes. The volume is damaged.`);
    this.blockSize = root.readUInt32LE(8);
    if (!isPowerOfTwo(this.blockSize) || this.blockSize < 512 || this.blockSize > 65536)
      throw corrupt(`${name} has blocks of ${this.blockSize} bytes. The volume is damaged.`);
    this.unit = this.blockSize >= clusterSize ? clusterSize : 512;
    this.root = this.node(root, 16, "its root");
    if (blocks && blocks.size > volumeSize)
      throw corrupt(`${name} takes ${blocks.size} bytes, more than the volume has. The volume is damaged.`);
  }

  /** Bytes of its blocks. */
  get size(): number {
    return this.blocks?.size ?? 0;
  }

  /** Bytes of memory that it takes itself, roughly. */
  get weight(): number {
    return 1000 + this.root.bytes.length + (this.blocks?.weight ?? 0) + (this.bitmap?.weight ?? 0);
  }

  /**
   * The nodes with entries: the root, then the blocks in use in the order of their numbers. That isn't the order of
   * the keys, but needs no way back up, and as ntfs-3g does it.
   * @throws ImageError `corrupt` after all that could be read.
   */
  *nodes(): Iterable<Node> {
    yield this.root;
    const { blocks, bitmap } = this;
    if (!blocks) return;
    let damage: ImageError | undefined;
    const count = Math.floor(blocks.size / this.blockSize);
    const bits = Buffer.alloc(4096);
    for (let first = 0; first < count; first += bits.length * 8) {
      const length = bitmap ? readFully(bitmap, first / 8, bits) : 0;
      if (length < bits.length) bits.fill(bitmap ? 0 : 0xff, length);
      const stop = Math.min(count, first + bits.length * 8);
      for (let block = first; block < stop; block++) {
        if ((bits[(block - first) >> 3]! & (1 << (block & 7))) === 0) continue;
        let node: Node | undefined;
        try {
          node = this.block(block);
        } catch (error) {
          if (!(error instanceof ImageError)) throw error;
          damage ??= error;
        }
        if (node) yield node;
      }
    }
    if (damage) throw damage;
  }

  /**
   * Visits the entries whose keys compare as 0, in order.
   * @param compare negative where the wanted key comes before the entry's, which is at `key` in `bytes` and `length` long.
   * @param visit gets the same; true ends the search.
   * @throws ImageError `corrupt` when a node on the way is damaged.
   */
  search(
    compare: (bytes: Buffer, key: number, length: number) => number,
    visit: (bytes: Buffer, entry: number) => boolean,
  ): void {
    let visited = 0;
    const descend = (node: Node, level: number): boolean => {
      if (level > deepest || ++visited > mostVisited)
        throw corrupt(`${this.name} is a tree without end. The volume is damaged.`);
      const { bytes } = node;
      for (let entry = node.first; entry < node.end; entry += bytes.readUInt16LE(entry + 8)) {
        const flags = bytes[entry + 12]!;
        const order = (flags & LAST) !== 0 ? -1 : compare(bytes, entry + 16, bytes.readUInt16LE(entry + 10));
        if (order > 0) continue;
        if ((flags & CHILD) !== 0 && descend(this.child(bytes, entry), level + 1)) return true;
        if (order < 0) return false;
        if (visit(bytes, entry)) return true;
      }
      return false;
    };
    descend(this.root, 0);
  }

  private child(bytes: Buffer, entry: number): Node {
    const vcn = u64(bytes, entry + bytes.readUInt16LE(entry + 8) - 8);
    const position = vcn * this.unit;
    if (!this.blocks || position % this.blockSize !== 0 || position + this.blockSize > this.blocks.size)
      throw corrupt(
        `${this.name} refers to its block at byte ${position}, which it doesn't have. The volume is damaged.`,
      );
    return this.block(position / this.blockSize);
  }

  private block(number: number): Node {
    // Blocks beyond (4 GiB of index on) aren't kept.
    const key = number < this.keys ? this.key + number : undefined;
    const kept = key === undefined ? undefined : this.cache.get(key);
    if (kept) return kept;
    const bytes = Buffer.allocUnsafe(this.blockSize);
    const position = number * this.blockSize;
    const what = `its block at byte ${position}`;
    if (readFully(this.blocks!, position, bytes) !== bytes.length)
      throw corrupt(`${this.name}: ${what} is cut off. The volume is damaged.`);
    const torn = applyFixups(bytes, "INDX");
    if (torn) throw corrupt(`${this.name}: ${what} ${torn}. The volume is damaged.`);
    // Else one block could be had again and again under other numbers.
    if (u64(bytes, 16) * this.unit !== position)
      throw corrupt(`${this.name}: ${what} is numbered ${u64(bytes, 16)}. The volume is damaged.`);
    const node = this.node(bytes, 24, what);
    if (key !== undefined) this.cache.set(key, node);
    return node;
  }

  /** Checks all entries of a node, so that who reads them needn't. */
  private node(bytes: Buffer, header: number, what: string): Node {
    const first = header + bytes.readUInt32LE(header);
    const end = header + bytes.readUInt32LE(header + 4);
    const wrong = (at: number, why: string) =>
      corrupt(`${this.name}: ${what} has a damaged entry at its byte ${at}: ${why}. The volume is damaged.`);
    if (first < header + 16 || end > bytes.length) throw wrong(header, "entries beyond its end");
    for (let at = first; ; ) {
      if (at + 16 > end) throw wrong(at, "the last one is missing");
      const length = bytes.readUInt16LE(at + 8);
      const flags = bytes[at + 12]!;
      const last = (flags & LAST) !== 0;
      const keyLength = last ? 0 : bytes.readUInt16LE(at + 10);
      if (length < 16 + keyLength + ((flags & CHILD) !== 0 ? 8 : 0) || at + length > end)
        throw wrong(at, `it has length ${length}`);
      at += length;
      if (last) return { bytes, first, end: at };
    }
  }
}

export const isLast = (bytes: Buffer, entry: number) => (bytes[entry + 12]! & LAST) !== 0;
