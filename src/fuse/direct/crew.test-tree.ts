/**
 * The tree of crew.test.ts: a disk that is written to, of a base that is unpacked so far as the test says. Its partition is
 * all of it from 1 MiB on. Built in each thread, over one file and one memory.
 */
import { type ByteSource, NotYet, type WhileWaiting } from "../../bytes/byte-source.js";
import type { ChunkCache } from "../../bytes/chunk-cache.js";
import type { FileSystem } from "../../filesystems/filesystem.js";
import type { Layer } from "../../layers/layer.js";
import { writableDiskView } from "../../view/disk-view.js";
import { type OverlayData, overlayDisk } from "../../writable.js";

export const size = 4 * 1024 * 1024;
export const partitionAt = 1024 * 1024;
export const baseByte = (position: number) => (position % 251) + 1;

export interface TreeData {
  readonly overlay: OverlayData;
  /** Int32: bytes of the base that are there. */
  readonly reached: SharedArrayBuffer;
}

export function baseLayer({ reached }: TreeData, whileWaiting: WhileWaiting): Layer {
  const words = new Int32Array(reached);
  const source: ByteSource = {
    name: "base",
    size,
    read(position, target) {
      const wanted = Math.min(size, position + target.length);
      for (const begun = performance.now(); ; ) {
        const there = Atomics.load(words, 0);
        if (there >= wanted) break;
        whileWaiting(performance.now() - begun, position);
        Atomics.wait(words, 0, there, 10);
      }
      for (let at = position; at < wanted; at++) target[at - position] = baseByte(at);
      return wanted - position;
    },
    isFar: (position) => position >= Atomics.load(words, 0),
  };
  return {
    ...{ name: "base", format: "test", parent: undefined, facts: {}, size },
    locate: (position) => ({ kind: "stored", length: size - position, source, at: position }),
  };
}

export function buildTree(data: unknown, _: ChunkCache, worker: number, whileWaiting?: WhileWaiting): FileSystem {
  const all = data as TreeData;
  const layers = [baseLayer(all, whileWaiting ?? ((_waited, position) => fail(position)))];
  const volume = { number: 1, position: partitionAt, size: size - partitionAt };
  const rest = { type: "", typeCode: "", label: "", id: "", bootable: false };
  const table = { scheme: "mbr" as const, sectorSize: 512, id: "", volumes: [{ ...volume, ...rest }], warnings: [] };
  return writableDiskView(overlayDisk(all.overlay, layers, worker), table, {
    created: { seconds: 0, nanoseconds: 0 },
  });
}

const fail = (position: number): never => {
  throw new NotYet(position);
};
