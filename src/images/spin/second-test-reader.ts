/**
 * A second reader of .spin files for the tests, written from FORMAT.md alone: it shares no line with the first, reads the
 * whole index at once, and fails on anything that the specification doesn't allow a writer to write.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import binding from "zstd-napi/binding.js";

export type Chunk =
  | { kind: "absent" }
  | { kind: "zero" }
  | { kind: "stored"; at: number; length: number; digest: Buffer };

export interface SecondView {
  readonly size: number;
  readonly chunkSize: number;
  readonly differential: boolean;
  readonly id: Buffer;
  readonly contentRoot: Buffer;
  readonly base: { id: Buffer; contentRoot: Buffer; size: number };
  readonly metadata: Record<string, unknown>;
  readonly chunks: readonly Chunk[];
  /** Chunks that aren't zero on the whole disk, as the root tells. */
  readonly data: number;
  /** The bytes of a chunk that isn't absent. */
  bytes(chunk: number): Buffer;
}

const u64 = (bytes: Buffer, at: number) => Number(bytes.readBigUInt64LE(at));
const zeroed = (bytes: Buffer, from: number, to: number) =>
  assert.ok(
    bytes.subarray(from, to).every((byte) => byte === 0),
    `bytes ${from} to ${to} are 0`,
  );

export function readSecondly(file: Buffer): SecondView {
  const page = (at: number, length: number, type: string, id?: Buffer) => {
    assert.equal(file.readUInt32LE(at - 8), 0x184d2a5d, `${type}: magic number`);
    assert.equal(file.readUInt32LE(at - 4), length, `${type}: length of the frame`);
    const payload = file.subarray(at, at + length);
    assert.equal(payload.toString("latin1", 0, 4), type);
    assert.equal(
      payload.readUInt32LE(4),
      crc32(Buffer.concat([id ?? Buffer.alloc(0), payload.subarray(8)])),
      `${type}: CRC`,
    );
    return payload;
  };
  const signature = "SPINDLE\x1a";

  const header = page(8, 48, "SPHD");
  assert.equal(header.toString("latin1", 8, 16), signature);
  assert.equal(header.readUInt16LE(16), 1);
  const flags = header.readUInt32LE(20);
  const chunkSize = header.readUInt32LE(24);
  zeroed(header, 28, 32);
  const id = header.subarray(32, 48);

  const trailer = page(file.length - 240, 240, "SPTR", id);
  assert.equal(trailer.toString("latin1", 8, 16), signature);
  assert.deepEqual(trailer.subarray(16, 32), id);
  assert.equal(u64(trailer, 32), file.length);
  const size = u64(trailer, 40);
  assert.equal(trailer.readUInt32LE(48), chunkSize);
  assert.equal(trailer.readUInt32LE(52), flags);
  zeroed(trailer, 124, 128);
  zeroed(trailer, 140, 144);
  zeroed(trailer, 216, 240);
  if (flags === 0) zeroed(trailer, 160, 216);

  const metadata = page(u64(trailer, 128), trailer.readUInt32LE(136), "SPMD", id);
  const count = Math.ceil(size / chunkSize);
  const chunks: Chunk[] = [];

  /** Walks what an entry covers; returns its stored chunks. */
  const walk = (entry: Buffer, level: number, first: number): number => {
    const covered = Math.min(1024 ** (level + 1), count - first);
    const at = u64(entry, 0);
    const length = entry.readUInt32LE(8);
    const kind = entry.readUInt32LE(12);
    zeroed(entry, 28, 32);
    if (kind !== 2) {
      assert.ok(kind === 1 || flags === 1, "nothing is absent in a full image");
      assert.equal(at, 0);
      assert.equal(length, 0);
      if (kind === 1) zeroed(entry, 16, 24);
      for (let i = 0; i < covered; i++) chunks.push({ kind: kind === 0 ? "absent" : "zero" });
      return 0;
    }
    if (level === 0) return leaf(at, length, first, covered, entry.readUInt32LE(24));
    zeroed(entry, 24, 28);
    const node = page(at, length, "SPND", id);
    assert.equal(u64(node, 8), first);
    assert.equal(node.readUInt32LE(16), level);
    const span = 1024 ** level;
    assert.equal(node.readUInt32LE(20), Math.ceil(covered / span));
    assert.equal(length, 24 + 32 * Math.ceil(covered / span));
    let data = 0;
    let stored = 0;
    for (let i = 0; i * span < covered; i++) {
      const child = node.subarray(24 + 32 * i, 56 + 32 * i);
      data += u64(child, 16);
      stored += walk(child, level - 1, first + i * span);
    }
    assert.equal(data, u64(entry, 16), "data chunks of a node are those of its children");
    return stored;
  };

  const leaf = (at: number, length: number, first: number, covered: number, toldStored: number): number => {
    const bytes = page(at, length, "SPLF", id);
    assert.equal(u64(bytes, 8), first);
    assert.equal(bytes.readUInt32LE(24), covered);
    assert.equal(length, 32 + 4 * covered);
    const stored = bytes.readUInt32LE(28);
    assert.equal(stored, toldStored);
    const digests = stored > 0 ? page(at + length + 8, 24 + 32 * stored, "SPDG", id) : Buffer.alloc(24);
    if (stored > 0) {
      assert.equal(u64(digests, 8), first);
      assert.equal(digests.readUInt32LE(16), stored);
      zeroed(digests, 20, 24);
    }
    let position = u64(bytes, 16);
    let nth = 0;
    for (let i = 0; i < covered; i++) {
      const word = bytes.readUInt32LE(32 + 4 * i);
      const [kind, taken] = [word >>> 30, word & 0x3fffffff];
      if (kind === 2) {
        assert.ok(taken <= chunkSize + chunkSize / 256 + 128);
        chunks.push({
          kind: "stored",
          at: position,
          length: taken,
          digest: digests.subarray(24 + 32 * nth, 56 + 32 * nth),
        });
        nth++;
      } else {
        const before = chunks.length > first ? chunks.at(-1)!.kind : "";
        const beginsRun = kind === 1 && flags === 0 && before !== "zero";
        assert.equal(taken > 0, beginsRun, "only the first zero chunk of a run in a full image takes bytes");
        assert.ok(kind === 1 || (kind === 0 && flags === 1));
        chunks.push({ kind: kind === 0 ? "absent" : "zero" });
      }
      position += taken;
    }
    assert.equal(nth, stored);
    assert.equal(position, at - 8, "the leaf page follows its chunks' frames");
    return stored;
  };

  let levels = 0;
  if (count > 0) {
    levels = 1;
    while (1024 ** (levels + 1) < count) levels++;
    assert.equal(walk(trailer.subarray(88, 120), levels, 0), u64(trailer, 144));
  } else zeroed(trailer, 88, 120);
  assert.equal(trailer.readUInt32LE(120), levels);
  assert.equal(chunks.length, count);
  const frames = chunks.reduce((sum, chunk) => sum + (chunk.kind === "stored" ? chunk.length : 0), 0);
  assert.equal(frames, u64(trailer, 152));

  const decompressor = new binding.DCtx();
  return {
    size,
    chunkSize,
    differential: flags === 1,
    id,
    contentRoot: trailer.subarray(56, 88),
    base: { id: trailer.subarray(160, 176), contentRoot: trailer.subarray(176, 208), size: u64(trailer, 208) },
    metadata: JSON.parse(metadata.toString("utf8", 8)) as Record<string, unknown>,
    chunks,
    data: u64(trailer, 104),
    bytes(number) {
      const chunk = chunks[number]!;
      const bytes = Buffer.alloc(Math.min(chunkSize, size - number * chunkSize));
      if (chunk.kind === "stored") {
        assert.equal(decompressor.decompress(bytes, file.subarray(chunk.at, chunk.at + chunk.length)), bytes.length);
        assert.deepEqual(createHash("sha256").update(bytes).digest(), chunk.digest);
      } else assert.equal(chunk.kind, "zero");
      return bytes;
    },
  };
}

