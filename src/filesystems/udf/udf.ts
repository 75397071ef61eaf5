/**
 * UDF 1.02 to 2.60 (OSTA's profile of ECMA-167): DVDs, Blu-ray discs, packet-written and other media, and disks.
 *
 *     32 KiB for others | recognition sequence | … | anchor at block 256 | partition: file set, ICBs, files | anchor
 *
 * A file's record is its ICB; its id is that ICB's address, partition reference times 2^32 plus block, and its inode the
 * block of the volume, as Linux has it. Every descriptor's checksum, CRC and own address are verified. Extents that are not
 * recorded are holes. Hidden files are listed, which Linux does only when asked to. Named streams are extended attributes
 * `user.NAME`, up to 1 MiB each; larger ones aren't shown.
 *
 * Left out: extended attributes in an ICB of their own, system streams, compressed extents (a clear refusal), and records
 * (a file is its bytes).
 */
import { LRUCache } from "lru-cache";
import type { ByteSource, Extent } from "../../bytes/byte-source.js";
import { ImageError, usage } from "../../errors.js";
import type { Format } from "../../format.js";
import type { Attributes, Entry, FileId, FileKind, FileSystem, Statistics } from "../filesystem.js";
import { PlaceIndexes } from "../place-index.js";
import { recognisesUdf } from "./anchor.js";
import { Contents } from "./contents.js";
import { Directory } from "./directory.js";
import { type Address, type FileEntry, fileTypes } from "./entry.js";
import { type LogicalVolume, openLogicalVolume } from "./logical-volume.js";
import { LONGEST_LINK, linkTarget } from "./symlink.js";
import type { Volume } from "./volume.js";

const MOST_STREAMS = 1000;
const LARGEST_STREAM = 1 << 20;
/** Of all streams of one file. */
const MOST_STREAM_BYTES = 4 << 20;

const idOf = ({ partition, block }: Address): FileId => partition * 2 ** 32 + block;
const addressOf = (file: FileId): Address => ({ partition: Math.floor(file / 2 ** 32), block: file % 2 ** 32 });

class UdfFileSystem implements FileSystem {
  readonly type = "udf";
  readonly label: string;
  readonly root: FileId;
  readonly facts: Record<string, unknown>;
  readonly warnings: readonly string[];
  readonly statistics: Statistics;
  private readonly volume: Volume;
  private readonly entries = new LRUCache<FileId, FileEntry>({
    maxSize: 8 << 20,
    sizeCalculation: ({ bytes }) => bytes.length + 200,
  });
  private readonly files = new LRUCache<FileId, Contents>({
    maxSize: 1 << 20,
    sizeCalculation: ({ weight }) => weight,
  });
  private readonly indexes: PlaceIndexes;

  constructor(opened: LogicalVolume) {
    const { volume, integrity } = opened;
    this.volume = volume;
    this.label = opened.label;
    this.root = idOf(opened.root);
    this.facts = opened.facts;
    this.warnings = opened.warnings;
    this.directory(this.root);
    this.statistics = {
      blockSize: volume.blockSize,
      blocks: Math.max(opened.blocks, integrity?.blocks ?? 0),
      freeBlocks: integrity?.freeBlocks ?? 0,
      files: integrity ? integrity.files + integrity.directories : 0,
      freeFiles: 0,
      nameLength: 255,
    };
    this.indexes = new PlaceIndexes({
      names: (directory) => this.names(directory),
      nameAt: (directory, place) => {
        const found = this.directory(directory).identifierAt(place);
        return found && { place, name: found.name, file: idOf(found.address) };
      },
    });
  }

  private entry(file: FileId): FileEntry {
    let entry = this.entries.get(file);
    if (!entry) {
      entry = this.volume.fileEntry(addressOf(file));
      this.entries.set(file, entry);
    }
    return entry;
  }

  private contents(file: FileId, entry: FileEntry): Contents {
    let contents = this.files.get(file);
    if (!contents) {
      contents = new Contents(this.volume, entry);
      this.files.set(file, contents);
    }
    return contents;
  }

  private directory(file: FileId): Directory {
    const entry = this.entry(file);
    if (entry.kind !== "directory")
      throw usage(`${this.volume.name}: the ICB at byte ${entry.position} can't be listed as a directory.`);
    const contents = this.contents(file, entry);
    // Extents that name the same blocks again and again would make a list without end.
    if (contents.size > this.volume.source.size)
      throw this.volume.corrupt(entry.position, `a directory of ${contents.size} bytes is larger than the volume`);
    return new Directory(this.volume, entry, contents);
  }

