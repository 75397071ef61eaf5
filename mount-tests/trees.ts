/**
 * Trees for tests of the drivers, without an image: every byte is computed from its position, so that any reader can
 * tell what is right. `testTree` is what TreeSpec names.
 */
import { createHash } from "node:crypto";
import type { Extent } from "../src/bytes/byte-source.js";
import { corrupt } from "../src/errors.js";
import type { Attributes, Entry, FileId, FileKind, FileSystem } from "../src/filesystems/filesystem.js";
import type { TreeSpec } from "../src/fuse/driver.js";

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;

export const testTreeSpec = (data: TestTreeData = {}): TreeSpec => ({
  module: import.meta.url,
  exported: "testTree",
  data,
});

export interface TestTreeData {
  /** Building throws an ImageError with these words. */
  readonly failsWith?: string;
  /** Building ends the thread. */
  readonly exits?: boolean;
  /** How often the tree was built, shared by all threads; each building after `mostBuilds` ends its thread. */
  readonly builds?: Int32Array;
  readonly mostBuilds?: number;
  /** Shared by all threads: reads of `slow.bin` wait while it is 0. */
  readonly gate?: Int32Array;
  /** The tree has no extended attributes at all. */
  readonly noAttributes?: boolean;
}

export const big = {
  size: GiB,
  /** Holes take the second half of each 16 MiB; neighbouring extents of one kind are told one by one. */
  period: 16 * MiB,
  extent: 64 * KiB,
};
export const damaged = { size: 4 * MiB + 100, from: MiB + 3 * 64 * KiB, length: 64 * KiB, message: "x.spin: chunk 19" };
export const many = 200_000;
const digestSize = 8 * MiB + 777;

/** Each 8 bytes hold half of their position and a constant, so that a byte in the wrong place shows. */
export function fillPattern(position: number, target: Uint8Array): void {
  const start = position - (position % 8);
  const words = new DataView(new ArrayBuffer(8));
  for (let at = start; at < position + target.length; at += 8) {
    words.setUint32(0, at / 8, true);
    words.setUint32(4, Math.imul(at / 8, 0x9e3779b1), true);
    for (let i = 0; i < 8; i++) {
      const index = at + i - position;
      if (index >= 0 && index < target.length) target[index] = words.getUint8(i);
    }
  }
}

export function pattern(position: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  fillPattern(position, bytes);
  return bytes;
}

export const isHole = (position: number) => position % big.period >= big.period / 2;

/** The SHA-256 of `digest.bin`. */
export const digest = () => createHash("sha256").update(pattern(0, digestSize)).digest("hex");

interface Node {
  readonly kind: FileKind;
  readonly size: number;
  readonly allocated?: number;
  read?(position: number, target: Uint8Array): number;
}

const text = Buffer.from("hello from the tree\n");
const target = Buffer.from("sub/inner.txt");
const time = { seconds: 1_000_000_000, nanoseconds: 123_456_789 };
const byName = (names: Record<string, FileId>) => new Map(Object.entries(names));

/** FileIds; `many` holds files from 1000 on. The root's number is not 0 on purpose. */
const names = byName({
  "hello.txt": 1,
  "big.bin": 2,
  "damaged.bin": 3,
  "killer.bin": 4,
  many: 5,
  link: 6,
  sub: 7,
  "digest.bin": 8,
  "null.bin": 9,
  "short.bin": 10,
  "bug.bin": 11,
  "slow.bin": 12,
  "hog.bin": 13,
});
const subNames = byName({ "inner.txt": 1 });
const root = 77;
const firstOfMany = 1000;
const manyName = (index: number) => Buffer.from(`entry-${String(index).padStart(6, "0")}`);

const computed = (size: number): Node => ({
  kind: "file",
  size,
  read(position, target) {
    fillPattern(position, target);
    return target.length;
  },
});

