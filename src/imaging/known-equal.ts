/**
 * What two disks have in common without reading their data: holes, and what both take from the same layer, since the
 * same file says the same of the same place.
 */
import { fstatSync } from "node:fs";
import type { OpenedLayers } from "../chain.js";
import { topmost } from "../layers/disk.js";

export class KnownEqual {
  /** Of each layer of the first disk its place in the chain of the second; -1 where that hasn't it. */
  private readonly shared: readonly number[];

  constructor(
    private readonly a: OpenedLayers,
    private readonly b: OpenedLayers,
  ) {
    const keys = identities(b);
    this.shared = identities(a).map((key) => keys.indexOf(key));
  }

  /**
   * How far the disks are known to be equal from `position` on, or, where `equal` is false, how far they are not. The
   * position is within both disks, and so is what lies before the stretch's end.
   */
  at(position: number): { readonly equal: boolean; readonly length: number } {
    const { a, b } = this;
    const one = topmost(a.layers, a.disk.size, position);
    const other = topmost(b.layers, b.disk.size, position);
    const end = Math.min(a.disk.size, b.disk.size);
    const length = Math.min(one.run.length, other.run.length, end - position);
    if (one.run.kind !== "stored" && other.run.kind !== "stored") return { equal: true, length };
    const equal = one.layer !== undefined && other.layer !== undefined && this.shared[one.layer] === other.layer;
    return { equal, length };
  }
}

/**
 * A word for each layer that another has only if it is the same file, opened in the same way: its path (from which its
 * further files are found), its number on its device, its format, and for the newest the snapshot that was asked for.
 */
function identities({ layers, data }: OpenedLayers): string[] {
  const { snapshot = "", format = "" } = data.spec;
  return layers.map((layer, index) => {
    const fd = data.files.find(({ path }) => path === layer.name)?.fd;
    const { dev, ino } = fd === undefined ? { dev: "?", ino: index } : fstatSync(fd, { bigint: true });
    return JSON.stringify([
      layer.name,
      `${dev}:${ino}`,
      layer.format,
      ...(index === 0 ? [snapshot, format] : ["", ""]),
    ]);
  });
}
