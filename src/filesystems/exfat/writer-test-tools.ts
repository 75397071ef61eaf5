/**
 * Tests only: puts files into an empty image of mkfs.exfat, each with the layout that a test wants, which no driver lets one
 * choose. Whether the result is exFAT is for fsck.exfat to say.
 */
import { upperCase } from "../utf16.js";

export interface NewFile {
  readonly name: string;
  /** A directory's are filled in by `directory`. */
  readonly content: Buffer;
  /** Bytes that are valid (default all); `content` beyond is on the disk, but doesn't count. */
  readonly valid?: number;
  /** Whether clusters lie side by side, told by a flag; otherwise every second one is taken, told by the table. */
  readonly isContiguous: boolean;
  readonly attributes?: number;
  readonly times?: { readonly at: number; readonly bytes: readonly number[] }[];
}

export class ExfatWriter {
  readonly clusterSize: number;
  private readonly table: number;
  private readonly heap: number;
  private readonly root: number;
  private nextCluster: number;

  constructor(readonly bytes: Buffer) {
    const sectorSize = 2 ** bytes[108]!;
    this.clusterSize = sectorSize * 2 ** bytes[109]!;
    this.table = bytes.readUInt32LE(80) * sectorSize;
    this.heap = bytes.readUInt32LE(88) * sectorSize;
    this.root = bytes.readUInt32LE(96);
    this.nextCluster = this.root + 1;
  }

  position(cluster: number): number {
    return this.heap + (cluster - 2) * this.clusterSize;
  }

  /** Writes content and gives the entries that are to be in the file's directory. */
  file(file: NewFile): Buffer {
    const attributes = file.attributes ?? 0x20;
    const first = this.store(file.content, file.isContiguous);
    const { name } = file;
    const names = Math.ceil(name.length / 15);
    const set = Buffer.alloc((2 + names) * 32);
    set[0] = 0x85;
    set[1] = 1 + names;
    set.writeUInt16LE(attributes, 4);
    for (const at of [8, 12, 16]) set.writeUInt32LE(((2020 - 1980) << 25) | (1 << 21) | (1 << 16), at);
    set.fill(0x80, 22, 25);
    for (const { at, bytes } of file.times ?? []) set.set(bytes, at);
    set[32] = 0xc0;
    set[33] = first === 0 ? 1 : file.isContiguous ? 3 : 1;
    set[35] = name.length;
    set.writeUInt16LE(nameHash(upperCase(name)), 36);
    set.writeBigUInt64LE(BigInt(file.valid ?? file.content.length), 40);
    set.writeUInt32LE(first, 52);
    set.writeBigUInt64LE(BigInt(file.content.length), 56);
    for (let index = 0; index < names; index++) {
      const at = (2 + index) * 32;
      set[at] = 0xc1;
      Buffer.from(name.slice(index * 15, (index + 1) * 15), "utf16le").copy(set, at + 2);
    }
    return withChecksum(set);
  }

  directory(name: string, entries: readonly Buffer[], isContiguous: boolean): Buffer {
    const all = Buffer.concat(entries as Buffer[]);
    // A whole number of clusters, with an end mark where there is room for one.
    const content = Buffer.alloc(Math.max(1, Math.ceil(all.length / this.clusterSize)) * this.clusterSize);
    all.copy(content);
    return this.file({ name, content, isContiguous, attributes: 0x10 });
  }

  /** Puts entries behind those that the root directory has; they have to fit its one cluster. */
  finish(entries: readonly Buffer[]): void {
    let at = this.position(this.root);
    while (this.bytes[at] !== 0) at += 32;
    Buffer.concat(entries as Buffer[]).copy(this.bytes, at);
  }

  private store(content: Buffer, isContiguous: boolean): number {
    const count = Math.ceil(content.length / this.clusterSize);
    if (count === 0) return 0;
    const first = this.nextCluster;
    const step = isContiguous ? 1 : 2;
    for (let index = 0; index < count; index++) {
      const cluster = first + index * step;
      content.copy(this.bytes, this.position(cluster), index * this.clusterSize, (index + 1) * this.clusterSize);
      const bit = cluster - 2;
      this.bytes[this.position(2) + (bit >> 3)]! |= 1 << (bit & 7);
      if (!isContiguous)
        this.bytes.writeUInt32LE(index + 1 < count ? cluster + step : 0xffffffff, this.table + cluster * 4);
    }
    this.nextCluster = first + count * step;
    return first;
  }
}

export function withChecksum(set: Buffer): Buffer {
  let sum = 0;
  for (const [at, byte] of set.entries())
    if (at !== 2 && at !== 3) sum = ((sum & 1 ? 0x8000 : 0) + (sum >> 1) + byte) & 0xffff;
  set.writeUInt16LE(sum, 2);
  return set;
}

function nameHash(upper: string): number {
  let hash = 0;
  for (const byte of Buffer.from(upper, "utf16le")) hash = ((hash & 1 ? 0x8000 : 0) + (hash >> 1) + byte) & 0xffff;
  return hash;
}
