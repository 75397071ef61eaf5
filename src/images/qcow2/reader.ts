/**
 * qcow2, QEMU's own container. A disk is cut into clusters; a first-level table names second-level tables, one cluster
 * each, whose 8-byte entries name the clusters' places in the file:
 *
 *     L1 ──► L2 ──► cluster             0 in L1 or L2: left to the parent, or zero where there is none
 *                   or packed cluster    at any byte, raw deflate or a zstd frame
 *                   or zero cluster
 *
 * Entries of 16 bytes ("extended") add two bits for each of the cluster's 32 subclusters: kept here, zero.
 * Reference counts serve writers and aren't looked at.
 */
import binding from "zstd-napi/binding.js";
import { type ByteSource, readFully, Slice } from "../../bytes/byte-source.js";
import type { PackedChunks } from "../../bytes/chunk-cache.js";
import { DecryptedSource } from "../../bytes/decrypted.js";
import { unpackDeflate } from "../../bytes/deflate.js";
import { Luks1Header } from "../../bytes/luks1.js";
import { MetadataPages } from "../../bytes/metadata-pages.js";
import { cipherSector, type SectorCipher } from "../../bytes/sector-cipher.js";
import { corrupt, ImageError } from "../../errors.js";
import type { Format, Surroundings } from "../../format.js";
import type { Integrity, Layer, ParentReference, Run } from "../../layers/layer.js";
import { type BlockEntry, BlockKind, BlockMap, type BlockTable } from "../block-map.js";
import { tablePage } from "../fields.js";
import { FirstLevel } from "../first-level.js";
import { mapIntegrity } from "../map-check.js";
import { backingReference } from "../qemu-backing.js";
import { oldQemuAes, oldQemuAesInWords } from "../qemu-old-aes.js";
import { checkL1, coveredByTable, type Qcow2Header, readHeader, signature } from "./header.js";
import { reservedPlaces } from "./reserved.js";
import { findSnapshot, readSnapshots, type Snapshot } from "./snapshots.js";

export const qcow2: Format<Layer> = {
  name: "qcow2",
  hasSnapshots: true,
  recognises(source) {
    const head = Buffer.alloc(8);
    return readFully(source, 0, head) === 8 && head.readUInt32BE(0) === signature && head.readUInt32BE(4) >= 2;
  },
  open: (source, around) => new Qcow2Layer(source, around),
};

/** Subclusters of a cluster with extended entries. */
const subclusters = 32;
/** Snapshots that `info` lists. */
const mostListed = 1000;
/** A zstd window larger than this isn't unpacked: a frame asks for memory, and no cluster is larger than 2 MiB. */
const zstdWindowLog = 23;

class Qcow2Layer implements Layer, PackedChunks, BlockTable {
  readonly format = "qcow2";
  readonly noun: string;
  readonly size: number;
  readonly parent: ParentReference | undefined;
  readonly blockSize: number;
  readonly chunkSize: number;
  readonly source: ByteSource;
  readonly unpacked: ByteSource;
  readonly integrity: Integrity;
  private readonly header: Qcow2Header;
  private readonly snapshot: Snapshot | undefined;
  private readonly pages: MetadataPages;
  private readonly first: FirstLevel;
  private readonly map: BlockMap;
  private readonly perCluster: number;
  private readonly tableEntries: number;
  /** Packed bytes of a cluster, and a cluster of which only a part is in the disk. */
  private packed = Buffer.alloc(0);
  private whole = Buffer.alloc(0);
  private zstd: InstanceType<typeof binding.DCtx> | undefined;
  private readonly luks: Luks1Header | undefined;
  /** Of old QEMU's encryption, which counts sectors on the disk: such clusters are decrypted whole, as others are unpacked. */
  private readonly aes: SectorCipher | undefined;

  constructor(
    private readonly file: ByteSource,
    around: Surroundings,
  ) {
    const header = readHeader(file);
    this.header = header;
    this.pages = new MetadataPages(file, tablePage.size, tablePage.kept);
    const wanted = around.options?.snapshot;
    this.snapshot = wanted === undefined ? undefined : findSnapshot(this.pages, header, wanted);
    const shown = this.snapshot ?? header;
    this.size = shown.size;
    if (this.snapshot)
      checkL1(file.name, `snapshot ${this.snapshot.name}`, shown.l1Position, shown.l1Entries, {
        ...header,
        size: shown.size,
      });
    this.perCluster = header.extended ? subclusters : 1;
    this.noun = header.extended ? "subcluster" : "cluster";
    this.blockSize = header.clusterSize / this.perCluster;
    this.chunkSize = header.clusterSize;
    this.tableEntries = coveredByTable(header) / header.clusterSize;
    const stored = header.dataFile === undefined ? file : around.companion(header.dataFile);
    this.source = stored;
    if (header.luks) {
      this.luks = new Luks1Header(new Slice(file.name, file, header.luks.position, header.luks.length), file.name);
      const { luks } = this;
      const open = () => luks.open(around.options?.password);
      const key = around.remember?.(`${file.name}: LUKS key`, open) ?? open();
      this.source = new DecryptedSource(stored, luks.cipherOf(key));
    } else if (header.encryption === "aes") this.aes = oldQemuAes(file.name, around);
    this.parent =
      header.backingFile === undefined
        ? undefined
        : backingReference(file.name, header.backingFile, header.backingFormat);
    this.first = new FirstLevel(
      this.pages,
      shown.l1Position,
      Math.ceil(shown.size / coveredByTable(header)),
      (bytes) => (bytes.readUInt32BE(0) & 0xffffff) * 0x100000000 + ((bytes.readUInt32BE(4) & 0xfffffe00) >>> 0),
    );
    this.unpacked = around.cache.source(this);
    this.map = new BlockMap(this);
    this.integrity = mapIntegrity({
      name: file.name,
      size: this.size,
      blockSize: this.blockSize,
      source: this.source,
      unpacked: this.unpacked,
      packed: this,
      locate: (position) => this.locate(position),
      reserved: () => (header.dataFile === undefined ? reservedPlaces(this.pages, header, shown, this.first) : []),
      complaints: header.corrupt ? [`${file.name}: is marked as damaged: QEMU met with contradictions in it.`] : [],
    });
  }

