/** Reads, hashes and compresses one job of a new image: see create.ts. */
import { hash } from "node:crypto";
import binding from "zstd-napi/binding.js";
import { readFully } from "../bytes/byte-source.js";
import { LocalChunkCache } from "../bytes/local-cache.js";
import { type LayersData, reopenLayers } from "../chain.js";
import { ImageError } from "../errors.js";
import { ChainDigests } from "../images/spin/chain-digests.js";
import { ZeroDigests } from "../images/spin/content-root.js";
import { digestLength, fanOut } from "../images/spin/pages.js";
import { SpinLayer } from "../images/spin/reader.js";
import { BatchKind } from "../images/spin/writer.js";
import type { Disk } from "../layers/disk.js";
import { leftToBase } from "./left-to-base.js";
import { serveJobs } from "./pool.js";

export interface CreateInit {
  /** The source, or undefined for a stream, whose bytes come in `input`. */
  readonly source: LayersData | undefined;
  readonly base: LayersData | undefined;
  /** Whether the source is a chain of .spin images of this chunk size, whose frames are taken as they are. */
  readonly copies: boolean;
  /** Layers of the source that lie above the base: what they leave absent isn't read. */
  readonly above: number;
  readonly chunkSize: number;
  readonly level: number;
  /** Frames are left here, `outputSlot` bytes a slot. */
  readonly output: SharedArrayBuffer;
  readonly outputSlot: number;
  readonly input: SharedArrayBuffer | undefined;
  readonly inputSlot: number;
}

export interface CreateJob {
  readonly slot: number;
  readonly position: number;
  /** More than fits a slot only where nothing of it has to be read. */
  readonly length: number;
}

export interface CreateResult {
  readonly kinds: Uint8Array;
  readonly lengths: Uint32Array;
  readonly digests: Uint8Array;
}

