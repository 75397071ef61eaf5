/** Who shows the files of the disk's ext4 as a tree: Spindle, fuse2fs, and the kernel through a loop device. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { run, spindle } from "./programs.js";
import { inUse } from "./servers.js";
import type { TestDisk } from "./test-disk.js";

export interface TreeServer {
  readonly name: string;
  /** The file that it reads. */
  readonly image: string;
  readonly mount: (point: string) => Promise<unknown>;
  readonly unmount: (point: string) => Promise<unknown>;
}

const isRoot = process.getuid?.() === 0;

export function spindleTree(
  driver: "direct" | "fuse-native",
  image: string,
  name: string = `spindle ${driver}`,
): TreeServer {
  return {
    name,
    image,
    mount: (point) => run(process.execPath, spindle, "mount", image, point, "--driver", driver),
    unmount: (point) => run(process.execPath, spindle, "unmount", point),
  };
}

export function fuse2fsTree(disk: TestDisk): TreeServer {
  return {
    name: "fuse2fs",
    image: disk.path,
    mount: (point) => run("fuse2fs", "-o", `ro,offset=${disk.volume}`, disk.path, point),
    unmount: (point) => run(...(isRoot ? ["umount", point] : ["fusermount3", "-u", point])),
  };
}

/** Needs root. */
export function kernelTree(disk: TestDisk): TreeServer {
  const options = `loop,ro,noload,offset=${disk.volume}`;
  return {
    name: "kernel",
    image: disk.path,
    mount: (point) => run("mount", "-t", "ext4", "-o", options, disk.path, point),
    unmount: (point) => run("umount", point),
  };
}

/** Does something with a fresh mount, of which nothing is cached. */
export async function withTree<T>(server: TreeServer, folder: string, act: (point: string) => Promise<T>): Promise<T> {
  const point = join(folder, "tree-mount");
  mkdirSync(point, { recursive: true });
  inUse.add(point);
  await server.mount(point);
  try {
    return await act(point);
  } finally {
    await server.unmount(point);
    inUse.delete(point);
  }
}
