import { fdatasyncSync, writeSync } from "node:fs";
import { system } from "../errors.js";
import { errno, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, failure, fallocate } from "../libc.js";
import type { Extent } from "./byte-source.js";
import type { ByteStore } from "./byte-store.js";
import { FileSource } from "./file.js";

const EOPNOTSUPP = 95;
const ENOSYS = 38;
/** Zeros are written in pieces of so many bytes where no hole can be made. */
const zeros = new Uint8Array(1 << 20);

/** A stretch of an open file that can be written to. Any number of threads may have one over the same descriptor. */
export class FileStore implements ByteStore {
  private readonly source: FileSource;
  private makesHoles = process.platform === "linux";

  /**
   * @param start first byte of the stretch in the file
   * @param size bytes of the stretch; what the file lacks of it reads as nothing
   */
  constructor(
    readonly name: string,
    private readonly fd: number,
    private readonly start: number,
    readonly size: number,
  ) {
    this.source = FileSource.over(fd, name);
  }

  read(position: number, target: Uint8Array): number {
    return this.source.read(this.start + position, target);
  }

  extentAt(position: number): Extent {
    // Asked anew each time: a FileSource remembers what it found, and here that may have been written to since.
    const { hole, length } = FileSource.over(this.fd, this.name).extentAt(this.start + position);
    return { hole, length: Math.min(length, this.size - position) };
  }

  write(position: number, bytes: Uint8Array): void {
    try {
      for (let done = 0; done < bytes.length; )
        done += writeSync(this.fd, bytes, done, bytes.length - done, this.start + position + done);
    } catch (error) {
      throw system(`${this.name}: writing at byte ${this.start + position}`, error);
    }
  }

  clear(position: number, length: number): void {
    if (this.makesHoles) {
      const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
      if (fallocate(this.fd, mode, this.start + position, length) === 0) return;
      if (errno() !== EOPNOTSUPP && errno() !== ENOSYS)
        throw system(`${this.name}: making a hole at byte ${this.start + position}`, failure("fallocate"));
      this.makesHoles = false;
    }
    for (let done = 0; done < length; done += zeros.length)
      this.write(position + done, zeros.subarray(0, Math.min(zeros.length, length - done)));
  }

  reserve(position: number, length: number): void {
    if (!this.makesHoles || fallocate(this.fd, FALLOC_FL_KEEP_SIZE, this.start + position, length) === 0) return;
    if (errno() !== EOPNOTSUPP && errno() !== ENOSYS)
      throw system(`${this.name}: taking room at byte ${this.start + position}`, failure("fallocate"));
  }

  flush(): void {
    try {
      fdatasyncSync(this.fd);
    } catch (error) {
      throw system(`${this.name}: flushing`, error);
    }
  }
}