serveJobs<CreateInit, CreateJob, CreateResult>((init) => {
  const { chunkSize } = init;
  const source = init.source && reopenLayers(init.source, new LocalChunkCache(chunkSize * 4));
  const disk = source?.disk;
  const above = source?.layers.slice(0, init.above) ?? [];
  const base = init.base && comparison(init.base);
  const frames = init.source && init.copies ? spinChain(init.source) : undefined;
  const compressor = new binding.CCtx();
  compressor.setParameter(binding.CParameter.compressionLevel, init.level);
  compressor.setParameter(binding.CParameter.checksumFlag, 1);
  const zeros = Buffer.alloc(chunkSize);
  const zeroDigest = new ZeroDigests(chunkSize).chunk;
  const own = disk && Buffer.allocUnsafe(init.inputSlot);

  /** Takes the chunks of a job from their files: unpacked to be checked, and not packed again. */
  const copy = (chain: ChainDigests, { slot, position, length }: CreateJob): CreateResult => {
    const result = emptyResult(Math.ceil(length / chunkSize));
    let at = slot * init.outputSlot;
    for (let i = 0; i < result.kinds.length; i++) {
      const chunk = position / chunkSize + i;
      const chunkLength = Math.min(chunkSize, length - i * chunkSize);
      const leaf = chain.leaf(Math.floor(chunk / fanOut));
      const digest = leaf.digests.subarray((chunk % fanOut) * digestLength, ((chunk % fanOut) + 1) * digestLength);
      const zero = digest.equals(chunkLength === chunkSize ? zeroDigest : ZeroDigests.of(chunkLength));
      result.digests.set(digest, i * digestLength);
      if (base?.same(chunk, digest)) result.kinds[i] = zero ? BatchKind.sameZero : BatchKind.sameData;
      else if (zero) result.kinds[i] = BatchKind.zero;
      else {
        const frame = chain.storedIn(chunk)!.checkedFrame(chunk, digest, own!.subarray(0, chunkLength));
        result.kinds[i] = BatchKind.stored;
        result.lengths[i] = frame.length;
        new Uint8Array(init.output, at, frame.length).set(frame);
        at += frame.length;
      }
    }
    return result;
  };

  return (job) => {
    if (frames) return copy(frames, job);
    const { slot, position, length } = job;
    const count = Math.ceil(length / chunkSize);
    const { kinds, lengths, digests } = emptyResult(count);
    const left = new Uint8Array(count);
    if (base && above.length > 0)
      for (let i = 0; i < count; i++) {
        const start = position + i * chunkSize;
        const end = Math.min(position + length, start + chunkSize);
        if (leftToBase(above, start, end) < end - start) continue;
        left[i] = 1;
        const { digest, zero } = base.chunk(start / chunkSize);
        digests.set(digest, i * digestLength);
        kinds[i] = zero ? BatchKind.sameZero : BatchKind.sameData;
      }
    const input = own
      ? own.subarray(0, length)
      : Buffer.from(init.input as SharedArrayBuffer, slot * init.inputSlot, length);
    if (disk) readTouched(disk, position, length, input, left);
    let at = slot * init.outputSlot;
    for (let i = 0; i < count; i++) {
      if (left[i] === 1) continue;
      const chunk = input.subarray(i * chunkSize, Math.min(length, (i + 1) * chunkSize));
      const zero = zeros.compare(chunk, 0, chunk.length, 0, chunk.length) === 0;
      const digest = !zero
        ? hash("sha256", chunk, "buffer")
        : chunk.length === chunkSize
          ? zeroDigest
          : ZeroDigests.of(chunk.length);
      digests.set(digest, i * digestLength);
      if (base?.same(position / chunkSize + i, digest)) kinds[i] = zero ? BatchKind.sameZero : BatchKind.sameData;
      else if (zero) kinds[i] = BatchKind.zero;
      else {
        kinds[i] = BatchKind.stored;
        const room = new Uint8Array(init.output, at, (slot + 1) * init.outputSlot - at);
        lengths[i] = compressor.compress2(room, chunk);
        at += lengths[i]!;
      }
    }
    return { kinds, lengths, digests };
  };

  /** Fills `input` with the disk's bytes but those of the chunks that are `left`. */
  function readTouched(disk: Disk, position: number, length: number, input: Buffer, left: Uint8Array): void {
    for (let first = 0; first < left.length; first++) {
      if (left[first] === 1) continue;
      let end = first;
      while (end < left.length && left[end] === 0) end++;
      const from = first * chunkSize;
      const target = input.subarray(from, Math.min(length, end * chunkSize));
      disk.willRead?.(position + from, target.length);
      const got = readFully(disk, position + from, target);
      if (got < target.length)
        throw new ImageError(
          "system",
          `${disk.name}: ended at byte ${position + from + got}, but was ${disk.size} bytes long at the start: it shrank while it was read. No image was made; try again when it is at rest.`,
        );
      first = end;
    }
  }
});

const emptyResult = (count: number): CreateResult => ({
  kinds: new Uint8Array(count),
  lengths: new Uint32Array(count),
  digests: new Uint8Array(count * digestLength),
});

/** A chain of which is known that all its layers are .spin images. */
function spinChain(data: LayersData): ChainDigests {
  const { layers } = reopenLayers(data, new LocalChunkCache(0));
  return new ChainDigests(layers.filter((layer) => layer instanceof SpinLayer));
}

/** Compares chunks with those of a base by digest. */
function comparison(data: LayersData) {
  const chain = spinChain(data);
  const chunks = Math.ceil(chain.size / chain.chunkSize);
  return {
    same(chunk: number, digest: Uint8Array): boolean {
      if (chunk >= chunks) return false;
      const { digests } = chain.leaf(Math.floor(chunk / fanOut));
      const at = (chunk % fanOut) * digestLength;
      return digests.compare(digest, 0, digestLength, at, at + digestLength) === 0;
    },
    /** What the base has there. */
    chunk(chunk: number): { digest: Uint8Array; zero: boolean } {
      const { digests, zero } = chain.leaf(Math.floor(chunk / fanOut));
      const at = (chunk % fanOut) * digestLength;
      return { digest: digests.subarray(at, at + digestLength), zero: zero[chunk % fanOut] === 1 };
    },
  };
}
