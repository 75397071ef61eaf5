import type { Extent } from "../bytes/byte-source.js";
import { type ImageError, missing } from "../errors.js";
import type {
  Attributes,
  Changes,
  Entry,
  FileId,
  FileKind,
  FileSystem,
  Share,
  Statistics,
  Time,
} from "../filesystems/filesystem.js";
import type { Disk } from "../layers/disk.js";
import type { WritableDisk } from "../layers/overlay.js";
import type { VolumeTable } from "../volumes/volume.js";
import type { Face, Part } from "./faces/face.js";

/** The root directory. */
const rootId: FileId = 1;
/** `disk.raw`; partition N is file `diskId + N`, so that the same number is the same file in every worker. */
const diskId: FileId = 2;
/** The first of the faces, above all partitions. */
const faceId: FileId = 0xff00;

const blockSize = 4096;

export interface ViewOptions {
  readonly created: Time;
  /** Files of other formats beside disk.raw, over the same bytes. */
  readonly faces?: readonly Face[];
}

/**
 * A disk as a directory of plain files: `disk.raw` is all of it, `p1.raw`, `p2.raw` ... are its volumes by number.
 * Holes of the disk are holes of the files.
 */
export function diskView(disk: Disk, table: VolumeTable, more: ViewOptions): FileSystem {
  return new DiskView(disk, table, more);
}

/** The same of a disk that can be written to: the files are one set of bytes, and a write is one to the disk. */
export function writableDiskView(disk: WritableDisk, table: VolumeTable, more: ViewOptions): FileSystem {
  return new WritableDiskView(disk, table, more);
}

/** A file: stretches of the disk, and of what is made up around them. */
class DiskFile {
  readonly name: Buffer;
  readonly size: number;
  /** Where in the file each part begins. */
  private readonly starts: number[] = [];

  constructor(
    readonly id: FileId,
    name: string,
    private readonly parts: readonly Part[],
  ) {
    this.name = Buffer.from(name);
    let size = 0;
    for (const { length } of parts) {
      this.starts.push(size);
      size += length;
    }
    this.size = size;
  }

  /** The part with the byte at `position` (< size), and where in the part that is. */
  at(position: number): { part: Part; within: number } {
    let index = 0;
    while (position >= this.starts[index]! + this.parts[index]!.length) index++;
    return { part: this.parts[index]!, within: position - this.starts[index]! };
  }

  /** What of a stretch is of the disk. */
  *onDisk(position: number, length: number): Iterable<{ at: number; disk: number; length: number }> {
    for (const [index, part] of this.parts.entries()) {
      const start = this.starts[index]!;
      const from = Math.max(position, start);
      const to = Math.min(position + length, start + part.length);
      if (part.kind === "disk" && from < to) yield { at: from, disk: part.disk + from - start, length: to - from };
    }
  }

  /** Where a stretch of the disk is in this file. */
  *sharing(disk: number, length: number): Iterable<Share> {
    for (const [index, part] of this.parts.entries()) {
      if (part.kind !== "disk") continue;
      const from = Math.max(disk, part.disk);
      const to = Math.min(disk + length, part.disk + part.length);
      if (from < to) yield { file: this.id, position: this.starts[index]! + from - part.disk, length: to - from };
    }
  }

  /** Bytes that are made up. */
  get made(): number {
    return this.parts.reduce((sum, { kind, length }) => sum + (kind === "made" ? length : 0), 0);
  }
}

class DiskView implements FileSystem {
  readonly type = "disk";
  readonly label = "";
  readonly root = rootId;
  readonly statistics: Statistics;
  protected readonly created: Time;
  protected readonly files = new Map<FileId, DiskFile>();
  private readonly byName = new Map<string, DiskFile>();
  private readonly entries: readonly Entry[];
  /** Counting what is stored walks an image's tables, so it is done when a file is first asked about, and once. */
  private readonly known = new Map<FileId, Attributes>();

  constructor(
    private readonly disk: Disk,
    table: VolumeTable,
    { created, faces = [] }: ViewOptions,
  ) {
    this.created = created;
    const stretch = (disk: number, length: number): Part[] => (length > 0 ? [{ kind: "disk", length, disk }] : []);
    const files = [
      new DiskFile(diskId, "disk.raw", stretch(0, disk.size)),
      ...table.volumes.map(
        ({ number, position, size }) => new DiskFile(diskId + number, `p${number}.raw`, stretch(position, size)),
      ),
      ...faces.map(({ file, parts }, index) => new DiskFile(faceId + index, file, parts)),
    ].sort((a, b) => a.id - b.id);
    for (const file of files) {
      this.files.set(file.id, file);
      this.byName.set(file.name.toString("latin1"), file);
    }
    this.entries = files.map(({ name, id }) => ({ name, file: id, kind: "file" }));
    this.statistics = {
      blockSize,
      blocks: Math.ceil(disk.size / blockSize),
      freeBlocks: 0,
      files: files.length + 1,
      freeFiles: 0,
      nameLength: 255,
    };
  }

