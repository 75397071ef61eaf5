/**
 * exFAT ("exFAT file system specification", Microsoft, revision 1.00).
 *
 *     boot region | its backup | allocation table | clusters 2, 3, 4 …: bitmap, up-case table, root directory, files
 *
 * A file's id is the position of its File entry in the volume divided by 32, the size of an entry, times two; plus one
 * when the clusters of its directory lie side by side: a set of entries may go on in the directory's next cluster, and then
 * the allocation table doesn't tell which that is. The root directory has no entry, and the id 1.
 *
 * A set of entries with a wrong checksum is listed, by the name that it has, and an error when it is looked at. Names are
 * matched by the volume's up-case table. The hash of a name only serves to search faster, which an index in memory does:
 * it isn't looked at, so that a wrong one hides no file. A directory's link count is 1, which programs take for "unknown".
 */
import { LRUCache } from "lru-cache";
import { type ByteSource, readFully } from "../../bytes/byte-source.js";
import { MetadataPages } from "../../bytes/metadata-pages.js";
import { corrupt, ImageError, usage } from "../../errors.js";
import type { Format } from "../../format.js";
import { BAD, ClusterChain, type Clusters, ContiguousClusters, END, FREE, OUTSIDE } from "../cluster-chain.js";
import { DirectoryIndexes, type NamedEntry } from "../directory-index.js";
import type { Attributes, Entry, FileId, FileSystem, Statistics } from "../filesystem.js";
import { dosFlags, flagNames } from "../flag-names.js";
import { isUsableName, upperCase, utf16Names } from "../utf16.js";
import { type Geometry, readGeometry, recognisesExfat } from "./boot-sector.js";
import type { FileRecord } from "./entry-set.js";
import * as entrySet from "./entry-set.js";
import { LARGEST_TABLE, readUpcase, upcaseChecksum } from "./upcase.js";

const ROOT: FileId = 1;
const { ENTRY } = entrySet;
const READ_ONLY = 0x01;
const HIDDEN_OR_SYSTEM = 0x06;
/** The specification's limit, and room for eight million entries. */
const LARGEST_DIRECTORY = 256 << 20;
/** Memory for the runs of clusters of files, in runs of 8 bytes: 8 MiB. */
const MOST_RUNS = 1 << 20;
const TABLE_PAGE = 16384;

/** A place that a critical entry of the root directory names. */
interface Place {
  readonly cluster: number;
  readonly size: number;
  /** Of the up-case table. */
  readonly checksum: number;
}

class ExfatFileSystem implements FileSystem {
  readonly type = "exfat";
  readonly root = ROOT;
  readonly facts: Record<string, unknown>;
  readonly warnings: readonly string[];
  private readonly geometry: Geometry;
  private readonly table: MetadataPages;
  private readonly pages: MetadataPages;
  private readonly indexes: DirectoryIndexes;
  private readonly chains = new LRUCache<FileId, Clusters>({
    maxSize: MOST_RUNS,
    sizeCalculation: (clusters) => clusters.weight,
  });
  private readonly records = new LRUCache<FileId, FileRecord>({ max: 1024 });
  private readonly bitmap: Place | undefined;
  private readonly owner = process.getuid?.() ?? 0;
  private readonly group = process.getgid?.() ?? 0;
  private knownLabel: string | undefined;
  private free: number | undefined;

