import { LRUCache } from "lru-cache";
import binding from "zstd-napi/binding.js";
import type { ByteSource } from "../../bytes/byte-source.js";
import { readFully } from "../../bytes/byte-source.js";
import type { PackedChunks } from "../../bytes/chunk-cache.js";
import { corrupt, type ImageError, mismatch } from "../../errors.js";
import type { Format, Surroundings } from "../../format.js";
import type { Damage, Integrity, Layer, ParentReference, PieceReport, Run } from "../../layers/layer.js";
import { settings } from "../../settings.js";
import { sha256 } from "./content-root.js";
import {
  ChildKind,
  ChunkKind,
  digestLength,
  entryLength,
  fanOut,
  hasSignature,
  type Leaf,
  longestFrame,
  type NodeEntry,
  readDigests,
  readHeader,
  readLeaf,
  readMetadata,
  readNode,
  readTrailer,
  type Trailer,
  unpackEntry,
} from "./pages.js";
import { StreamCheck, type StreamFault } from "./stream-check.js";

/** Spindle's own container. */
export const spin: Format<SpinLayer> = {
  name: "spin",
  recognises: hasSignature,
  open: (source, around) => new SpinLayer(source, around),
};

/** A subtree of the index in which all chunks are alike, or the leaf with the chunk in question. */
export type Spot =
  | { readonly kind: "absent" | "zero"; readonly endChunk: number; readonly data: number }
  | { readonly kind: "leaf"; readonly leaf: Leaf; readonly firstChunk: number };

export class SpinLayer implements Layer, PackedChunks {
  readonly format = "spin";
  readonly trailer: Trailer;
  readonly metadata: Record<string, unknown>;
  readonly parent: ParentReference | undefined;
  readonly integrity: Integrity;
  private readonly chunks: ByteSource;
  private readonly leaves = new LRUCache<number, Leaf>({ max: settings.indexPages });
  private readonly nodes = new LRUCache<number, Buffer>({ max: 64 });
  private readonly decompressor = new binding.DCtx();
  private readonly frame: Buffer;
  private readonly chunkCount: number;
  /** For a full image, which zstd -d reads too; made when the first piece is checked. */
  private stream: StreamCheck | undefined;

  /** Reads the header, the trailer and the metadata: the same few bytes whatever the disk's size. */
  constructor(
    private readonly file: ByteSource,
    around: Surroundings,
  ) {
    this.trailer = readTrailer(file, readHeader(file));
    this.metadata = readMetadata(file, this.trailer);
    this.chunkCount = Math.ceil(this.trailer.size / this.trailer.chunkSize);
    this.frame = Buffer.allocUnsafe(longestFrame(this.trailer.chunkSize));
    this.parent = this.trailer.base && this.describeBase(this.trailer.base);
    this.chunks = around.cache.source(this);
    this.integrity = { pieces: Math.ceil(this.chunkCount / fanOut), check: (piece) => this.check(piece) };
  }

  get name(): string {
    return this.file.name;
  }

  get size(): number {
    return this.trailer.size;
  }

  get chunkSize(): number {
    return this.trailer.chunkSize;
  }

  get facts(): Record<string, unknown> {
    const { id, contentRoot, chunkSize, storedChunks, storedBytes, fileSize, differential } = this.trailer;
    return {
      kind: differential ? "differential" : "full",
      id: id.toString("hex"),
      contentRoot: contentRoot.toString("hex"),
      chunkSize,
      storedChunks,
      storedBytes,
      fileSize,
      ...knownMetadata(this.metadata),
    };
  }

  locate(position: number): Run {
    const chunkSize = this.trailer.chunkSize;
    const chunk = Math.floor(position / chunkSize);
    const spot = this.spot(chunk);
    if (spot.kind !== "leaf") return { kind: spot.kind, length: this.endOf(spot.endChunk) - position };
    const index = chunk - spot.firstChunk;
    const length = this.endOf(spot.firstChunk + spot.leaf.runEnds[index]!) - position;
    switch (spot.leaf.kinds[index]) {
      case ChunkKind.absent:
        return { kind: "absent", length };
      case ChunkKind.zero:
        return { kind: "zero", length };
      default:
        return { kind: "stored", length, source: this.chunks, at: position };
    }
  }

