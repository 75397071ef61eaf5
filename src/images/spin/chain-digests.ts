import { mismatch } from "../../errors.js";
import { contentRoot, leafHash, nodeHash, ZeroDigests } from "./content-root.js";
import { ChunkKind, digestLength, fanOut, levelsFor } from "./pages.js";
import type { SpinLayer, Spot } from "./reader.js";

/** The digests of one leaf of the whole disk. */
export interface LeafDigests {
  /** 32 bytes for each chunk. */
  readonly digests: Buffer;
  /** 1 for each chunk that is zero without anything stored for it. */
  readonly zero: Uint8Array;
}

/**
 * The digests of every chunk of a chain's disk, newest layer first: what a differential is made against, and what the
 * content root is computed from.
 */
export class ChainDigests {
  readonly chunkSize: number;
  readonly size: number;
  private readonly zeros: ZeroDigests;
  /** By level, of nodes over zeros alone. */
  private readonly zeroHashes: Buffer[];
  private readonly chunkCount: number;
  private lastNumber = -1;
  private last: LeafDigests | undefined;

  constructor(private readonly layers: readonly SpinLayer[]) {
    const top = layers[0]!;
    this.chunkSize = top.chunkSize;
    this.size = top.size;
    this.chunkCount = Math.ceil(top.size / top.chunkSize);
    this.zeros = new ZeroDigests(top.chunkSize);
    this.zeroHashes = [this.zeros.leaf];
    for (const layer of layers)
      if (layer.chunkSize !== top.chunkSize)
        throw mismatch(
          `${top.name}: has chunks of ${top.chunkSize} bytes over ${layer.name} with chunks of ${layer.chunkSize}; layers of a chain have the same.`,
        );
  }

  get leafCount(): number {
    return Math.ceil(this.chunkCount / fanOut);
  }

  /** The digests of leaf `number`, kept until another leaf is asked for. */
  leaf(number: number): LeafDigests {
    if (number === this.lastNumber && this.last) return this.last;
    const first = number * fanOut;
    const count = Math.min(fanOut, this.chunkCount - first);
    const digests = Buffer.alloc(count * digestLength);
    const zero = new Uint8Array(count);
    const open = new Set<number>(Array.from({ length: count }, (_, i) => i));
    for (const layer of this.layers) {
      if (open.size === 0) break;
      this.take(layer, first, open, digests, zero);
    }
    // What no layer has is zero.
    for (const i of open) this.setZero(first + i, i, digests, zero);
    this.lastNumber = number;
    this.last = { digests, zero };
    return this.last;
  }

  /** The layer whose file has the bytes of `chunk` stored; undefined where no layer stores them: they are zero. */
  storedIn(chunk: number): SpinLayer | undefined {
    for (const layer of this.layers) {
      // Beyond a shorter base all is zero, whatever a layer under it holds there.
      if (chunk * this.chunkSize >= layer.size) return undefined;
      const spot = layer.spot(chunk);
      const kind = spot.kind === "leaf" ? spot.leaf.kinds[chunk - spot.firstChunk] : ChunkKind[spot.kind];
      if (kind !== ChunkKind.absent) return kind === ChunkKind.stored ? layer : undefined;
    }
    return undefined;
  }

  /** Whether leaf `number` is a whole leaf within the disk and all zeros, told from the index alone. */
  wholeZeroLeaf(number: number): boolean {
    return (number + 1) * fanOut * this.chunkSize <= this.size && this.zeroLeaves(number) > 0;
  }

  /** How many whole leaves from `number` on the index alone tells to be all zeros. */
  private zeroLeaves(number: number): number {
    let end = Math.ceil(this.chunkCount / fanOut);
    for (const layer of this.layers) {
      if (number * fanOut * this.chunkSize >= layer.size) return end - number;
      const spot = layer.spot(number * fanOut);
      if (spot.kind === "leaf") return 0;
      const complete =
        spot.endChunk * this.chunkSize >= layer.size ? Math.ceil(spot.endChunk / fanOut) : spot.endChunk / fanOut;
      end = Math.min(end, complete);
      if (spot.kind === "zero") return end - number;
    }
    return end - number;
  }

  /** The content root (FORMAT.md §9), computed from the digests. */
  contentRoot(): Buffer {
    const level = levelsFor(this.leafCount);
    return contentRoot(this.size, this.chunkSize, level === 0 ? undefined : this.hashOf(level, 0));
  }

  /**
   * The hash of the node of `level` over the leaves from `first` on (level 0: of that leaf). What is zero as a whole is
   * not walked, so that the time goes with what the files hold, not with the size that they tell.
   */
  private hashOf(level: number, first: number): Buffer {
    const whole = Math.floor(this.size / this.chunkSize / fanOut);
    const end = first + fanOut ** level;
    if (end <= whole && this.zeroLeaves(first) >= end - first) return this.zeroHash(level);
    if (level === 0) return leafHash(this.leaf(first).digests);
    const hashes: Buffer[] = [];
    const span = fanOut ** (level - 1);
    for (let child = first; child < Math.min(end, this.leafCount); child += span)
      hashes.push(this.hashOf(level - 1, child));
    return nodeHash(Buffer.concat(hashes));
  }

  private zeroHash(level: number): Buffer {
    this.zeroHashes[level] ??= nodeHash(Buffer.concat(new Array<Buffer>(fanOut).fill(this.zeroHash(level - 1))));
    return this.zeroHashes[level];
  }

  /** Takes from `layer` what it has of the chunks in `open`. */
  private take(layer: SpinLayer, first: number, open: Set<number>, digests: Buffer, zero: Uint8Array): void {
    let spot: Spot | undefined;
    let stored: Buffer | undefined;
    let nth: Uint16Array | undefined;
    for (const i of open) {
      const chunk = first + i;
      // Beyond a shorter base all is zero, whatever a layer under it holds there.
      const beyond = chunk * this.chunkSize >= layer.size;
      if (!beyond) spot ??= layer.spot(first);
      if (beyond || spot?.kind === "zero") {
        open.delete(i);
        this.setZero(chunk, i, digests, zero);
      } else if (spot?.kind === "leaf") {
        const kind = spot.leaf.kinds[i];
        if (kind === ChunkKind.absent) continue;
        open.delete(i);
        if (kind === ChunkKind.zero) this.setZero(chunk, i, digests, zero);
        else {
          stored ??= layer.digests(spot.leaf, first);
          nth ??= order(spot.leaf.kinds);
          stored.copy(digests, i * digestLength, nth[i]! * digestLength, (nth[i]! + 1) * digestLength);
        }
      }
    }
  }

  private setZero(chunk: number, i: number, digests: Buffer, zero: Uint8Array): void {
    const length = Math.min(this.chunkSize, this.size - chunk * this.chunkSize);
    const digest = length === this.chunkSize ? this.zeros.chunk : ZeroDigests.of(length);
    digest.copy(digests, i * digestLength);
    zero[i] = 1;
  }
}

/** For each chunk how many stored ones come before it. */
function order(kinds: Uint8Array): Uint16Array {
  const result = new Uint16Array(kinds.length);
  let count = 0;
  for (let i = 0; i < kinds.length; i++) {
    result[i] = count;
    if (kinds[i] === ChunkKind.stored) count++;
  }
  return result;
}