  constructor(private readonly source: ByteSource) {
    const geometry = readGeometry(source);
    this.geometry = geometry;
    this.table = new MetadataPages(source, TABLE_PAGE, 64);
    this.pages = new MetadataPages(source, 4096, 256);
    this.facts = {
      uuid: geometry.serial.toString(16).toUpperCase().padStart(8, "0").replace(/^.{4}/, "$&-"),
      revision: geometry.revision,
      sectorSize: geometry.sectorSize,
      clusterSize: geometry.clusterSize,
      clusters: geometry.clusters,
      tables: geometry.tables,
    };
    const odd = geometry.warning ? [geometry.warning] : [];
    if (source.size < geometry.size)
      odd.push(
        `The exFAT filesystem has ${geometry.size} bytes and its volume only ${source.size}: files beyond can't be read.`,
      );
    if (geometry.isDirty) odd.push("The exFAT filesystem was not unmounted: it may be inconsistent.");
    if (geometry.hadErrors) odd.push("The exFAT filesystem notes that its disk had read or write errors.");
    const noted = <T>(act: () => T): T | undefined => {
      try {
        return act();
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
        odd.push(error.message);
        return undefined;
      }
    };
    const places = noted(() => this.places());
    this.bitmap = places?.bitmap;
    const fold = noted(() => this.upcase(places?.upcase)) ?? upperCase;
    this.indexes = new DirectoryIndexes((directory) => this.entries(directory), utf16Names(fold));
    this.warnings = odd;
  }

  /** Where the bitmap and the up-case table are. */
  private places(): { bitmap?: Place; upcase?: Place } {
    const found: { bitmap?: Place; upcase?: Place } = {};
    for (const { slot } of this.slots(ROOT)) {
      const size = slot.readUInt32LE(24) + slot.readUInt32LE(28) * 0x100000000;
      const place = { cluster: slot.readUInt32LE(20), size, checksum: slot.readUInt32LE(4) };
      if (slot[0] === entrySet.BITMAP && (slot[1]! & 1) === this.geometry.active) found.bitmap ??= place;
      else if (slot[0] === entrySet.UPCASE) found.upcase ??= place;
      if (found.bitmap && found.upcase) break;
    }
    return found;
  }

  private upcase(place: Place | undefined): (name: string) => string {
    const instead = "The case of letters in names is told by Unicode instead.";
    const { name } = this.source;
    if (!place) throw corrupt(`${name}: the root directory names no up-case table. ${instead}`);
    if (place.size > LARGEST_TABLE || place.size === 0)
      throw corrupt(`${name}: the up-case table has ${place.size} bytes. ${instead}`);
    const table = this.readPlace(place);
    if (upcaseChecksum(table) !== place.checksum)
      throw corrupt(`${name}: the up-case table at cluster ${place.cluster} has a wrong checksum. ${instead}`);
    return readUpcase(table);
  }

  private readPlace(place: Place): Buffer {
    const bytes = Buffer.alloc(place.size);
    let filled = 0;
    for (const { position, length } of this.placeRuns(place)) {
      const part = bytes.subarray(filled, filled + length);
      if (readFully(this.source, position, part) < part.length) throw this.beyond(position);
      filled += part.length;
    }
    return bytes;
  }

  private *placeRuns({ cluster, size }: Place): Iterable<{ readonly position: number; readonly length: number }> {
    const { clusterSize } = this.geometry;
    const needed = Math.ceil(size / clusterSize);
    if (!this.isCluster(cluster)) throw this.noCluster("the root directory names a table that", cluster);
    const clusters = new ClusterChain(cluster, needed, this.next);
    if (clusters.length < needed)
      throw corrupt(
        `${this.source.name}: the table at cluster ${cluster} has only ${clusters.length} of ${needed} clusters: ${clusters.problem ?? "its cluster chain ends"}.`,
      );
    for (let index = 0; index < needed; ) {
      const run = clusters.locate(index);
      const length = Math.min(run.count * clusterSize, size - index * clusterSize);
      yield { position: this.clusterPosition(run.cluster), length };
      index += run.count;
    }
  }

  get label(): string {
    if (this.knownLabel === undefined) {
      this.knownLabel = "";
      try {
        for (const { slot } of this.slots(ROOT)) {
          if (slot[0] !== entrySet.VOLUME_LABEL) continue;
          this.knownLabel = slot.toString("utf16le", 2, 2 + 2 * Math.min(11, slot[1]!));
          break;
        }
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
      }
    }
    return this.knownLabel;
  }

  get statistics(): Statistics {
    const { clusterSize, clusters } = this.geometry;
    this.free ??= this.countFree();
    return { blockSize: clusterSize, blocks: clusters, freeBlocks: this.free, files: 0, freeFiles: 0, nameLength: 765 };
  }

