/** Small .spin images in memory, made by the writer from bytes, for the tests of this folder. */
import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import binding from "zstd-napi/binding.js";
import { LocalChunkCache } from "../../bytes/local-cache.js";
import { MemorySource } from "../../bytes/memory.js";
import { LayeredDisk } from "../../layers/disk.js";
import { ChainDigests } from "./chain-digests.js";
import { digestLength, fanOut } from "./pages.js";
import { type SpinLayer, spin } from "./reader.js";
import { BatchKind, SpinWriter } from "./writer.js";

export const KiB = 1024;
export const smallest = 16 * KiB;

/** A disk by one letter a chunk: `.` is zeros, any other letter stands for bytes of its own. */
export function diskOf(letters: string, chunkSize = smallest, lastLength = chunkSize): Buffer {
  const chunks = [...letters].map((letter) => chunkOf(letter, chunkSize));
  const last = chunks.pop();
  return Buffer.concat(last ? [...chunks, last.subarray(0, lastLength)] : []);
}

/** Bytes that differ from place to place and from letter to letter, and yet are small when packed. */
export function chunkOf(letter: string, chunkSize = smallest): Buffer {
  if (letter === ".") return Buffer.alloc(chunkSize);
  const bytes = Buffer.alloc(chunkSize, letter);
  for (let at = 0; at < chunkSize; at += 512) bytes.writeUInt32LE((letter.charCodeAt(0) << 16) | (at / 512), at);
  return bytes;
}

export interface ImageOptions {
  readonly chunkSize?: number;
  /** The layers beneath, newest first. */
  readonly base?: readonly SpinLayer[];
  readonly basePath?: string;
  readonly id?: Buffer;
  readonly metadata?: Record<string, unknown>;
  /** Chunks that are handed to the writer at once. */
  readonly batch?: number;
}

/** The .spin file of a disk. */
export function imageOf(disk: Uint8Array, options: ImageOptions = {}): Buffer {
  const { chunkSize = smallest, base, batch = 5, id = randomBytes(16) } = options;
  const parts: Buffer[] = [];
  const top = base?.[0]?.trailer;
  const writer = new SpinWriter((bytes) => parts.push(Buffer.from(bytes)), id, chunkSize, top);
  const digests = base && new ChainDigests(base);
  const chunks = Math.ceil(disk.length / chunkSize);
  for (let first = 0; first < chunks; first += batch) {
    const bytes = disk.subarray(first * chunkSize, (first + batch) * chunkSize);
    writer.append({ ...batchOf(bytes, chunkSize, first, digests), length: bytes.length });
  }
  const metadata = base ? { base: { path: options.basePath ?? base[0]!.name }, ...options.metadata } : options.metadata;
  writer.finish(metadata ?? {});
  return Buffer.concat(parts);
}

function batchOf(bytes: Uint8Array, chunkSize: number, first: number, base: ChainDigests | undefined) {
  const count = Math.ceil(bytes.length / chunkSize);
  const kinds = new Uint8Array(count);
  const lengths = new Uint32Array(count);
  const digests = Buffer.alloc(count * digestLength);
  const frames: Uint8Array[] = [];
  const zeros = Buffer.alloc(chunkSize);
  for (let i = 0; i < count; i++) {
    const chunk = bytes.subarray(i * chunkSize, (i + 1) * chunkSize);
    const digest = createHash("sha256").update(chunk).digest();
    digest.copy(digests, i * digestLength);
    const zero = zeros.compare(chunk, 0, chunk.length, 0, chunk.length) === 0;
    if (base && (first + i) * chunkSize < base.size && digestOf(base, first + i).equals(digest))
      kinds[i] = zero ? BatchKind.sameZero : BatchKind.sameData;
    else if (zero) kinds[i] = BatchKind.zero;
    else {
      kinds[i] = BatchKind.stored;
      const frame = pack(chunk);
      lengths[i] = frame.length;
      frames.push(frame);
    }
  }
  return { count, kinds, lengths, digests, frames: Buffer.concat(frames) };
}

function digestOf(base: ChainDigests, chunk: number): Buffer {
  const at = (chunk % fanOut) * digestLength;
  return base.leaf(Math.floor(chunk / fanOut)).digests.subarray(at, at + digestLength);
}

const compressor = new binding.CCtx();
compressor.setParameter(binding.CParameter.checksumFlag, 1);

/** One Zstandard frame with its checksum. */
export function pack(chunk: Uint8Array): Buffer {
  const room = Buffer.alloc(chunk.length + chunk.length / 256 + 128);
  return room.subarray(0, compressor.compress2(room, chunk));
}

/** Opens the bytes of one image. */
export function layerOf(file: Uint8Array, name = "image.spin", cacheBytes = 4 * smallest): SpinLayer {
  return spin.open(new MemorySource(name, file), {
    path: name,
    cache: new LocalChunkCache(cacheBytes),
    companion: () => {
      throw new Error("a .spin file has no companions");
    },
  });
}

/** A chain from its disks, oldest first: the first becomes a full image, each other one a differential. */
export function chainOf(disks: readonly Uint8Array[], chunkSize = smallest): { layers: SpinLayer[]; files: Buffer[] } {
  let layers: SpinLayer[] = [];
  const files: Buffer[] = [];
  for (const [i, disk] of disks.entries()) {
    const file = imageOf(disk, { chunkSize, base: i === 0 ? undefined : layers });
    files.unshift(file);
    layers = [layerOf(file, `layer${i}.spin`), ...layers];
  }
  return { layers, files };
}

export const diskFrom = (layers: readonly SpinLayer[]) => new LayeredDisk(layers[0]!.name, layers);

/** Why the zstd command can't be asked; undefined where it can. */
export const zstdMissing = spawnSync("zstd", ["--version"]).error
  ? "zstd is not installed (apt install zstd)"
  : undefined;

/** What `zstd -d` makes of a file. */
export function zstdUnpacks(file: Uint8Array): Buffer {
  const { status, stdout, stderr } = spawnSync("zstd", ["-dc"], { input: file, maxBuffer: 256 * KiB * KiB });
  if (status !== 0) throw new Error(`zstd -dc: ${stderr}`);
  return stdout;
}
