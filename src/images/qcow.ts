import { type ByteSource, readExactly, readFully } from "../bytes/byte-source.js";
import type { PackedChunks } from "../bytes/chunk-cache.js";
import { unpackDeflate } from "../bytes/deflate.js";
import { MetadataPages } from "../bytes/metadata-pages.js";
import { cipherSector, type SectorCipher } from "../bytes/sector-cipher.js";
import { corrupt, ImageError, unsupported } from "../errors.js";
import type { Format, Surroundings } from "../format.js";
import type { Integrity, Layer, ParentReference, Run } from "../layers/layer.js";
import { type BlockEntry, BlockKind, BlockMap, type BlockTable } from "./block-map.js";
import { largestDisk, tablePage, u64be } from "./fields.js";
import { FirstLevel } from "./first-level.js";
import { mapIntegrity, type ReservedPlace } from "./map-check.js";
import { backingReference } from "./qemu-backing.js";
import { oldQemuAes, oldQemuAesInWords } from "./qemu-old-aes.js";

/**
 * The first qcow, as block/qcow.c of QEMU has it: two levels of tables, whose second may be larger or smaller than a
 * cluster; an entry with bit 63 tells a cluster of raw deflate by its byte and its exact length.
 */
export const qcow: Format<Layer> = {
  name: "qcow",
  recognises(source) {
    const head = Buffer.alloc(8);
    return readFully(source, 0, head) === 8 && head.readUInt32BE(0) === 0x514649fb && head.readUInt32BE(4) === 1;
  },
  open: (source, around) => new QcowLayer(source, around),
};

class QcowLayer implements Layer, PackedChunks, BlockTable {
  readonly format = "qcow";
  readonly noun = "cluster";
  readonly size: number;
  readonly blockSize: number;
  readonly chunkSize: number;
  readonly parent: ParentReference | undefined;
  readonly facts: Record<string, unknown>;
  readonly unpacked: ByteSource;
  readonly integrity: Integrity;
  private readonly clusterBits: number;
  private readonly tableEntries: number;
  private readonly pages: MetadataPages;
  private readonly first: FirstLevel;
  private readonly map: BlockMap;
  /** Encrypted clusters are decrypted whole, as others are unpacked. */
  private readonly aes: SectorCipher | undefined;
  private whole = Buffer.alloc(0);

  constructor(
    readonly source: ByteSource,
    around: Surroundings,
  ) {
    const { name } = source;
    const header = readExactly(source, 0, 48, "the qcow header");
    const version = header.readUInt32BE(4);
    if (version !== 1) throw unsupported(`${name}: is a qcow image of version ${version}, not 1.`);
    this.size = u64be(header, 24);
    this.clusterBits = header.readUInt8(32);
    const tableBits = header.readUInt8(33);
    if (this.clusterBits < 9 || this.clusterBits > 16)
      throw corrupt(`${name}: byte 32 tells clusters of 2^${this.clusterBits} bytes. The header is damaged.`);
    if (tableBits < 6 || tableBits > 13)
      throw corrupt(`${name}: byte 33 tells tables of 2^${tableBits} entries. The header is damaged.`);
    if (this.size > largestDisk) throw corrupt(`${name}: byte 24 tells a disk of ${this.size} bytes.`);
    const method = header.readUInt32BE(36);
    if (method > 1) throw unsupported(`${name}: is encrypted inside qcow by an unknown method, number ${method}.`);
    if (method === 1) this.aes = oldQemuAes(name, around);
    this.blockSize = 2 ** this.clusterBits;
    this.chunkSize = this.blockSize;
    this.tableEntries = 2 ** tableBits;
    const backing = readBacking(source, u64be(header, 8), header.readUInt32BE(16));
    this.parent = backing === undefined ? undefined : backingReference(name, backing, undefined);
    this.pages = new MetadataPages(source, tablePage.size, tablePage.kept);
    const tables = Math.ceil(this.size / (this.blockSize * this.tableEntries));
    this.first = new FirstLevel(this.pages, u64be(header, 40), tables, (bytes) => u64be(bytes, 0));
    this.unpacked = around.cache.source(this);
    this.map = new BlockMap(this);
    const { first, size, tableEntries, blockSize } = this;
    const reserved = function* (): Iterable<ReservedPlace> {
      yield { position: 0, length: 48, what: "the header" };
      yield { position: u64be(header, 40), length: tables * 8, what: "the first-level table" };
      yield* first.tables(tableEntries * 8, tableEntries * blockSize, size);
    };
    this.integrity = mapIntegrity({
      name,
      size,
      blockSize,
      source,
      unpacked: this.unpacked,
      packed: this,
      locate: (position) => this.locate(position),
      reserved,
    });
    this.facts = {
      version: 1,
      clusterSize: this.blockSize,
      compression: "zlib",
      ...(this.aes && { encryption: oldQemuAesInWords }),
      ...(backing !== undefined && { backingFile: backing }),
    };
  }

