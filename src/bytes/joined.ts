import type { ByteSource, Extent } from "./byte-source.js";

/** Sources end to end: the parts of a split file, the segments of an image. They may have any sizes, none too. */
export class JoinedSource implements ByteSource {
  size = 0;
  private readonly parts: ByteSource[] = [];
  /** Where each part begins. */
  private readonly starts: number[] = [];

  constructor(
    readonly name: string,
    parts: readonly ByteSource[] = [],
  ) {
    for (const part of parts) this.add(part);
  }

  get count(): number {
    return this.parts.length;
  }

  /** Adds a part behind the last. @returns where its first byte is */
  add(part: ByteSource): number {
    const start = this.size;
    this.parts.push(part);
    this.starts.push(start);
    this.size += part.size;
    return start;
  }

  partAt(position: number): { readonly part: ByteSource; readonly position: number } {
    const index = this.indexAt(position);
    return { part: this.parts[index]!, position: position - this.starts[index]! };
  }

  /** Stops at the end of a part. */
  read(position: number, target: Uint8Array): number {
    if (position >= this.size) return 0;
    const index = this.indexAt(position);
    return this.parts[index]!.read(position - this.starts[index]!, target);
  }

  extentAt(position: number): Extent {
    const index = this.indexAt(position);
    const part = this.parts[index]!;
    const within = position - this.starts[index]!;
    return part.extentAt?.(within) ?? { hole: false, length: part.size - within };
  }

  willRead(position: number, length: number): void {
    const end = Math.min(position + length, this.size);
    for (let at = position; at < end; ) {
      const index = this.indexAt(at);
      const part = this.parts[index]!;
      const within = at - this.starts[index]!;
      const count = Math.min(part.size - within, end - at);
      part.willRead?.(within, count);
      at += count;
    }
  }

  isFar(position: number): boolean {
    const index = this.indexAt(position);
    return this.parts[index]!.isFar?.(position - this.starts[index]!) === true;
  }

  /** The last part that begins at or before `position`: of several that begin there, the one that isn't empty. */
  private indexAt(position: number): number {
    let low = 0;
    for (let high = this.parts.length - 1; low < high; ) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle]! <= position) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** Sources as one, which goes by the name of the first; a single one is itself. */
export const endToEnd = (parts: readonly ByteSource[]): ByteSource =>
  parts.length === 1 ? parts[0]! : new JoinedSource(parts[0]!.name, parts);
