/**
 * Writes a .spin file front to back (FORMAT.md): chunks come in disk order, a batch at a time; leaf and digest pages follow
 * their chunks, nodes come when they are full, the trailer last. Memory is one leaf, and one node a level.
 */
import { contentRoot, leafHash, nodeHash, ZeroDigests } from "./content-root.js";
import {
  ChildKind,
  ChunkKind,
  digestLength,
  entryLength,
  fanOut,
  frameHeader,
  type NodeEntry,
  packDigests,
  packEntry,
  packHeader,
  packLeaf,
  packMetadata,
  packNode,
  packTrailer,
} from "./pages.js";
import { zeroFrame } from "./zero-frame.js";

/** What a batch says of each chunk. The last two are for differentials: the base has the same bytes. */
export const BatchKind = { zero: 1, stored: 2, sameData: 3, sameZero: 4 } as const;

/** Consecutive chunks, read, hashed and compressed. */
export interface Batch {
  /** Chunks in this batch; all of the chunk size but the disk's last. */
  readonly count: number;
  /** Bytes of disk that the batch covers. */
  readonly length: number;
  /** A BatchKind for each chunk. */
  readonly kinds: Uint8Array;
  /** For stored chunks the length of its frame, in bytes; the frames follow each other in `frames`. */
  readonly lengths: Uint32Array;
  readonly frames: Uint8Array;
  /** SHA-256 of every chunk, 32 bytes each. */
  readonly digests: Uint8Array;
}

export interface BaseIdentity {
  readonly id: Buffer;
  readonly contentRoot: Buffer;
  readonly size: number;
}

export interface Written {
  readonly size: number;
  readonly fileSize: number;
  readonly contentRoot: Buffer;
  readonly storedChunks: number;
  readonly storedBytes: number;
  /** Chunks that aren't zero on the whole disk. */
  readonly dataChunks: number;
}

/** A node that is being filled. */
interface OpenNode {
  count: number;
  readonly entries: Buffer;
  readonly hashes: Buffer;
  data: number;
  /** The one kind of all children so far, or undefined when they differ or have pages. */
  uniform: number | undefined;
}

const noPage = { at: 0, length: 0, data: 0, stored: 0 };

export class SpinWriter {
  private readonly zeros: ZeroDigests;
  private position = 0;
  private size = 0;
  private storedChunks = 0;
  private storedBytes = 0;
  private ended = false;
  // The leaf that is being filled.
  private readonly entries = new Uint32Array(fanOut);
  private readonly digests = Buffer.alloc(fanOut * digestLength);
  private count = 0;
  private stored = 0;
  private data = 0;
  private zeroChunks = 0;
  private absentChunks = 0;
  private leafStart = 0;
  /** First chunk of the run of zeros that isn't written yet, and its length in bytes. */
  private runStart = 0;
  private runLength = 0;
  private readonly nodes: OpenNode[] = [];
  private leaves = 0;
  private wholeZeroFrame: Buffer | undefined;

  /** `write` appends to the file; `base` makes it a differential. */
  constructor(
    private readonly write: (bytes: Uint8Array) => void,
    private readonly id: Buffer,
    private readonly chunkSize: number,
    private readonly base: BaseIdentity | undefined,
  ) {
    this.zeros = new ZeroDigests(chunkSize);
    this.emit(packHeader({ id, chunkSize, differential: base !== undefined }));
    this.leafStart = this.position;
  }

  /** Takes the next chunks. A batch whose length isn't a multiple of the chunk size ends the disk. */
  append(batch: Batch): void {
    if (this.ended) throw new Error("a batch after the disk's end");
    this.ended = batch.length % this.chunkSize !== 0;
    // Frames of neighbouring stored chunks are written at once: from `spanStart` to `frameAt`.
    let frameAt = 0;
    let spanStart = 0;
    const endSpan = () => {
      if (frameAt > spanStart) this.emit(batch.frames.subarray(spanStart, frameAt));
      spanStart = frameAt;
    };
    for (let i = 0; i < batch.count; i++) {
      const length = Math.min(this.chunkSize, batch.length - i * this.chunkSize);
      const kind = batch.kinds[i];
      const entry = this.count;
      this.digests.set(batch.digests.subarray(i * digestLength, (i + 1) * digestLength), entry * digestLength);
      if (kind === BatchKind.stored) {
        this.endZeroRun();
        const frameLength = batch.lengths[i]!;
        this.entries[entry] = ((ChunkKind.stored << 30) | frameLength) >>> 0;
        frameAt += frameLength;
        this.stored++;
        this.data++;
        this.storedChunks++;
        this.storedBytes += frameLength;
      } else if (kind === BatchKind.zero) {
        endSpan();
        this.entries[entry] = (ChunkKind.zero << 30) >>> 0;
        this.zeroChunks++;
        if (this.runLength === 0) this.runStart = entry;
        this.runLength += length;
      } else {
        this.entries[entry] = 0;
        this.absentChunks++;
        if (kind === BatchKind.sameData) this.data++;
      }
      this.size += length;
      this.count++;
      if (this.count === fanOut) {
        endSpan();
        this.endLeaf();
      }
    }
    endSpan();
  }