  /** 0 where there is no bitmap to tell. */
  private countFree(): number {
    const { clusters } = this.geometry;
    const size = Math.ceil(clusters / 8);
    if (!this.bitmap || this.bitmap.size < size) return 0;
    const buffer = Buffer.alloc(1 << 16);
    let used = 0;
    let done = 0;
    for (const { position, length } of this.placeRuns({ ...this.bitmap, size })) {
      for (let at = 0; at < length; ) {
        const part = buffer.subarray(0, Math.min(buffer.length, length - at));
        if (readFully(this.source, position + at, part) < part.length) throw this.beyond(position + at);
        at += part.length;
        done += part.length;
        // The bits after the last cluster's mean nothing.
        if (done === size && clusters % 8 !== 0) part[part.length - 1]! &= (1 << (clusters % 8)) - 1;
        for (const byte of part) used += bitCounts[byte]!;
      }
    }
    return clusters - used;
  }

  attributes(file: FileId): Attributes {
    const { clusterSize } = this.geometry;
    const record = file === ROOT ? this.rootRecord : this.record(file);
    return {
      kind: record.isDirectory ? "directory" : "file",
      mode: record.isDirectory ? 0o755 : record.attributes & READ_ONLY ? 0o444 : 0o644,
      inode: file,
      links: 1,
      owner: this.owner,
      group: this.group,
      size: record.size,
      allocated: Math.ceil(record.size / clusterSize) * clusterSize,
      device: undefined,
      accessed: record.accessed,
      modified: record.modified,
      changed: record.modified,
      born: record.born,
    };
  }

  /** The root directory has no times, and is as long as its chain. */
  private get rootRecord(): Pick<FileRecord, "attributes" | "isDirectory" | "size" | "accessed" | "modified"> & {
    readonly born: undefined;
  } {
    const epoch = { seconds: 0, nanoseconds: 0 };
    const size = this.clusters(ROOT).length * this.geometry.clusterSize;
    return { attributes: 0, isDirectory: true, size, accessed: epoch, modified: epoch, born: undefined };
  }

  lookup(directory: FileId, name: Uint8Array): FileId | undefined {
    return this.indexes.lookup(directory, name);
  }

  list(directory: FileId): Iterable<Entry> {
    return this.indexes.list(directory);
  }

  read(file: FileId, position: number, target: Uint8Array): number {
    const record = file === ROOT ? undefined : this.record(file);
    if (!record || record.isDirectory) throw usage(`${this.source.name}: a directory can't be read as a file.`);
    const length = Math.min(target.length, record.size - position);
    if (length <= 0) return 0;
    if (position >= record.valid) {
      target.fill(0, 0, length);
      return length;
    }
    const { clusterSize } = this.geometry;
    const clusters = this.clusters(file);
    const index = Math.floor(position / clusterSize);
    if (index >= clusters.length) throw this.broken(file, clusters, `a file of ${record.size} bytes`);
    const { cluster, count } = clusters.locate(index);
    const within = position - index * clusterSize;
    const part = Math.min(length, record.valid - position, count * clusterSize - within);
    const at = this.clusterPosition(cluster) + within;
    const read = this.source.read(at, part === target.length ? target : target.subarray(0, part));
    if (read === 0) throw this.beyond(at);
    return read;
  }

  /** What was never written is a hole, though clusters are kept for it. */
  extentAt(file: FileId, position: number) {
    const { size, valid } = this.record(file);
    return position < valid ? { hole: false, length: valid - position } : { hole: true, length: size - position };
  }

  readLink(_link: FileId): Uint8Array {
    throw usage(`${this.source.name}: exFAT has no symbolic links.`);
  }