/** The disk of a chain, newest first, chunk by chunk (§3). */
export function composed(views: readonly SecondView[]): Buffer {
  const [top] = views;
  const { size, chunkSize } = top!;
  const parts: Buffer[] = [];
  for (let chunk = 0; chunk * chunkSize < size; chunk++) {
    const length = Math.min(chunkSize, size - chunk * chunkSize);
    let bytes = Buffer.alloc(length);
    for (const view of views) {
      const kind = view.chunks[chunk]?.kind;
      if (kind === undefined) break;
      if (kind === "absent") continue;
      bytes = Buffer.concat([view.bytes(chunk), Buffer.alloc(chunkSize)]).subarray(0, length);
      break;
    }
    parts.push(bytes);
  }
  return Buffer.concat(parts);
}

/** The content root (§9) from the bytes of the disk. `chunks` gives them, so that a large disk needs no memory. */
export function contentRootOf(size: number, chunkSize: number, digest: (chunk: number) => Buffer): Buffer {
  const H = (...parts: Buffer[]) => createHash("sha256").update(Buffer.concat(parts)).digest();
  let hashes: Buffer[] = [];
  const count = Math.ceil(size / chunkSize);
  for (let first = 0; first < count; first += 1024) {
    const digests = Array.from({ length: Math.min(1024, count - first) }, (_, i) => digest(first + i));
    hashes.push(H(Buffer.from([0]), ...digests));
  }
  for (let level = 1; count > 0 && (level === 1 || hashes.length > 1); level++) {
    const next: Buffer[] = [];
    for (let i = 0; i < hashes.length; i += 1024) next.push(H(Buffer.from([1]), ...hashes.slice(i, i + 1024)));
    hashes = next;
  }
  const numbers = Buffer.alloc(12);
  numbers.writeBigUInt64LE(BigInt(size), 0);
  numbers.writeUInt32LE(chunkSize, 8);
  return H(Buffer.from("spindle content root 1"), numbers, hashes[0] ?? Buffer.alloc(32));
}

/** The same from a disk in memory. */
export const contentRootOfBytes = (disk: Buffer, chunkSize: number) =>
  contentRootOf(disk.length, chunkSize, (chunk) =>
    createHash("sha256")
      .update(disk.subarray(chunk * chunkSize, (chunk + 1) * chunkSize))
      .digest(),
  );