const nodes: Record<FileId, Node> = {
  [root]: { kind: "directory", size: 4096 },
  1: {
    kind: "file",
    size: text.length,
    read: (position, target) => text.copy(target, 0, position, position + target.length),
  },
  2: {
    kind: "file",
    size: big.size,
    allocated: big.size / 2,
    read(position, target) {
      // An extent at a time, as a disk reads.
      const length = Math.min(target.length, big.extent - (position % big.extent));
      const piece = target.subarray(0, length);
      if (isHole(position)) piece.fill(0);
      else fillPattern(position, piece);
      return length;
    },
  },
  3: {
    kind: "file",
    size: damaged.size,
    read(position, target) {
      const chunk = 64 * KiB;
      if (position >= damaged.from && position < damaged.from + damaged.length) throw corrupt(damaged.message);
      const length = Math.min(target.length, chunk - (position % chunk));
      fillPattern(position, target.subarray(0, length));
      return length;
    },
  },
  4: { kind: "file", size: 4096, read: () => process.exit(3) },
  5: { kind: "directory", size: 4096 },
  6: { kind: "symlink", size: target.length },
  7: { kind: "directory", size: 4096 },
  8: computed(digestSize),
  9: { kind: "file", size: 8 * GiB, read: (_position, target) => target.length },
  // Its size says more than there is.
  10: { kind: "file", size: 8192, read: (position) => (position < 5000 ? 5000 - position : 0) },
  11: {
    kind: "file",
    size: 100,
    read: () => {
      throw new TypeError("a bug in the tree");
    },
  },
  12: computed(4096),
  13: {
    kind: "file",
    size: 4096,
    read(position) {
      for (const kept: unknown[] = []; ; ) kept.push(new Array(1_000_000).fill(position));
    },
  },
};

class TestTree implements FileSystem {
  readonly type = "test";
  readonly label = "";
  readonly root = root;
  readonly statistics = {
    blockSize: 4096,
    blocks: 1000,
    freeBlocks: 250,
    files: 300,
    freeFiles: 7,
    nameLength: 255,
  };
  extendedAttributes?: (file: FileId) => ReadonlyMap<string, Uint8Array>;

  constructor(private readonly data: TestTreeData) {
    if (!data.noAttributes)
      this.extendedAttributes = (file) =>
        new Map(
          file === 1
            ? [["user.note", Buffer.from("a note")] as const, ["user.other", Buffer.alloc(2000, 7)] as const]
            : [],
        );
  }

  private node(file: FileId): Node {
    const node = file >= firstOfMany ? { kind: "file" as const, size: file - firstOfMany } : nodes[file];
    if (!node) throw corrupt(`there is no file ${file}`);
    return node;
  }

  attributes(file: FileId): Attributes {
    const { kind, size, allocated } = this.node(file);
    return {
      kind,
      mode: kind === "directory" ? 0o755 : 0o644,
      inode: file + 10,
      links: 1,
      owner: 1234,
      group: 4321,
      size,
      allocated: allocated ?? size,
      accessed: time,
      modified: { seconds: -86400, nanoseconds: 500_000_000 },
      changed: { seconds: 5_000_000_000, nanoseconds: 1 },
      born: { seconds: 777, nanoseconds: 999_999_999 },
    };
  }

  lookup(directory: FileId, name: Uint8Array): FileId | undefined {
    const text = Buffer.from(name).toString();
    if (directory === root) return names.get(text);
    if (directory === 7) return subNames.get(text);
    const index = /^entry-([0-9]{6})$/.exec(text)?.[1];
    return index !== undefined && Number(index) < many ? firstOfMany + Number(index) : undefined;
  }

  *list(directory: FileId): Iterable<Entry> {
    if (directory === 5)
      for (let index = 0; index < many; index++)
        yield { name: manyName(index), file: firstOfMany + index, kind: "file", inode: firstOfMany + index + 10 };
    for (const [name, file] of directory === root ? names : directory === 7 ? subNames : [])
      yield { name: Buffer.from(name), file, kind: this.node(file).kind };
  }

  read(file: FileId, position: number, target: Uint8Array): number {
    const node = this.node(file);
    const rest = node.size - position;
    if (rest <= 0 || !node.read) return 0;
    if (file === 12 && this.data.gate) Atomics.wait(this.data.gate, 0, 0);
    return node.read(position, target.length > rest ? target.subarray(0, rest) : target);
  }

  readLink(): Uint8Array {
    return target;
  }

  extentAt(file: FileId, position: number): Extent {
    const { size } = this.node(file);
    if (file !== 2) return { hole: false, length: size - position };
    return { hole: isHole(position), length: big.extent - (position % big.extent) };
  }
}

export function testTree(data: TestTreeData): FileSystem {
  if (data.failsWith) throw corrupt(data.failsWith);
  if (data.exits) process.exit(9);
  if (data.builds && Atomics.add(data.builds, 0, 1) >= (data.mostBuilds ?? 0)) process.exit(10);
  return new TestTree(data);
}