  /** The attributes that no mode tells, by the name that the kernel's ntfs3 has for them. */
  extendedAttributes(file: FileId): ReadonlyMap<string, Uint8Array> {
    if (file === ROOT) return new Map();
    const { attributes, isDirectory } = this.record(file);
    const isTold = (attributes & HIDDEN_OR_SYSTEM) === 0 && !(isDirectory && attributes & READ_ONLY);
    return new Map(isTold ? [] : [["system.dos_attrib", Uint8Array.of(attributes)]]);
  }

  details(file: FileId): Record<string, unknown> {
    return file === ROOT ? {} : { flags: flagNames(dosFlags, this.record(file).attributes) };
  }

  private clusterPosition(cluster: number): number {
    return this.geometry.dataPosition + (cluster - 2) * this.geometry.clusterSize;
  }

  private isCluster(cluster: number): boolean {
    return cluster >= 2 && cluster < this.geometry.clusters + 2;
  }

  /** The cluster after `cluster` (which is in range), or END, FREE, BAD or OUTSIDE. */
  private readonly next = (cluster: number): number => {
    const at = this.geometry.tablePosition + cluster * 4;
    const page = this.table.page(at);
    const within = at % TABLE_PAGE;
    // Tables begin at a sector: an entry never lies across a page's end.
    if (within + 4 > page.length) return this.table.byte(at + 3, "the allocation table");
    const value = page.readUInt32LE(within);
    if (this.isCluster(value)) return value;
    if (value === 0xffffffff) return END;
    if (value === 0) return FREE;
    return value === 0xfffffff7 ? BAD : OUTSIDE;
  };

  /** The clusters of a file or directory. */
  private clusters(file: FileId): Clusters {
    let clusters = this.chains.get(file);
    if (!clusters) {
      clusters = this.findClusters(file);
      this.chains.set(file, clusters);
    }
    return clusters;
  }

  private findClusters(file: FileId): Clusters {
    const { clusterSize, clusters, rootCluster } = this.geometry;
    if (file === ROOT) return new ClusterChain(rootCluster, Math.ceil(LARGEST_DIRECTORY / clusterSize), this.next);
    const { size, firstCluster, isContiguous } = this.record(file);
    const needed = Math.ceil(size / clusterSize);
    if (needed === 0) return new ContiguousClusters(2, 0);
    if (!this.isCluster(firstCluster)) throw this.noCluster(`${this.entryName(file)} starts in one that`, firstCluster);
    if (!isContiguous) return new ClusterChain(firstCluster, Math.min(needed, clusters), this.next);
    const room = clusters + 2 - firstCluster;
    return needed <= room
      ? new ContiguousClusters(firstCluster, needed)
      : new ContiguousClusters(firstCluster, room, "the volume has no more clusters side by side");
  }

  private noCluster(what: string, cluster: number): ImageError {
    return corrupt(
      `${this.source.name}: ${what} the volume doesn't have: cluster ${cluster}, not one of 2 to ${this.geometry.clusters + 1}.`,
    );
  }

  private beyond(position: number): ImageError {
    return corrupt(
      `${this.source.name}: byte ${position} lies beyond the volume's ${this.source.size} bytes. The image is truncated.`,
    );
  }

  private broken(file: FileId, clusters: Clusters, what: string): ImageError {
    const has = clusters.length * this.geometry.clusterSize;
    const why = clusters.problem ?? "its cluster chain ends";
    return corrupt(`${this.source.name}: ${this.entryName(file)}, ${what}, has only ${has} bytes: ${why}.`);
  }

  private entryName = (file: FileId) => `the directory entry at byte ${Math.floor(file / 2) * ENTRY}`;

  /** What the entries of a file say, after their checksum is found right. */
  private record(file: FileId): FileRecord {
    let record = this.records.get(file);
    if (!record) {
      const set = this.set(file);
      const sum = entrySet.setChecksum(set);
      const stored = set.readUInt16LE(2);
      if (sum !== stored)
        throw corrupt(
          `${this.source.name}: ${this.entryName(file)} has checksum ${sum.toString(16)}, and ${stored.toString(16)} is recorded. It is damaged.`,
        );
      record = entrySet.recordOf(set);
      const wrong =
        record.isDirectory && record.size > LARGEST_DIRECTORY
          ? "directory"
          : Number.isSafeInteger(record.size)
            ? undefined
            : "file";
      if (wrong)
        throw corrupt(
          `${this.source.name}: ${this.entryName(file)} is of a ${wrong} of ${record.size} bytes, which can't be.`,
        );
      this.records.set(file, record);
    }
    return record;
  }

