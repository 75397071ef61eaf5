/**
 * Where the bytes of a file lie: in its ICB, or in extents that allocation descriptors name one after another, some of which
 * may be holes. Descriptors that don't fit into the ICB go on in blocks of their own (ECMA-167, 4/12 and 4/14.5).
 */
import type { ImageError } from "../../errors.js";
import type { AllocationForm, FileEntry } from "./entry.js";
import type { FileMap } from "./partitions.js";
import { TAG_SIZE, tags } from "./tag.js";
import type { Volume } from "./volume.js";

/** Stretches of a file that are kept; a disc of 128 GB has 65 million blocks, and no file in so many pieces is known. */
const MOST_STRETCHES = 1 << 20;
const MOST_STEPS = 1 << 22;

/** The two uppermost bits of an extent's length. */
const RECORDED = 0;
const MORE_DESCRIPTORS = 3;
const LENGTH = 0x3fffffff;

const descriptorSizes: Record<Exclude<AllocationForm, "inline">, number> = { short: 8, long: 16, extended: 20 };

export class Contents implements FileMap {
  readonly size: number;
  /** Byte in the file at which each stretch ends, and byte in the volume at which it begins: -1 for a hole. */
  private readonly ends: number[] = [];
  private readonly positions: number[] = [];
  private readonly inline: Buffer | undefined;
  private steps = 0;

  /** @throws ImageError `corrupt` when the descriptors are damaged; `unsupported` for compressed extents. */
  constructor(
    private readonly volume: Volume,
    private readonly entry: FileEntry,
  ) {
    this.size = entry.size;
    if (!Number.isSafeInteger(entry.size)) throw this.corrupt(`has an impossible size of ${entry.size} bytes`);
    if (entry.form === undefined) throw this.corrupt("has allocation descriptors of an unknown form");
    if (entry.form === "inline") {
      this.inline = entry.allocation;
      if (this.inline.length < this.size) throw this.corrupt(`keeps ${this.inline.length} of its ${this.size} bytes`);
    } else this.readDescriptors(entry.form);
  }

  /** Stretches, and bytes in tens: what it costs to keep it. */
  get weight(): number {
    return 10 + this.ends.length + Math.ceil((this.inline?.length ?? 0) / 16);
  }

  /** Where the stretches end: less than the size when descriptors are missing. */
  private get mapped(): number {
    return this.ends.at(-1) ?? 0;
  }

  private readDescriptors(form: Exclude<AllocationForm, "inline">): void {
    const size = descriptorSizes[form];
    let area = this.entry.allocation;
    const areas = new Set<number>();
    for (let at = 0; at + size <= area.length && this.mapped < this.size; ) {
      const stored = area.readUInt32LE(at);
      const length = stored & LENGTH;
      const kind = stored >>> 30;
      if (length === 0) return;
      const where = at + (form === "extended" ? 12 : 4);
      const block = area.readUInt32LE(where);
      const partition = form === "short" ? this.entry.address.partition : area.readUInt16LE(where + 4);
      if (form === "extended" && area.readUInt32LE(at + 8) !== length && area.readUInt32LE(at + 4) !== length)
        throw this.volume.unsupported(this.entry.position, "the file has compressed extents, which isn't read");
      if (kind === MORE_DESCRIPTORS) {
        const key = partition * 2 ** 32 + block;
        if (areas.has(key)) throw this.corrupt("has allocation descriptors that go in a circle");
        areas.add(key);
        const more = this.volume.descriptor({ partition, block }, [tags.allocationExtent], "an allocation descriptor");
        area = more.bytes.subarray(24, 24 + more.bytes.readUInt32LE(TAG_SIZE + 4));
        at = 0;
        continue;
      }
      if (kind === RECORDED) this.addExtent(partition, block, length);
      else this.add(-1, length);
      at += size;
    }
  }

  private addExtent(partition: number, block: number, length: number): void {
    const { blockSize } = this.volume;
    for (let done = 0; done < length && this.mapped < this.size; ) {
      if (++this.steps > MOST_STEPS) throw this.tooMany();
      const { position, blocks } = this.volume.partition(partition).locate(block + done / blockSize);
      const count = Math.min(length - done, blocks * blockSize);
      this.add(position, count);
      done += count;
    }
  }

  private add(position: number, length: number): void {
    const last = this.ends.length - 1;
    const begin = last > 0 ? this.ends[last - 1] : 0;
    const before = last >= 0 ? this.positions[last] : 0;
    const goesOn = last >= 0 && (before < 0 ? position < 0 : position === before + (this.ends[last] - begin));
    if (goesOn) this.ends[last] += length;
    else {
      if (last + 1 === MOST_STRETCHES) throw this.tooMany();
      this.ends.push(this.mapped + length);
      this.positions.push(position);
    }
  }

  private tooMany(): ImageError {
    return this.volume.unsupported(this.entry.position, `the file is in more than ${MOST_STRETCHES} pieces`);
  }

  private corrupt(what: string): ImageError {
    return this.volume.corrupt(this.entry.position, `the file of this ICB ${what}`);
  }

  stretch(position: number): { readonly at: number | undefined; readonly length: number } {
    if (position >= this.mapped) return { at: undefined, length: 0 };
    const index = this.index(position);
    const begin = index === 0 ? 0 : this.ends[index - 1];
    const at = this.positions[index];
    const length = Math.min(this.ends[index], this.size) - position;
    return { at: at < 0 ? undefined : at + position - begin, length };
  }

  /** As FileSystem.read. @param kept whether the bytes are metadata, to be read through the pages that are kept. */
  read(position: number, target: Uint8Array, kept = false): number {
    const { size, inline } = this;
    if (position >= size || target.length === 0) return 0;
    if (inline) {
      const count = Math.min(target.length, size - position);
      target.set(inline.subarray(position, position + count));
      return count;
    }
    const { at, length } = this.stretch(position);
    if (length <= 0) throw this.corrupt(`has ${size} bytes, and extents for ${this.mapped}`);
    const part = length < target.length ? target.subarray(0, length) : target;
    if (at === undefined) {
      part.fill(0);
      return part.length;
    }
    if (kept) {
      part.set(this.volume.pages.bytes(at, part.length, "a directory"));
      return part.length;
    }
    const read = this.volume.source.read(at, part);
    if (read === 0)
      throw this.volume.corrupt(at, `a file goes on here, beyond the volume's ${this.volume.source.size} bytes`);
    return read;
  }

  /** `length` bytes at `position`, which are metadata. @throws ImageError `corrupt` when the file ends before. */
  bytes(position: number, length: number): Buffer {
    if (position + length > this.size)
      throw this.corrupt(`ends at byte ${this.size}, before byte ${position + length} that is needed`);
    const bytes = Buffer.allocUnsafe(length);
    for (let filled = 0; filled < length; ) filled += this.read(position + filled, bytes.subarray(filled), true);
    return bytes;
  }

  /** As FileSystem.extentAt. What no extent covers is data, whose reading fails. */
  extentAt(position: number): { readonly hole: boolean; readonly length: number } {
    if (this.inline) return { hole: false, length: this.size - position };
    const { at, length } = this.stretch(position);
    if (length <= 0) return { hole: false, length: this.size - position };
    return { hole: at === undefined, length };
  }

  private index(position: number): number {
    let low = 0;
    let high = this.ends.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.ends[middle] > position) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
