/** A tree with everything that a path-based driver could get wrong; built by the test and by the server alike. */

import { corrupt } from "../src/errors.js";
import type { Attributes, Entry, FileId, FileKind, FileSystem } from "../src/filesystems/filesystem.js";
import type { TreeBuilder } from "../src/fuse/driver.js";

/** Byte `position` of every file of the tree. */
export const byteAt = (position: number): number => (position * 31 + Math.floor(position / 251)) & 0xff;

export const bigSize = 5 * 2 ** 30 + 12_345;
/** The range of `damaged` that can't be read. */
export const damage = { from: 1_000_000, to: 1_065_536 };
export const attributeValue = Buffer.from("a value\0with a NUL and \xff", "latin1");
export const manyNames = 3000;

interface Node {
  readonly kind: FileKind;
  readonly size?: number;
  readonly mode?: number;
  readonly target?: string;
  readonly device?: { major: number; minor: number };
  readonly entries?: readonly (readonly [Uint8Array, FileId])[];
}

const name = (text: string) => Buffer.from(text);
const nodes: readonly Node[] = [
  {
    kind: "directory",
    entries: [
      [name("big"), 1],
      [name("damaged"), 2],
      [name("link"), 3],
      [name("folder"), 4],
      [name("null"), 5],
      [Buffer.from([0x62, 0xff, 0x64]), 6],
      [name("é ü\n"), 6],
      [name("many"), 7],
      [name("set-id"), 8],
      [name("old"), 9],
    ],
  },
  { kind: "file", size: bigSize },
  { kind: "file", size: 3_000_000 },
  { kind: "symlink", target: "folder/inner" },
  { kind: "directory", entries: [[name("inner"), 6]] },
  { kind: "character", device: { major: 1, minor: 3 } },
  { kind: "file", size: 777 },
  { kind: "directory", entries: [...Array(manyNames)].map((_, index) => [name(`entry number ${index}`), 6] as const) },
  { kind: "file", size: 10, mode: 0o4755 },
  { kind: "file", size: 10 },
];

export const build: TreeBuilder = (): FileSystem => ({
  type: "test",
  label: "",
  root: 0,
  statistics: { blockSize: 4096, blocks: 2 ** 34, freeBlocks: 0, files: 10, freeFiles: 0, nameLength: 255 },
  attributes(file): Attributes {
    const { kind, size = 0, mode, target, device } = nodes[file]!;
    const seconds = file === 9 ? -86_400 : 1_600_000_000;
    const time = { seconds, nanoseconds: 123_000_000 };
    return {
      kind,
      mode: mode ?? (kind === "directory" ? 0o755 : 0o644),
      inode: file + 1,
      links: 1,
      owner: 1234,
      group: 4_000_000_000,
      size: target?.length ?? size,
      allocated: file === 1 ? 512 * 100 : size,
      device,
      accessed: time,
      modified: time,
      changed: time,
    };
  },
  lookup: (directory, wanted) =>
    nodes[directory]!.entries?.find(([each]) => Buffer.compare(each, Buffer.from(wanted)) === 0)?.[1],
  *list(directory): Iterable<Entry> {
    for (const [each, file] of nodes[directory]!.entries ?? []) yield { name: each, file, kind: nodes[file]!.kind };
  },
  read(file, position, target) {
    // Short reads, as at the edges of clusters.
    const count = Math.min(target.length, nodes[file]!.size! - position, 40_000 - (position % 40_000));
    if (count <= 0) return 0;
    if (file === 2 && position < damage.to && position + count > damage.from)
      throw corrupt(`test.img: chunk 15 is damaged, disk bytes ${damage.from} to ${damage.to}`);
    for (let index = 0; index < count; index++) target[index] = byteAt(position + index);
    return count;
  },
  readLink: (link) => Buffer.from(nodes[link]!.target!),
  extendedAttributes: (file) =>
    new Map(
      file === 6
        ? [
            ["user.note", attributeValue],
            ["user.empty", Buffer.alloc(0)],
          ]
        : [],
    ),
});
