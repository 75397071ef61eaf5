import { closeSync, constants, fstatSync, openSync, readSync, type Stats, statSync } from "node:fs";
import { system, usage } from "../errors.js";
import { ENXIO, errno, fadvise, lseek, POSIX_FADV_WILLNEED, SEEK_DATA, SEEK_END, SEEK_HOLE } from "../libc.js";
import type { ByteSource, Extent } from "./byte-source.js";
import { Ranges } from "./ranges.js";

export type FileKind = "file" | "block device" | "character device";

/** A file or block device, read in place. Holes are found by asking the filesystem (SEEK_HOLE), never by reading. */
export class FileSource implements ByteSource {
  readonly size: number;
  readonly kind: FileKind;
  /** The same for all paths to one file. */
  readonly identity: string;
  /** When the file was changed last, in nanoseconds since 1970, as decimal digits. */
  readonly modified: string;
  get changed(): string {
    return this.modified;
  }

  /** The last hole found. No other is remembered: should somebody write into the file, a hole would hide it. */
  private holeStart = 0;
  private holeEnd = 0;
  /** What isn't a hole. To be asked where one ends takes milliseconds where the filesystem looks page by page (tmpfs). */
  private readonly data = new Ranges();
  private tellsHoles: boolean;

  private constructor(
    readonly name: string,
    readonly fd: number,
  ) {
    const stat = fstatSync(fd);
    this.identity = `${stat.dev}:${stat.ino}`;
    this.modified = `${fstatSync(fd, { bigint: true }).mtimeNs}`;
    this.kind = stat.isBlockDevice() ? "block device" : stat.isCharacterDevice() ? "character device" : "file";
    this.size = this.kind === "file" ? stat.size : Math.max(0, lseek(fd, 0, SEEK_END));
    this.tellsHoles = this.kind === "file";
  }

  /** @throws ImageError naming `path`. A folder, a pipe or a socket is refused. */
  static open(path: string, name = path): FileSource {
    let fd: number | undefined;
    try {
      // Looked at first: to open a device can be an act (a watchdog starts to count), and images name paths to open.
      refuseOthers(path, statSync(path));
      // Without O_NONBLOCK the open of a named pipe, put there since, would wait for a writer.
      fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
      refuseOthers(path, fstatSync(fd));
      return new FileSource(name, fd);
    } catch (error) {
      if (fd !== undefined) closeSync(fd);
      throw system(`opening ${path}`, error);
    }
  }

  /** A descriptor that is open already, as a worker is given one; it stays its giver's to close. */
  static over(fd: number, name: string): FileSource {
    return new FileSource(name, fd);
  }

  read(position: number, target: Uint8Array): number {
    const rest = this.size - position;
    if (rest <= 0) return 0;
    try {
      return readSync(this.fd, target, 0, Math.min(target.length, rest), position);
    } catch (error) {
      throw system(`${this.name}: reading at byte ${position}`, error);
    }
  }

  /**
   * The system's own readahead goes by what was read last through a descriptor, and threads that share one, each with a
   * stretch of its own, mislead it: a disk that isn't in memory was read at half the speed.
   */
  willRead(position: number, length: number): void {
    fadvise(this.fd, position, length, POSIX_FADV_WILLNEED);
  }

  /** The hole or the data at `position`. Filesystems and devices that don't tell holes answer `data` for all. */
  extentAt(position: number): Extent {
    if (position >= this.holeStart && position < this.holeEnd) return { hole: true, length: this.holeEnd - position };
    const known = this.data.lengthAt(position);
    if (known > 0) return { hole: false, length: known };
    if (!this.tellsHoles) return { hole: false, length: this.size - position };
    const data = lseek(this.fd, position, SEEK_DATA);
    if (data < 0 && errno() !== ENXIO) {
      this.tellsHoles = false;
      return { hole: false, length: this.size - position };
    }
    // A file that shrank has no data here either, and its end must not pass for a hole.
    if (data < 0 && fstatSync(this.fd).size < this.size)
      throw system(
        `${this.name}: reading at byte ${position}`,
        new Error(`it was ${this.size} bytes long when it was opened and is shorter now: it shrank while it was read`),
      );
    if (data !== position) {
      this.holeStart = position;
      this.holeEnd = data < 0 ? this.size : Math.min(data, this.size);
      return { hole: true, length: this.holeEnd - position };
    }
    const hole = lseek(this.fd, position, SEEK_HOLE);
    const end = hole > position && hole < this.size ? hole : this.size;
    this.data.add(position, end);
    return { hole: false, length: end - position };
  }

  close(): void {
    closeSync(this.fd);
  }
}

function refuseOthers(path: string, stat: Stats): void {
  if (stat.isFile() || stat.isBlockDevice()) return;
  const what = stat.isDirectory() ? "a folder" : "neither a file nor a block device";
  throw usage(`${path}: is ${what}; name a disk image or a disk.`);
}
