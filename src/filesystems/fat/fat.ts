/**
 * FAT12, FAT16 and FAT32, with long names.
 *
 *     boot sector … | table | table | root directory (FAT12/16) | clusters 2, 3, 4 …
 *
 * A file's id is the position of its short directory entry in the volume divided by 32, the size of an entry; so empty
 * files, which have no cluster, have one too. The root directory has no entry, and the id 1.
 *
 * Names are matched without regard to case, and by their short alias too, as Windows and Linux do. Times are kept without a
 * zone and taken for UTC. Deleted entries aren't shown. A directory's link count is 1, which programs take for "unknown".
 */
import { LRUCache } from "lru-cache";
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { MetadataPages } from "../../bytes/metadata-pages.js";
import { corrupt, ImageError, usage } from "../../errors.js";
import type { Format } from "../../format.js";
import { ClusterChain, type Clusters, ContiguousClusters } from "../cluster-chain.js";
import { DirectoryIndexes, type NamedEntry } from "../directory-index.js";
import { dosTime } from "../dos-time.js";
import type { Attributes, Entry, FileId, FileSystem, Statistics } from "../filesystem.js";
import { dosFlags, flagNames } from "../flag-names.js";
import { isUsableName, upperCase, utf16Names } from "../utf16.js";
import { type Geometry, readGeometry, recognisesFat } from "./boot-sector.js";
import { type DecodeOem, decoderOf, defaultCodePage } from "./code-pages.js";
import { LongName, labelText, shortName } from "./names.js";
import { FatTable } from "./table.js";

const ROOT: FileId = 1;
const ENTRY = 32;
const READ_ONLY = 0x01;
const HIDDEN = 0x02;
const SYSTEM = 0x04;
const LABEL = 0x08;
const DIRECTORY = 0x10;
const LONG_NAME = 0x0f;
const DELETED = 0xe5;

/** The root directory has no entry: it has no times, and 1970 stands for them as on Linux. */
const rootEntry = Buffer.alloc(ENTRY);
rootEntry[11] = DIRECTORY;
const epoch = { seconds: 0, nanoseconds: 0 };

/** Memory for the runs of clusters of files, in runs of 8 bytes: 8 MiB. */
const MOST_RUNS = 1 << 20;
/** A table of up to 16 MiB is counted to tell how much is free; of a larger one its own count is believed. */
const MOST_COUNTED = 16 << 20;

class FatFileSystem implements FileSystem {
  readonly type: string;
  readonly root = ROOT;
  readonly facts: Record<string, unknown>;
  readonly warnings: readonly string[];
  private readonly decode: DecodeOem;
  private readonly geometry: Geometry;
  private readonly table: FatTable;
  private readonly pages: MetadataPages;
  private readonly indexes = new DirectoryIndexes((directory) => this.entries(directory), utf16Names(upperCase));
  private readonly chains = new LRUCache<FileId, Clusters>({
    maxSize: MOST_RUNS,
    sizeCalculation: (clusters) => clusters.weight,
  });
  private readonly owner = process.getuid?.() ?? 0;
  private readonly group = process.getgid?.() ?? 0;
  private knownLabel: string | undefined;
  private free: number | undefined;

  constructor(
    private readonly source: ByteSource,
    codePage: number,
  ) {
    this.decode = decoderOf(codePage);
    const geometry = readGeometry(source);
    this.geometry = geometry;
    this.table = new FatTable(source, geometry);
    this.pages = new MetadataPages(source, 4096, 256);
    this.type = `fat${geometry.bits}`;
    const { serial } = geometry;
    this.facts = {
      uuid:
        serial === undefined ? undefined : serial.toString(16).toUpperCase().padStart(8, "0").replace(/^.{4}/, "$&-"),
      sectorSize: geometry.sectorSize,
      clusterSize: geometry.clusterSize,
      clusters: geometry.clusters,
      tables: geometry.tables,
      codePage,
      maker: geometry.maker,
      bootLabel: this.bootLabel,
    };
    this.warnings = this.oddities();
  }

  private oddities(): string[] {
    const { source, geometry } = this;
    const odd: string[] = [];
    if (source.size < geometry.size)
      odd.push(
        `The FAT filesystem has ${geometry.size} bytes and its volume only ${source.size}: files beyond can't be read.`,
      );
    try {
      const dirty = this.table.dirtyBits;
      if (dirty & 2) odd.push("The FAT filesystem was not unmounted: it may be inconsistent.");
      if (dirty & 1) odd.push("The FAT filesystem notes that its disk had read or write errors.");
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      odd.push(error.message);
    }
    return odd;
  }

  /** Undefined where there is none; mkfs and Windows write NO NAME for none. */
  private get bootLabel(): string | undefined {
    const { label } = this.geometry;
    const text = label && labelText(label, this.decode);
    return text === "NO NAME" || text === "" ? undefined : text;
  }

