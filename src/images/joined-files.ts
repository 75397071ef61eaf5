import type { ByteSource } from "../bytes/byte-source.js";

/** The files of one image, one behind the other, in the order in which they were added. */
export class JoinedFiles implements ByteSource {
  size = 0;
  private readonly files: ByteSource[] = [];
  private readonly starts: number[] = [];

  constructor(readonly name: string) {}

  get count(): number {
    return this.files.length;
  }

  /** Returns where the file's first byte is. */
  add(file: ByteSource): number {
    const start = this.size;
    this.files.push(file);
    this.starts.push(start);
    this.size += file.size;
    return start;
  }

  /** The file with the byte at `position` (< size), and where in it that is. */
  at(position: number): { readonly file: ByteSource; readonly position: number } {
    let low = 0;
    for (let high = this.count - 1; low < high; ) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle]! <= position) low = middle;
      else high = middle - 1;
    }
    return { file: this.files[low]!, position: position - this.starts[low]! };
  }

  read(position: number, target: Uint8Array): number {
    if (position >= this.size) return 0;
    const found = this.at(position);
    return found.file.read(found.position, target);
  }
}