  dataWithin(position: number, end: number): { length: number; bytes: number } | undefined {
    const { chunkSize, size, rootLevel } = this.trailer;
    // A short last chunk isn't counted in whole chunks: what holds it is walked.
    const last = Math.floor(Math.min(end, size) / chunkSize);
    const chunk = position / chunkSize;
    if (!Number.isInteger(chunk) || chunk % fanOut !== 0 || rootLevel === 0) return undefined;
    let entry = this.trailer.root;
    let first = 0;
    for (let level = rootLevel; level >= 0; level--) {
      const covered = Math.min(fanOut ** (level + 1), this.chunkCount - first);
      if (entry.data > covered)
        throw corrupt(
          `${this.name}: the index tells of ${entry.data} chunks of data in ${covered} from chunk ${first} on.`,
        );
      if (first === chunk && first + covered <= last)
        return { length: covered * chunkSize, bytes: entry.data * chunkSize };
      if (entry.kind !== ChildKind.page || level === 0) return undefined;
      ({ entry, first } = this.child(entry, level, first, chunk));
    }
    return undefined;
  }

  /** Behind the last chunk of what `spot` looked at last: where it fails, so far the failure goes. */
  private reach = 0;

  /** Where the index leads for `chunk`. */
  spot(chunk: number): Spot {
    const leafNumber = Math.floor(chunk / fanOut);
    const known = this.leaves.get(leafNumber);
    if (known) return { kind: "leaf", leaf: known, firstChunk: leafNumber * fanOut };
    let entry = this.trailer.root;
    let first = 0;
    for (let level = this.trailer.rootLevel; ; level--) {
      const covered = Math.min(fanOut ** (level + 1), this.chunkCount - first);
      this.reach = first + covered;
      if (entry.kind === ChildKind.zero || entry.kind === ChildKind.absent) {
        if (entry.kind === ChildKind.absent && !this.trailer.differential)
          throw corrupt(`${this.name}: a full image leaves chunk ${chunk} out. The file is damaged.`);
        const kind = entry.kind === ChildKind.zero ? "zero" : "absent";
        return { kind, endChunk: first + covered, data: entry.data };
      }
      if (entry.kind !== ChildKind.page)
        throw corrupt(`${this.name}: the index entry for chunk ${first} has an unknown kind ${entry.kind}.`);
      if (level === 0) {
        const leaf = readLeaf(this.file, this.trailer.id, entry, first, covered);
        if (!this.trailer.differential && leaf.kinds.includes(ChunkKind.absent))
          throw corrupt(`${this.name}: a full image leaves chunks after ${first} out. The file is damaged.`);
        this.leaves.set(leafNumber, leaf);
        return { kind: "leaf", leaf, firstChunk: first };
      }
      ({ entry, first } = this.child(entry, level, first, chunk));
    }
  }

  /** The entry of the child with `chunk` in the node of `level` that `entry` names. */
  private child(entry: NodeEntry, level: number, first: number, chunk: number): { entry: NodeEntry; first: number } {
    const span = fanOut ** level;
    const count = Math.min(fanOut, Math.ceil((this.chunkCount - first) / span));
    let node = this.nodes.get(entry.at);
    if (!node || node.length !== count * entryLength) {
      node = readNode(this.file, this.trailer.id, entry, level, first, count);
      this.nodes.set(entry.at, node);
    }
    const index = Math.floor((chunk - first) / span);
    return { entry: unpackEntry(node, index * entryLength), first: first + index * span };
  }

  /** The digests of a leaf's stored chunks, in order, 32 bytes each; empty where nothing is stored. */
  digests(leaf: Leaf, firstChunk: number): Buffer {
    return leaf.stored === 0 ? Buffer.alloc(0) : readDigests(this.file, this.trailer.id, leaf, firstChunk);
  }

  /** Bytes of chunk `chunk`: the chunk size, but for the disk's last. */
  lengthOf(chunk: number): number {
    return Math.min(this.chunkSize, this.size - chunk * this.chunkSize);
  }

  /**
   * The frame of a stored chunk as it is in the file, after its bytes were unpacked to `scratch` (of the chunk's length) and
   * compared with `digest`. It is gone when the next chunk is unpacked.
   * @throws ImageError `corrupt` when it is damaged
   */
  checkedFrame(chunk: number, digest: Uint8Array, scratch: Uint8Array): Uint8Array {
    const length = this.unpack(chunk, scratch);
    if (!sha256(scratch).equals(digest)) throw this.changed(chunk);
    return this.frame.subarray(0, length);
  }