  get name(): string {
    return this.file.name;
  }

  get hasParent(): boolean {
    return this.parent !== undefined;
  }

  get facts(): Record<string, unknown> {
    const { header } = this;
    const list: Record<string, unknown>[] = [];
    let damage: string | undefined;
    try {
      for (const { id, name, seconds, size, machineState } of readSnapshots(this.pages, header)) {
        if (list.push({ id, name, taken: new Date(seconds * 1000).toISOString(), size, machineState }) >= mostListed)
          break;
      }
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      damage = error.message;
    }
    return {
      version: header.version,
      clusterSize: header.clusterSize,
      compression: header.compression,
      refcountBits: header.refcountBits,
      ...(header.extended && { subclusterSize: this.blockSize }),
      ...(header.backingFile !== undefined && { backingFile: header.backingFile }),
      ...(header.backingFormat !== undefined && { backingFormat: header.backingFormat }),
      ...(header.dataFile !== undefined && { dataFile: header.dataFile, rawDataFile: header.rawDataFile }),
      ...(header.bitmaps && { bitmaps: true }),
      ...(header.dirty && {
        dirty: "it was not closed; only its reference counts may be wrong, which reading ignores",
      }),
      ...(header.corrupt && { corrupt: "it was marked as damaged; check it with qemu-img check" }),
      ...(this.luks && { encryption: this.luks.description }),
      ...(this.aes && { encryption: oldQemuAesInWords }),
      ...(this.snapshot && { snapshot: this.snapshot.name }),
      ...(list.length > 0 && { snapshots: list }),
      ...(damage !== undefined && { snapshotsDamaged: damage }),
    };
  }

  locate(position: number): Run {
    return this.map.locate(position);
  }

  missingFrom(block: number): number {
    const inTable = this.tableEntries * this.perCluster;
    const index = Math.floor(block / inTable);
    const count = this.first.missing(index);
    return count === 0 ? 0 : (index + count) * inTable - block;
  }

  entry(block: number, target: BlockEntry): void {
    const cluster = Math.floor(block / this.perCluster);
    const entry = this.entryOf(cluster);
    if (entry === undefined) return;
    const high = entry.readUInt32BE(0);
    if (high & 0x40000000) {
      target.kind = BlockKind.packed;
      this.packedAt(cluster, entry); // where it leads nowhere, that is said now
      return;
    }
    const low = entry.readUInt32BE(4);
    const position = (high & 0xffffff) * 0x100000000 + ((low & 0xfffffe00) >>> 0);
    // In a data file position 0 is a place like any other, and the flag tells whether it is meant.
    const stored = position !== 0 || (this.header.dataFile !== undefined && (high & 0x80000000) !== 0);
    if (this.header.extended) {
      const bit = 1 << (block % subclusters);
      const zeros = entry.readUInt32BE(8);
      const kept = entry.readUInt32BE(12);
      if ((zeros & kept) !== 0 || (!stored && kept !== 0))
        throw this.damaged(cluster, "its subclusters are kept and aren't at the same time");
      if ((zeros & bit) !== 0) target.kind = BlockKind.zero;
      else if ((kept & bit) !== 0) target.kind = BlockKind.stored;
    } else if (low & 1) {
      if (this.header.version < 3) throw this.damaged(cluster, "it is marked as zero, which version 2 doesn't have");
      target.kind = BlockKind.zero;
    } else if (stored) target.kind = BlockKind.stored;
    if (target.kind !== BlockKind.stored) return;
    if (position % this.header.clusterSize !== 0)
      throw this.damaged(cluster, `it should be at byte ${position}, which is no multiple of the cluster size`);
    target.position = position + (block % this.perCluster) * this.blockSize;
    if (this.aes) target.kind = BlockKind.packed;
  }