  attributes(id: FileId): Attributes {
    const known = this.known.get(id);
    if (known) return known;
    const attributes = id === rootId ? this.describe(id, "directory", 0o555, 0, 0) : this.describeFile(this.file(id));
    this.known.set(id, attributes);
    return attributes;
  }

  lookup(directory: FileId, name: Uint8Array): FileId | undefined {
    return directory === rootId ? this.byName.get(Buffer.from(name).toString("latin1"))?.id : undefined;
  }

  list(directory: FileId): Iterable<Entry> {
    if (directory !== rootId) throw this.notHere(directory, "directory");
    return this.entries;
  }

  read(id: FileId, position: number, target: Uint8Array): number {
    const file = this.file(id);
    const rest = file.size - position;
    if (rest <= 0) return 0;
    const { part, within } = file.at(position);
    const length = Math.min(target.length, part.length - within);
    const wanted = length === target.length ? target : target.subarray(0, length);
    if (part.kind === "disk") return this.disk.read(part.disk + within, wanted);
    if (part.kind === "made") part.fill(within, wanted);
    else wanted.fill(0);
    return length;
  }

  readLink(link: FileId): Uint8Array {
    throw this.notHere(link, "symbolic link");
  }

  extentAt(id: FileId, position: number): Extent {
    const { part, within } = this.file(id).at(position);
    const rest = part.length - within;
    if (part.kind !== "disk") return { hole: part.kind === "zeros", length: rest };
    const { hole, length } = this.disk.extentAt(part.disk + within);
    return { hole, length: Math.min(length, rest) };
  }

  zerosAt(id: FileId, position: number): number {
    const { part, within } = this.file(id).at(position);
    const rest = part.length - within;
    if (part.kind !== "disk") return part.kind === "zeros" ? rest : 0;
    return Math.min(this.disk.zerosAt(part.disk + within), rest);
  }

  private describeFile(file: DiskFile): Attributes {
    let stored = file.made;
    for (const { disk, length } of file.onDisk(0, file.size)) stored += this.disk.dataBytes(disk, disk + length);
    return this.describe(file.id, "file", 0o444, file.size, Math.ceil(stored / 512) * 512);
  }

  private describe(id: FileId, kind: FileKind, mode: number, size: number, allocated: number): Attributes {
    return {
      kind,
      mode,
      inode: id,
      links: kind === "directory" ? 2 : 1,
      // The mount belongs to the user who made it.
      owner: process.getuid?.() ?? 0,
      group: process.getgid?.() ?? 0,
      size,
      allocated,
      accessed: this.created,
      modified: this.created,
      changed: this.created,
      born: this.created,
    };
  }

  protected file(id: FileId): DiskFile {
    const file = this.files.get(id);
    if (!file) throw this.notHere(id, "file");
    return file;
  }

  private notHere(id: FileId, what: string): ImageError {
    return missing(`${this.disk.name}: there is no ${what} with number ${id}.`);
  }
}

class WritableDiskView extends DiskView implements Changes {
  readonly changes: Changes = this;

  constructor(
    private readonly writable: WritableDisk,
    table: VolumeTable,
    more: ViewOptions,
  ) {
    super(writable, table, more);
  }

  override attributes(id: FileId): Attributes {
    const known = super.attributes(id);
    if (id === rootId) return known;
    const { written, lastWrite } = this.writable;
    const modified =
      lastWrite === 0
        ? this.created
        : { seconds: Math.floor(lastWrite / 1000), nanoseconds: Math.floor(lastWrite % 1000) * 1e6 };
    // What was written may have been stored before: a file that tells of too much is read; of too little is taken for a hole.
    const allocated = Math.min(Math.ceil(known.size / 512) * 512, known.allocated + written);
    return { ...known, mode: 0o644, allocated, modified, changed: modified };
  }

  write(id: FileId, position: number, bytes: Uint8Array): void {
    for (const { at, disk, length } of this.file(id).onDisk(position, bytes.length))
      this.writable.write(
        disk,
        length === bytes.length ? bytes : bytes.subarray(at - position, at - position + length),
      );
  }

  clear(id: FileId, position: number, length: number): void {
    for (const stretch of this.file(id).onDisk(position, length)) this.writable.clear(stretch.disk, stretch.length);
  }

  flush(): void {
    this.writable.flush();
  }

  others(id: FileId, position: number, length: number): Share[] {
    const shares: Share[] = [];
    for (const stretch of this.file(id).onDisk(position, length))
      for (const other of this.files.values())
        if (other.id !== id) shares.push(...other.sharing(stretch.disk, stretch.length));
    return shares;
  }
}