  /** The block of the volume with the ICB that a directory names. */
  private inode(file: FileId): number {
    const { partition, block } = addressOf(file);
    return this.volume.partition(partition).locate(block).position / this.volume.blockSize;
  }

  attributes(file: FileId): Attributes {
    const entry = this.entry(file);
    const { kind } = entry;
    if (kind === undefined)
      throw this.volume.unsupported(entry.position, `the ICB is of type ${entry.type}, which is no file's`);
    let { size } = entry;
    if (kind === "symlink") size = this.readLink(file).length;
    // Refuses a size that is impossible.
    else if (kind === "file" || kind === "directory") size = this.contents(file, entry).size;
    else if (!Number.isSafeInteger(size))
      throw this.volume.corrupt(entry.position, `the ${kind} of this ICB has an impossible size of ${size} bytes`);
    return {
      kind,
      mode: entry.mode,
      inode: this.inode(file),
      links: entry.links,
      owner: entry.owner,
      group: entry.group,
      size,
      allocated: Math.min(entry.blocksRecorded * this.volume.blockSize, Number.MAX_SAFE_INTEGER),
      device: kind === "character" || kind === "block" ? (entry.device ?? { major: 0, minor: 0 }) : undefined,
      accessed: entry.accessed,
      modified: entry.modified,
      changed: entry.changed,
      born: entry.born,
    };
  }

  lookup(directory: FileId, name: Uint8Array): FileId | undefined {
    return this.indexes.find(directory, name);
  }

  private *names(directory: FileId) {
    for (const { place, name, address } of this.directory(directory).identifiers())
      yield { place, name, file: idOf(address) };
  }

  *list(directory: FileId): Iterable<Entry> {
    for (const { name, address, isDirectory } of this.directory(directory).identifiers()) {
      const file = idOf(address);
      yield { name, file, kind: this.kind(file, isDirectory) };
    }
  }

  /** As its ICB tells it. Where that can't be read, its attributes fail, and the directory's word has to do. */
  private kind(file: FileId, isDirectory: boolean): FileKind {
    try {
      const { kind } = this.entry(file);
      if (kind) return kind;
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
    }
    return isDirectory ? "directory" : "file";
  }

  private file(file: FileId): Contents {
    const entry = this.entry(file);
    if (entry.kind !== "file")
      throw usage(`${this.volume.name}: the ICB at byte ${entry.position} can't be read as a file.`);
    return this.contents(file, entry);
  }

  read(file: FileId, position: number, target: Uint8Array): number {
    return this.file(file).read(position, target);
  }

  extentAt(file: FileId, position: number): Extent {
    return this.file(file).extentAt(position);
  }

  readLink(link: FileId): Uint8Array {
    const entry = this.entry(link);
    if (entry.kind !== "symlink")
      throw usage(`${this.volume.name}: the ICB at byte ${entry.position} is no symbolic link.`);
    const contents = this.contents(link, entry);
    const target = contents.size <= LONGEST_LINK ? linkTarget(contents.bytes(0, contents.size)) : undefined;
    if (!target) throw this.volume.corrupt(entry.position, "the path of the symbolic link of this ICB is damaged");
    return target;
  }

  extendedAttributes(file: FileId): ReadonlyMap<string, Uint8Array> {
    const found = new Map<string, Uint8Array>();
    const { streams } = this.entry(file);
    if (!streams) return found;
    const entry = this.entry(idOf(streams));
    if (entry.type !== fileTypes.streamDirectory)
      throw this.volume.corrupt(entry.position, "a file's streams should be listed here, and aren't");
    let bytes = 0;
    for (const { name, address } of this.directory(idOf(streams)).identifiers()) {
      const stream = this.file(idOf(address));
      if (stream.size > LARGEST_STREAM || bytes + stream.size > MOST_STREAM_BYTES) continue;
      if (found.size === MOST_STREAMS) break;
      bytes += stream.size;
      found.set(`user.${name.toString("utf8")}`, stream.bytes(0, stream.size));
    }
    return found;
  }
}

export const udf: Format<FileSystem> = {
  name: "udf",
  recognises: (source) => recognisesUdf(source),
  open: (source) => openUdf(source),
};

const openUdf = (source: ByteSource): FileSystem => new UdfFileSystem(openLogicalVolume(source));