  isStored(chunk: number): boolean {
    const entry = this.entryOf(chunk);
    return entry !== undefined && (entry.readUInt32BE(0) & 0x40000000) !== 0;
  }

  unpack(chunk: number, target: Uint8Array): void {
    const { clusterSize } = this.header;
    const entry = this.entryOf(chunk);
    let whole = target;
    if (target.length < clusterSize) {
      if (this.whole.length === 0) this.whole = Buffer.allocUnsafeSlow(clusterSize);
      whole = this.whole;
    }
    if (entry && (entry.readUInt32BE(0) & 0x40000000) !== 0) this.unpackPacked(chunk, entry, whole);
    else if (entry && this.aes) this.decrypt(chunk, entry, this.aes, whole);
    else throw corrupt(`${this.name}: cluster ${chunk} was packed when its table was read and isn't now.`);
    if (whole !== target) target.set(whole.subarray(0, target.length));
  }

  private decrypt(chunk: number, entry: Buffer, aes: SectorCipher, whole: Uint8Array): void {
    const position = (entry.readUInt32BE(0) & 0xffffff) * 0x100000000 + ((entry.readUInt32BE(4) & 0xfffffe00) >>> 0);
    const got = readFully(this.source, position, whole);
    // The last cluster of a file may end where the disk does.
    if (got < Math.min(whole.length, this.size - chunk * whole.length))
      throw this.damaged(
        chunk,
        `it should be at byte ${position}, but the file has ${this.source.size} bytes; it is truncated`,
      );
    aes.decrypt(whole, (chunk * whole.length) / cipherSector);
  }

  private unpackPacked(chunk: number, entry: Buffer, whole: Uint8Array): void {
    const { position, length } = this.packedAt(chunk, entry);
    if (this.packed.length < length) this.packed = Buffer.allocUnsafeSlow(2 * this.header.clusterSize + 512);
    const packed = this.packed.subarray(0, length);
    const got = readFully(this.file, position, packed);
    try {
      if (this.header.compression === "zstd") this.unpackZstd(packed.subarray(0, got), whole);
      else unpackDeflate(packed.subarray(0, got), whole);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      throw this.damaged(chunk, `at byte ${position} ${error.message}`);
    }
  }

  /** One frame or more, until the cluster is full; what follows is padding to a multiple of 512 bytes. */
  private unpackZstd(packed: Uint8Array, target: Uint8Array): void {
    if (!this.zstd) {
      this.zstd = new binding.DCtx();
      this.zstd.setParameter(binding.DParameter.windowLogMax, zstdWindowLog);
    }
    this.zstd.reset(binding.ResetDirective.sessionOnly);
    let filled = 0;
    let used = 0;
    while (filled < target.length) {
      let progress: readonly [number, number, number];
      try {
        progress = this.zstd.decompressStream(target.subarray(filled), packed.subarray(used));
      } catch (error) {
        throw corrupt(`the zstd data is damaged: ${error instanceof Error ? error.message : error}`);
      }
      const [, given, taken] = progress;
      if (given === 0 && taken === 0)
        throw corrupt(`the zstd data unpacks to ${filled} bytes instead of ${target.length}`);
      filled += given;
      used += taken;
    }
  }

  /** The table entry of `cluster`; undefined where the whole table is missing. */
  private entryOf(cluster: number): Buffer | undefined {
    const index = Math.floor(cluster / this.tableEntries);
    const table = this.first.at(index);
    if (table === 0) return undefined;
    if (table % this.header.clusterSize !== 0)
      throw this.damaged(cluster, `its table should be at byte ${table}, which is no multiple of the cluster size`);
    const width = this.header.extended ? 16 : 8;
    return this.pages.bytes(table + (cluster - index * this.tableEntries) * width, width, "a second-level table");
  }

  /** Where the packed bytes of `cluster` are, and how many at most. */
  private packedAt(cluster: number, entry: Buffer): { position: number; length: number } {
    if (this.header.dataFile !== undefined)
      throw this.damaged(cluster, "it is packed, which clusters in a data file can't be");
    // Bits 0 to x-1 are the byte, x to 61 the number of further 512-byte sectors.
    const offsetBits = 62 - (this.header.clusterBits - 8);
    const descriptor = entry.readBigUInt64BE(0) & 0x3fffffffffffffffn;
    const position = Number(descriptor & ((1n << BigInt(offsetBits)) - 1n));
    const sectors = Number(descriptor >> BigInt(offsetBits)) + 1;
    if (position >= this.file.size)
      throw this.damaged(
        cluster,
        `it should be at byte ${position}, but the file has ${this.file.size} bytes; it is truncated`,
      );
    return { position, length: sectors * 512 - (position % 512) };
  }

  private damaged(cluster: number, what: string): ImageError {
    const start = cluster * this.header.clusterSize;
    const end = Math.min(start + this.header.clusterSize, this.size) - 1;
    return corrupt(
      `${this.name}: cluster ${cluster} (disk bytes ${start} to ${end}) is damaged: ${what}. Restore the file from another copy.`,
    );
  }
}