  /** The entries of a file, from its id alone. */
  private set(file: FileId): Buffer {
    const { clusterSize, dataPosition } = this.geometry;
    const inContiguous = file % 2 === 1;
    const position = Math.floor(file / 2) * ENTRY;
    let cluster = Math.floor((position - dataPosition) / clusterSize) + 2;
    const first = this.pages.bytes(position, ENTRY, "a directory entry");
    const count = entrySet.secondaryCount(first);
    if (first[0] !== entrySet.FILE || count === undefined || !this.isCluster(cluster))
      throw corrupt(`${this.source.name}: ${this.entryName(file)} is not one of a file.`);
    const total = (count + 1) * ENTRY;
    let end = this.clusterPosition(cluster) + clusterSize;
    if (position + total <= end) return this.pages.bytes(position, total, "a set of directory entries");
    const set = Buffer.alloc(total);
    for (let filled = 0, at = position; filled < total; ) {
      if (at === end) {
        cluster = inContiguous ? cluster + 1 : this.next(cluster);
        if (!this.isCluster(cluster))
          throw corrupt(`${this.source.name}: ${this.entryName(file)} goes on where the directory ends.`);
        at = this.clusterPosition(cluster);
        end = at + clusterSize;
      }
      const length = Math.min(total - filled, end - at);
      this.pages.bytes(at, length, "a set of directory entries").copy(set, filled);
      filled += length;
      at += length;
    }
    return set;
  }

  /** All entries of a directory up to its end mark, used or not. */
  private *slots(directory: FileId): Iterable<{ readonly position: number; readonly slot: Buffer }> {
    if (directory !== ROOT && !this.record(directory).isDirectory)
      throw usage(`${this.source.name}: a file can't be listed as a directory.`);
    const { clusterSize } = this.geometry;
    const clusters = this.clusters(directory);
    for (let index = 0; index < clusters.length; ) {
      const { cluster, count } = clusters.locate(index);
      const start = this.clusterPosition(cluster);
      const end = start + count * clusterSize;
      for (let position = start; position < end; position += ENTRY) {
        const slot = this.pages.bytes(position, ENTRY, "a directory entry");
        if (slot[0] === entrySet.END_OF_DIRECTORY) return;
        yield { position, slot };
      }
      index += count;
    }
    if (clusters.problem) throw this.broken(directory, clusters, "a directory");
  }

  private *entries(directory: FileId): Iterable<NamedEntry> {
    const flag = directory !== ROOT && this.record(directory).isContiguous ? 1 : 0;
    const parts: Buffer[] = [];
    let missing = 0;
    let file: FileId = 0;
    for (const { position, slot } of this.slots(directory)) {
      const type = slot[0]!;
      if (!entrySet.isUsed(type)) missing = 0;
      else if (!entrySet.isSecondary(type)) {
        parts.length = 0;
        parts.push(slot);
        missing = type === entrySet.FILE ? (entrySet.secondaryCount(slot) ?? 0) : 0;
        file = (position / ENTRY) * 2 + flag;
      } else if (missing > 0) {
        parts.push(slot);
        if (--missing > 0) continue;
        const set = Buffer.concat(parts);
        const name = entrySet.nameOf(set);
        if (name !== undefined && isUsableName(name))
          yield { name, file, kind: entrySet.isDirectory(set) ? "directory" : "file" };
      }
    }
  }
}

const bitCounts = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll("0", "").length);

export const exfat: Format<FileSystem> = {
  name: "exfat",
  recognises: (source) => recognisesExfat(source),
  open: (source) => new ExfatFileSystem(source),
};