  /** The root directory's. The boot sector's may be an older one, which neither Windows nor Linux goes by. */
  get label(): string {
    if (this.knownLabel === undefined) {
      let label: string | undefined;
      try {
        for (const { slot } of this.slots(ROOT)) {
          const attributes = slot[11]! & 0x3f;
          if (slot[0] !== DELETED && attributes !== LONG_NAME && (attributes & (LABEL | DIRECTORY)) === LABEL) {
            label = labelText(slot.subarray(0, 11), this.decode);
            break;
          }
        }
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
        label = this.bootLabel;
      }
      this.knownLabel = label ?? "";
    }
    return this.knownLabel;
  }

  get statistics(): Statistics {
    const { clusterSize, clusters } = this.geometry;
    this.free ??= this.countFree();
    return { blockSize: clusterSize, blocks: clusters, freeBlocks: this.free, files: 0, freeFiles: 0, nameLength: 765 };
  }

  private countFree(): number {
    const { geometry } = this;
    if (geometry.tableSize > MOST_COUNTED && geometry.infoPosition > 0) {
      const info = readExactly(this.source, geometry.infoPosition, 512, "the FSInfo sector");
      const count = info.readUInt32LE(488);
      if (info.readUInt32LE(0) === 0x41615252 && info.readUInt32LE(484) === 0x61417272 && count <= geometry.clusters)
        return count;
    }
    return this.table.countFree();
  }

  attributes(file: FileId): Attributes {
    const { clusterSize } = this.geometry;
    const entry = file === ROOT ? rootEntry : this.entry(file);
    const isDirectory = (entry[11]! & DIRECTORY) !== 0;
    const size = isDirectory ? this.directorySize(file) : entry.readUInt32LE(28);
    const modified = file === ROOT ? epoch : dosTime(entry.readUInt16LE(24), entry.readUInt16LE(22));
    const accessedDate = entry.readUInt16LE(18);
    const bornDate = entry.readUInt16LE(16);
    return {
      kind: isDirectory ? "directory" : "file",
      mode: isDirectory ? 0o755 : entry[11]! & READ_ONLY ? 0o444 : 0o644,
      inode: file,
      links: 1,
      owner: this.owner,
      group: this.group,
      size,
      allocated: Math.ceil(size / clusterSize) * clusterSize,
      device: undefined,
      // DOS before 7 wrote neither of the dates that follow.
      accessed: accessedDate === 0 ? modified : dosTime(accessedDate, 0),
      modified,
      changed: modified,
      born: bornDate === 0 ? undefined : dosTime(bornDate, entry.readUInt16LE(14), entry[13]!),
    };
  }

  private directorySize(directory: FileId): number {
    const clusters = this.directoryClusters(directory);
    return clusters ? clusters.length * this.geometry.clusterSize : this.geometry.rootSize;
  }

  lookup(directory: FileId, name: Uint8Array): FileId | undefined {
    return this.indexes.lookup(directory, name);
  }

  list(directory: FileId): Iterable<Entry> {
    return this.indexes.list(directory);
  }

  read(file: FileId, position: number, target: Uint8Array): number {
    const { clusterSize, dataPosition } = this.geometry;
    const entry = file === ROOT ? undefined : this.entry(file);
    if (!entry || entry[11]! & DIRECTORY) throw usage(`${this.source.name}: a directory can't be read as a file.`);
    const size = entry.readUInt32LE(28);
    if (position >= size || target.length === 0) return 0;
    const clusters = this.fileClusters(file, entry, Math.ceil(size / clusterSize));
    const index = Math.floor(position / clusterSize);
    if (index >= clusters.length) throw this.broken(file, entry, clusters, `of ${size} bytes`);
    const { cluster, count } = clusters.locate(index);
    const within = position - index * clusterSize;
    const length = Math.min(target.length, size - position, count * clusterSize - within);
    const at = dataPosition + (cluster - 2) * clusterSize + within;
    const read = this.source.read(at, length === target.length ? target : target.subarray(0, length));
    if (read === 0)
      throw corrupt(
        `${this.source.name}: cluster ${cluster} at byte ${at} lies beyond the volume's ${this.source.size} bytes. The image is truncated.`,
      );
    return read;
  }

  readLink(_link: FileId): Uint8Array {
    throw usage(`${this.source.name}: FAT has no symbolic links.`);
  }

  /** The attributes that no mode tells, by the name that the kernel's ntfs3 has for them. */
  extendedAttributes(file: FileId): ReadonlyMap<string, Uint8Array> {
    const attributes = file === ROOT ? 0 : this.entry(file)[11]!;
    const isTold = (attributes & (HIDDEN | SYSTEM)) === 0 && (attributes & (READ_ONLY | DIRECTORY)) !== 0x11;
    return new Map(isTold ? [] : [["system.dos_attrib", Uint8Array.of(attributes)]]);
  }

  details(file: FileId): Record<string, unknown> {
    if (file === ROOT) return {};
    const entry = this.entry(file);
    // Where it differs, the name that DOS sees; the long one is that of the path.
    return { flags: flagNames(dosFlags, entry[11]! & 0x3f), shortName: shortName(entry, this.decode) };
  }