  private changed(chunk: number): ImageError {
    return corrupt(
      `${this.name}: chunk ${chunk} does not match its digest: disk bytes ${this.rangeOf(chunk)} were changed. Restore the file from another copy.`,
    );
  }

  isStored(chunk: number): boolean {
    const spot = this.spot(chunk);
    return spot.kind === "leaf" && spot.leaf.kinds[chunk - spot.firstChunk] === ChunkKind.stored;
  }

  /** @returns the length of the chunk's frame, which is left in `this.frame` */
  unpack(chunk: number, target: Uint8Array): number {
    const spot = this.spot(chunk);
    const index = spot.kind === "leaf" ? chunk - spot.firstChunk : 0;
    if (spot.kind !== "leaf" || spot.leaf.kinds[index] !== ChunkKind.stored)
      throw new Error(`chunk ${chunk} is not stored`);
    const position = spot.leaf.positions[index]!;
    const length = spot.leaf.lengths[index]!;
    let problem: string;
    if (length > this.frame.length) problem = `its frame of ${length} bytes is impossibly long`;
    else {
      const frame = this.frame.subarray(0, length);
      if (readFully(this.file, position, frame) < length) problem = "the file ends within it";
      else {
        try {
          const got = this.decompressor.decompress(target, frame);
          if (got === target.length) return length;
          problem = `it unpacks to ${got} bytes instead of ${target.length}`;
        } catch (error) {
          problem = `it does not unpack (${(error as Error).message})`;
        }
      }
    }
    throw corrupt(
      `${this.name}: chunk ${chunk} at byte ${position} is damaged, ${problem}: disk bytes ${this.rangeOf(chunk)} are lost here. Restore the file from another copy; spindle verify lists all damage.`,
    );
  }

  /** First and last disk byte of a chunk, in words. */
  private rangeOf(chunk: number): string {
    const start = chunk * this.chunkSize;
    return `${start} to ${start + this.lengthOf(chunk) - 1}`;
  }

  private endOf(chunk: number): number {
    return Math.min(chunk * this.trailer.chunkSize, this.trailer.size);
  }

  /**
   * Checks the chunks of one leaf against their digests, or passes all leaves for which one index entry speaks; of a full
   * image also what zstd -d meets behind the leaf's chunks, up to those of the next leaf.
   */
  private check(piece: number): PieceReport {
    const firstChunk = piece * fanOut;
    const damages: Damage[] = [];
    const report = (chunk: number, end: number, message: string) =>
      damages.push({
        file: this.name,
        position: chunk * this.chunkSize,
        length: this.endOf(end) - chunk * this.chunkSize,
        message,
      });
    const passing = (endChunk: number) => ({
      chunks: 0,
      bytes: 0,
      damages,
      pieces: Math.ceil(endChunk / fanOut) - piece,
    });
    if (!this.trailer.differential)
      this.stream ??= new StreamCheck({
        file: this.file,
        size: this.size,
        chunkSize: this.chunkSize,
        spot: (chunk) => this.spot(chunk),
      });
    const reportFault = (fault: StreamFault | undefined) =>
      fault &&
      report(
        fault.firstChunk,
        fault.endChunk,
        `${this.name}: ${fault.what}: Spindle reads the disk all the same, but zstd -d would not give it. Restore the file from another copy, or make a new image of this one.`,
      );
    if (piece === 0) reportFault(this.stream?.gap(0, 0));
    let spot: Spot;
    try {
      spot = this.spot(firstChunk);
    } catch (error) {
      report(firstChunk, this.reach, inWords(error));
      return passing(this.reach);
    }
    if (spot.kind !== "leaf") return passing(spot.endChunk);
    const { leaf } = spot;
    let digests: Buffer | undefined;
    try {
      digests = this.digests(leaf, firstChunk);
    } catch (error) {
      // Without digests the frames' own checksums are still checked below.
      report(firstChunk, firstChunk + leaf.count, inWords(error));
    }
    const buffer = Buffer.allocUnsafe(this.chunkSize);
    let nth = 0;
    let bytes = 0;
    /** Damaged chunks that follow each other are one damage, so that a file lost as a whole isn't told in millions. */
    let run: { chunk: number; end: number; message: string } | undefined;
    const endRun = () => {
      if (!run) return;
      const others = run.end - run.chunk - 1;
      const more = others === 0 ? "" : ` So ${others === 1 ? "is the chunk" : `are the ${others} chunks`} behind it.`;
      report(run.chunk, run.end, run.message + more);
      run = undefined;
    };
    for (let i = 0; i < leaf.count; i++) {
      if (leaf.kinds[i] !== ChunkKind.stored) continue;
      const chunk = firstChunk + i;
      const target = buffer.subarray(0, this.lengthOf(chunk));
      const digest = digests?.subarray(nth * digestLength, ++nth * digestLength);
      bytes += target.length;
      try {
        this.unpack(chunk, target);
        if (digest && !sha256(target).equals(digest)) throw this.changed(chunk);
      } catch (error) {
        if (run?.end !== chunk) endRun();
        if (run) run.end++;
        else run = { chunk, end: chunk + 1, message: inWords(error) };
      }
    }
    endRun();
    if (this.stream) {
      this.stream.zerosOf(leaf, firstChunk).forEach(reportFault);
      const last = leaf.count - 1;
      reportFault(this.stream.gap(leaf.positions[last]! + leaf.lengths[last]!, firstChunk + leaf.count));
    }
    return { chunks: leaf.stored, bytes, damages };
  }