  get name(): string {
    return this.source.name;
  }

  get hasParent(): boolean {
    return this.parent !== undefined;
  }

  locate(position: number): Run {
    return this.map.locate(position);
  }

  missingFrom(block: number): number {
    const index = Math.floor(block / this.tableEntries);
    const count = this.first.missing(index);
    return count === 0 ? 0 : (index + count) * this.tableEntries - block;
  }

  entry(block: number, target: BlockEntry): void {
    const entry = this.entryOf(block);
    if (entry === 0n) return;
    if (entry >> 63n) {
      this.packedAt(block, entry); // where it leads nowhere, that is said now
      target.kind = BlockKind.packed;
    } else {
      target.kind = this.aes ? BlockKind.packed : BlockKind.stored;
      target.position = Number(entry);
    }
  }

  isStored(chunk: number): boolean {
    return this.entryOf(chunk) >> 63n !== 0n;
  }

  unpack(chunk: number, target: Uint8Array): void {
    const entry = this.entryOf(chunk);
    let whole = target;
    if (target.length < this.blockSize) {
      if (this.whole.length === 0) this.whole = Buffer.allocUnsafeSlow(this.blockSize);
      whole = this.whole;
    }
    if (entry >> 63n) this.unpackPacked(chunk, entry, whole);
    else if (entry !== 0n && this.aes) this.decrypt(chunk, Number(entry), this.aes, whole);
    else throw corrupt(`${this.name}: cluster ${chunk} was packed when its table was read and isn't now.`);
    if (whole !== target) target.set(whole.subarray(0, target.length));
  }

  private unpackPacked(chunk: number, entry: bigint, whole: Uint8Array): void {
    const { position, length } = this.packedAt(chunk, entry);
    const packed = readExactly(this.source, position, length, `packed cluster ${chunk}`);
    try {
      unpackDeflate(packed, whole);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      throw this.damaged(chunk, `at byte ${position} ${error.message}`);
    }
  }

  private decrypt(chunk: number, position: number, aes: SectorCipher, whole: Uint8Array): void {
    const got = readFully(this.source, position, whole);
    // The last cluster of a file may end where the disk does.
    if (got < Math.min(whole.length, this.size - chunk * this.blockSize))
      throw this.damaged(
        chunk,
        `it should be at byte ${position}, but the file has ${this.source.size} bytes; it is truncated`,
      );
    aes.decrypt(whole, (chunk * this.blockSize) / cipherSector);
  }

  private entryOf(cluster: number): bigint {
    const index = Math.floor(cluster / this.tableEntries);
    const table = this.first.at(index);
    if (table === 0) return 0n;
    const at = table + (cluster - index * this.tableEntries) * 8;
    if (at + 8 > this.source.size)
      throw this.damaged(
        cluster,
        `its table should be at byte ${table}, but the file has ${this.source.size} bytes; it is truncated`,
      );
    return this.pages.bytes(at, 8, "a second-level table").readBigUInt64BE(0);
  }

  /** Where the packed bytes of `cluster` are: the byte in the low bits, the length in those above, as many as a cluster's. */
  private packedAt(cluster: number, entry: bigint): { position: number; length: number } {
    const bits = BigInt(63 - this.clusterBits);
    const position = Number(entry & ((1n << bits) - 1n));
    const length = Number((entry >> bits) & BigInt(this.blockSize - 1));
    if (position + length > this.source.size)
      throw this.damaged(
        cluster,
        `its ${length} bytes should be at byte ${position}, but the file has ${this.source.size} bytes; it is truncated`,
      );
    return { position, length };
  }

  private damaged(cluster: number, what: string): ImageError {
    const start = cluster * this.blockSize;
    const end = Math.min(start + this.blockSize, this.size) - 1;
    return corrupt(
      `${this.name}: cluster ${cluster} (disk bytes ${start} to ${end}) is damaged: ${what}. Restore the file from another copy.`,
    );
  }
}

function readBacking(file: ByteSource, position: number, length: number): string | undefined {
  if (position === 0 || length === 0) return undefined;
  if (length > 1023)
    throw corrupt(`${file.name}: its parent's name takes ${length} bytes; 1023 are possible. The header is damaged.`);
  const path = readExactly(file, position, length, "its parent's name").toString("utf8");
  if (path.includes("\0")) throw corrupt(`${file.name}: its parent's name at byte ${position} has a zero byte in it.`);
  return path;
}