  /** Takes `leaves` whole leaves of zeros at once, between two leaves: `same` when the base has zeros there too. */
  appendZeroLeaves(leaves: number, same: boolean): void {
    if (this.count !== 0 || this.ended) throw new Error("whole leaves of zeros in the middle of a leaf");
    if (same && !this.base) throw new Error("a full image has no base to be the same as");
    const kind = same ? ChildKind.absent : ChildKind.zero;
    for (let i = 0; i < leaves; i++) {
      if (!this.base) {
        this.wholeZeroFrame ??= zeroFrame(fanOut * this.chunkSize);
        this.emit(this.wholeZeroFrame);
      }
      this.push(1, { ...noPage, kind }, this.zeros.leaf);
    }
    this.leaves += leaves;
    this.size += leaves * fanOut * this.chunkSize;
    this.leafStart = this.position;
  }

  /** Whether the next chunk begins a leaf. */
  get betweenLeaves(): boolean {
    return this.count === 0;
  }

  /** Writes what is left, the metadata and the trailer. */
  finish(metadata: Record<string, unknown>): Written {
    if (this.count > 0) this.endLeaf();
    let root: NodeEntry = { ...noPage, kind: 0 };
    let top: Buffer | undefined;
    for (let level = 1; level <= this.nodes.length; level++) {
      const closed = this.closeNode(level);
      if (level === this.nodes.length) ({ entry: root, hash: top } = closed);
      else this.push(level + 1, closed.entry, closed.hash);
    }
    const packed = packMetadata(metadata, this.id);
    const metadataAt = this.position + frameHeader;
    this.emit(packed);
    const written = {
      size: this.size,
      contentRoot: contentRoot(this.size, this.chunkSize, top),
      storedChunks: this.storedChunks,
      storedBytes: this.storedBytes,
    };
    const trailer = (fileSize: number) =>
      packTrailer({
        ...written,
        id: this.id,
        chunkSize: this.chunkSize,
        differential: this.base !== undefined,
        fileSize,
        root,
        rootLevel: this.nodes.length,
        metadataAt,
        metadataLength: packed.length - frameHeader,
        base: this.base,
      });
    const fileSize = this.position + trailer(0).length;
    this.emit(trailer(fileSize));
    return { ...written, fileSize, dataChunks: root.data };
  }

  private emit(bytes: Uint8Array): void {
    this.write(bytes);
    this.position += bytes.length;
  }

  private endZeroRun(): void {
    if (this.runLength === 0) return;
    if (!this.base) {
      const frame = zeroFrame(this.runLength);
      this.emit(frame);
      this.entries[this.runStart] = ((ChunkKind.zero << 30) | frame.length) >>> 0;
    }
    this.runLength = 0;
  }

  private endLeaf(): void {
    this.endZeroRun();
    const count = this.count;
    const firstChunk = this.leaves * fanOut;
    const digests = this.digests.subarray(0, count * digestLength);
    let entry: NodeEntry;
    if (this.zeroChunks === count) entry = { ...noPage, kind: ChildKind.zero };
    else if (this.absentChunks === count) entry = { ...noPage, kind: ChildKind.absent, data: this.data };
    else {
      const leaf = packLeaf(this.id, firstChunk, this.leafStart, this.entries.subarray(0, count), this.stored);
      entry = {
        kind: ChildKind.page,
        at: this.position + frameHeader,
        length: leaf.length - frameHeader,
        data: this.data,
        stored: this.stored,
      };
      this.emit(leaf);
      if (this.stored > 0) {
        const kept: Uint8Array[] = [];
        for (let i = 0; i < count; i++)
          if (this.entries[i]! >>> 30 === ChunkKind.stored)
            kept.push(digests.subarray(i * digestLength, (i + 1) * digestLength));
        this.emit(packDigests(this.id, firstChunk, kept));
      }
    }
    this.push(1, entry, leafHash(digests));
    this.leaves++;
    this.count = this.stored = this.data = this.zeroChunks = this.absentChunks = 0;
    this.leafStart = this.position;
  }

  /** Adds a child to the open node of `level`. A full node is closed only now, so that the topmost is never alone. */
  private push(level: number, entry: NodeEntry, hash: Uint8Array): void {
    let node = this.nodes[level - 1];
    if (!node) {
      node = {
        count: 0,
        entries: Buffer.alloc(fanOut * entryLength),
        hashes: Buffer.alloc(fanOut * digestLength),
        data: 0,
        uniform: undefined,
      };
      this.nodes.push(node);
    } else if (node.count === fanOut) {
      const closed = this.closeNode(level);
      this.push(level + 1, closed.entry, closed.hash);
    }
    packEntry(entry, node.entries, node.count * entryLength);
    node.hashes.set(hash, node.count * digestLength);
    if (node.count === 0) node.uniform = entry.kind === ChildKind.page ? undefined : entry.kind;
    else if (node.uniform !== entry.kind) node.uniform = undefined;
    node.count++;
    node.data += entry.data;
  }

  private closed = [0];

  private closeNode(level: number): { entry: NodeEntry; hash: Buffer } {
    const node = this.nodes[level - 1]!;
    this.closed[level] ??= 0;
    const firstChunk = this.closed[level]! * fanOut ** (level + 1);
    this.closed[level]!++;
    const hash = nodeHash(node.hashes.subarray(0, node.count * digestLength));
    let entry: NodeEntry;
    if (node.uniform !== undefined) entry = { ...noPage, kind: node.uniform, data: node.data };
    else {
      const bytes = packNode(this.id, firstChunk, level, node.entries.subarray(0, node.count * entryLength));
      const at = this.position + frameHeader;
      entry = { kind: ChildKind.page, at, length: bytes.length - frameHeader, data: node.data, stored: 0 };
      this.emit(bytes);
    }
    // The next leaf's frames begin behind this node.
    this.leafStart = this.position;
    node.entries.fill(0);
    node.count = 0;
    node.data = 0;
    node.uniform = undefined;
    return { entry, hash };
  }
}