  private describeBase(base: NonNullable<Trailer["base"]>): ParentReference {
    const recorded = (this.metadata.base as { path?: unknown } | undefined)?.path;
    const path = typeof recorded === "string" ? recorded : undefined;
    if (path === undefined || path === "" || path.includes("\0"))
      throw corrupt(`${this.name}: is a differential whose metadata names no base. The file is damaged.`);
    const fileName = path.slice(path.lastIndexOf("/") + 1);
    return {
      paths: fileName === path ? [path] : [path, fileName],
      description: `${path} (id ${base.id.toString("hex")}, content root ${base.contentRoot.toString("hex").slice(0, 16)}…)`,
      check: (candidate) => this.checkBase(base, candidate),
    };
  }

  private checkBase(base: NonNullable<Trailer["base"]>, candidate: Layer): void {
    const remedy = "Put the right file back, or name it with --parent PATH; nothing is served from a wrong base.";
    if (!(candidate instanceof SpinLayer))
      throw mismatch(
        `${this.name}: its base should be ${base.id.toString("hex")}, but ${candidate.name} is not a .spin image (${candidate.format}). ${remedy}`,
      );
    if (candidate.trailer.contentRoot.equals(base.contentRoot)) return;
    const sameId = candidate.trailer.id.equals(base.id);
    const what = sameId
      ? `has the recorded id but other content (content root ${short(candidate.trailer.contentRoot)}, recorded ${short(base.contentRoot)}): it was changed after the differential was made`
      : `is another image (id ${candidate.trailer.id.toString("hex")}, recorded ${base.id.toString("hex")}; content root ${short(candidate.trailer.contentRoot)}, recorded ${short(base.contentRoot)}${candidate.size === base.size ? "" : `; ${candidate.size} bytes, recorded ${base.size}`})`;
    throw mismatch(`${this.name}: ${candidate.name} is not the base it was made from: it ${what}. ${remedy}`);
  }
}

/** The members of the metadata that the format defines (§7), where they are of their kind: the file may hold anything. */
function knownMetadata(metadata: Record<string, unknown>): Record<string, unknown> {
  const pick = (from: unknown, kind: "string" | "number", names: readonly string[]) =>
    Object.entries(typeof from === "object" && from !== null ? from : {}).filter(
      ([name, value]) => names.includes(name) && typeof value === kind,
    );
  const part = (name: string, names: readonly string[]) => {
    const found = pick(metadata[name], "string", names);
    return found.length > 0 ? { [name]: Object.fromEntries(found) } : {};
  };
  return {
    ...part("source", ["path", "kind", "model", "serial"]),
    ...Object.fromEntries(pick(metadata, "number", ["logicalSectorSize", "physicalSectorSize", "level"])),
    ...Object.fromEntries(pick(metadata, "string", ["created", "tool", "label", "comment"])),
    ...part("base", ["path"]),
  };
}

const inWords = (error: unknown) => (error instanceof Error ? error.message : String(error));

const short = (hash: Buffer) => `${hash.toString("hex").slice(0, 16)}…`;
