/** The tree of interrupts.test.ts: one file, whose bytes from 4096 on never come. */
import type { WhileWaiting } from "../../bytes/byte-source.js";
import type { ChunkCache } from "../../bytes/chunk-cache.js";
import type { FileSystem } from "../../filesystems/filesystem.js";

const nothing = new Int32Array(new SharedArrayBuffer(4));
const time = { seconds: 0, nanoseconds: 0 };

export function buildTree(
  _data: unknown,
  _cache: ChunkCache,
  _worker: number,
  whileWaiting?: WhileWaiting,
): FileSystem {
  return {
    type: "test",
    label: "",
    root: 0,
    statistics: { blockSize: 1, blocks: 1, freeBlocks: 0, files: 1, freeFiles: 0, nameLength: 255 },
    attributes: (file) => ({
      ...{ kind: "file", mode: 0o444, inode: file, links: 1, owner: 0, group: 0, size: 8192, allocated: 0 },
      ...{ accessed: time, modified: time, changed: time },
    }),
    lookup: () => 3,
    list: () => [],
    read(_file, position, target) {
      for (let waited = 0; position >= 4096; waited += 20) {
        Atomics.wait(nothing, 0, 0, 20);
        whileWaiting?.(waited, position);
      }
      target.fill(7);
      return target.length;
    },
    readLink: () => new Uint8Array(),
  };
}