  private entry(file: FileId): Buffer {
    return this.pages.bytes(file * ENTRY, ENTRY, "a directory entry");
  }

  private firstCluster(entry: Buffer): number {
    const low = entry.readUInt16LE(26);
    // OS/2 kept other things in the upper half.
    return this.geometry.bits === 32 ? low + entry.readUInt16LE(20) * 0x10000 : low;
  }

  private fileClusters(file: FileId, entry: Buffer, needed: number): Clusters {
    const first = this.firstCluster(entry);
    if (!this.table.isCluster(first))
      throw corrupt(
        `${this.source.name}: the directory entry at byte ${file * ENTRY} starts at cluster ${first}, which the volume doesn't have (2 to ${this.geometry.clusters + 1}).`,
      );
    return needed <= 1 ? new ContiguousClusters(first, needed) : this.chain(file, first, needed);
  }

  private chain(file: FileId, first: number, most: number): Clusters {
    let clusters = this.chains.get(file);
    if (!clusters) {
      clusters = new ClusterChain(first, most, this.table.next);
      this.chains.set(file, clusters);
    }
    return clusters;
  }

  private broken(file: FileId, entry: Buffer, clusters: Clusters, what: string): ImageError {
    const has = clusters.length * this.geometry.clusterSize;
    const why = clusters.problem ?? "its cluster chain ends";
    const name = shortName(entry, this.decode);
    return corrupt(
      `${this.source.name}: ${name} ${what} (directory entry at byte ${file * ENTRY}) has only ${has} bytes: ${why}.`,
    );
  }

  /** Undefined for the root directory of FAT12 and FAT16, which has a fixed place. */
  private directoryClusters(directory: FileId): Clusters | undefined {
    const { bits, clusters, rootCluster } = this.geometry;
    if (directory === ROOT) {
      if (bits !== 32) return undefined;
      if (this.table.isCluster(rootCluster)) return this.chain(ROOT, rootCluster, clusters);
      throw corrupt(
        `${this.source.name}: the FAT boot sector puts the root directory at cluster ${rootCluster}, which the volume doesn't have.`,
      );
    }
    const entry = this.entry(directory);
    if (!(entry[11]! & DIRECTORY)) throw usage(`${this.source.name}: a file can't be listed as a directory.`);
    const first = this.firstCluster(entry);
    // As Linux takes it: a directory without a cluster is empty.
    if (first === 0) return new ContiguousClusters(2, 0);
    this.fileClusters(directory, entry, 0);
    return this.chain(directory, first, clusters);
  }

  /** The used entries of a directory up to its end mark, with those of deleted files and parts of long names. */
  private *slots(directory: FileId): Iterable<{ readonly position: number; readonly slot: Buffer }> {
    const { clusterSize, dataPosition, rootPosition, rootSize } = this.geometry;
    const clusters = this.directoryClusters(directory);
    const size = clusters ? clusters.length * clusterSize : rootSize;
    for (let done = 0; done < size; ) {
      const run = clusters?.locate(done / clusterSize);
      const start = run ? dataPosition + (run.cluster - 2) * clusterSize : rootPosition;
      const length = run ? run.count * clusterSize : rootSize;
      for (let position = start; position < start + length; position += ENTRY) {
        const slot = this.pages.bytes(position, ENTRY, "a directory entry");
        if (slot[0] === 0) return;
        yield { position, slot };
      }
      done += length;
    }
    if (clusters?.problem)
      throw directory === ROOT
        ? corrupt(`${this.source.name}: the root directory breaks off after ${size} bytes: ${clusters.problem}.`)
        : this.broken(directory, this.entry(directory), clusters, "is a directory that");
  }

  private *entries(directory: FileId): Iterable<NamedEntry> {
    const long = new LongName();
    for (const { position, slot } of this.slots(directory)) {
      const attributes = slot[11]! & 0x3f;
      if (slot[0] === DELETED) long.forget();
      else if (attributes === LONG_NAME) long.add(slot);
      else if (attributes & LABEL) long.forget();
      else {
        const longName = long.take(slot);
        const alias = shortName(slot, this.decode);
        const name = longName !== undefined && isUsableName(longName) ? longName : alias;
        if (isUsableName(name))
          yield {
            name,
            file: position / ENTRY,
            kind: attributes & DIRECTORY ? "directory" : "file",
            alias: name === alias ? undefined : alias,
          };
      }
    }
  }
}

export const fat: Format<FileSystem> = {
  name: "fat",
  recognises: (source) => recognisesFat(source),
  open: (source, { options }) => openFat(source, options?.codePage),
};

/** @param codePage in which short names and labels are written, which a volume doesn't tell. */
export const openFat = (source: ByteSource, codePage: number = defaultCodePage): FileSystem =>
  new FatFileSystem(source, codePage);
