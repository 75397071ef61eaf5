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

/** The root directory. */
const rootId: FileId = 1;
/** `disk.raw`; partition N is file `diskId + N`, so that the same number is the same file in every worker. */
const diskId: FileId = 2;

const blockSize = 4096;

/**
 * A disk as a directory of plain files: `disk.raw` is all of it, `p1.raw`, `p2.raw` ... are its volumes by number.
 * Holes of the disk are holes of the files.
 */
export function diskView(disk: Disk, table: VolumeTable, times: { created: Time }): FileSystem {
  return new DiskView(disk, table, times.created);
}

/** The same of a disk that can be written to: the files are one set of bytes, and a write is one to the disk. */
export function writableDiskView(disk: WritableDisk, table: VolumeTable, times: { created: Time }): FileSystem {
  return new WritableDiskView(disk, table, times.created);
}

/** A stretch of the disk under a name. */
class DiskFile {
  readonly name: Buffer;

  constructor(
    readonly id: FileId,
    name: string,
    readonly position: number,
    readonly size: number,
  ) {
    this.name = Buffer.from(name);
  }
}

class DiskView implements FileSystem {
  readonly type = "disk";
  readonly label = "";
  readonly root = rootId;
  readonly statistics: Statistics;
  protected readonly files = new Map<FileId, DiskFile>();
  private readonly byName = new Map<string, DiskFile>();
  private readonly entries: readonly Entry[];
  /** Counting what is stored walks an image's tables, so it is done when a file is first asked about, and once. */
  private readonly known = new Map<FileId, Attributes>();

  constructor(
    private readonly disk: Disk,
    table: VolumeTable,
    protected readonly created: Time,
  ) {
    const files = [
      new DiskFile(diskId, "disk.raw", 0, disk.size),
      ...table.volumes.map(
        ({ number, position, size }) => new DiskFile(diskId + number, `p${number}.raw`, position, size),
      ),
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
    return this.disk.read(file.position + position, target.length > rest ? target.subarray(0, rest) : target);
  }

  readLink(link: FileId): Uint8Array {
    throw this.notHere(link, "symbolic link");
  }

  extentAt(id: FileId, position: number): Extent {
    const file = this.file(id);
    const { hole, length } = this.disk.extentAt(file.position + position);
    return { hole, length: Math.min(length, file.size - position) };
  }

  zerosAt(id: FileId, position: number): number {
    const file = this.file(id);
    return Math.min(this.disk.zerosAt(file.position + position), file.size - position);
  }

  private describeFile({ id, position, size }: DiskFile): Attributes {
    const stored = this.disk.dataBytes(position, position + size);
    return this.describe(id, "file", 0o444, size, Math.ceil(stored / 512) * 512);
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
    created: Time,
  ) {
    super(writable, table, created);
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
    this.writable.write(this.file(id).position + position, bytes);
  }

  clear(id: FileId, position: number, length: number): void {
    this.writable.clear(this.file(id).position + position, length);
  }

  flush(): void {
    this.writable.flush();
  }

  others(id: FileId, position: number, length: number): Share[] {
    const start = this.file(id).position + position;
    const shares: Share[] = [];
    for (const other of this.files.values()) {
      if (other.id === id) continue;
      const from = Math.max(start, other.position);
      const to = Math.min(start + length, other.position + other.size);
      if (from < to) shares.push({ file: other.id, position: from - other.position, length: to - from });
    }
    return shares;
  }
}
