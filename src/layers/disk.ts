import type { ByteSource, Extent } from "../bytes/byte-source.js";
import type { Layer, Run } from "./layer.js";

/** The whole of a disk: every byte answered for. */
export interface Disk extends ByteSource {
  /** The hole or the data at `position` (< size), as far as it is known without reading data. */
  extentAt(position: number): Extent;
  /** Bytes in `[from, to)` that aren't holes; of a very fragmented disk, what its beginning lets one expect. */
  dataBytes(from: number, to: number): number;
  /** How many bytes from `position` (< size) on are zeros by one look at the tables; 0 where something is stored. */
  zerosAt(position: number): number;
}

/** Runs that are counted at most: a map may have millions, and its bytes are asked for when a file is first looked at. */
const mostSteps = 16384;

/**
 * A disk made of layers, newest first: a byte is asked of the first; what that leaves absent is asked of the next, and
 * what nobody has, or what lies beyond a shorter parent, is zero. This is the one place where layers meet.
 */
export class LayeredDisk implements Disk {
  readonly size: number;

  constructor(
    readonly name: string,
    private readonly layers: readonly Layer[],
  ) {
    this.size = layers[0]!.size;
  }

  read(position: number, target: Uint8Array): number {
    const rest = this.size - position;
    if (rest <= 0) return 0;
    const run = this.locate(position);
    const length = Math.min(run.length, target.length, rest);
    const part = length === target.length ? target : target.subarray(0, length);
    if (run.kind !== "stored") {
      part.fill(0);
      return length;
    }
    return run.source.read(run.at, part);
  }

  willRead(position: number, length: number): void {
    const end = Math.min(position + length, this.size);
    for (let at = position; at < end; ) {
      const run = this.locate(at);
      const part = Math.min(run.length, end - at);
      if (run.kind === "stored") run.source.willRead?.(run.at, part);
      at += part;
    }
  }

  extentAt(position: number): Extent {
    const first = this.locate(position);
    const hole = first.kind !== "stored";
    let length = first.length;
    // Neighbouring runs of the same kind are one extent; a bound keeps the answer quick on a fragmented image.
    for (let steps = 0; steps < 1024 && position + length < this.size; steps++) {
      const next = this.locate(position + length);
      if ((next.kind !== "stored") !== hole) break;
      length += next.length;
    }
    return { hole, length: Math.min(length, this.size - position) };
  }

  zerosAt(position: number): number {
    const { kind, length } = this.locate(position);
    return kind === "stored" ? 0 : Math.min(length, this.size - position);
  }

  isFar(position: number): boolean {
    const run = this.locate(position);
    return run.kind === "stored" && run.source.isFar?.(run.at) === true;
  }

  dataBytes(from: number, to: number): number {
    const top = this.layers[0]!;
    let bytes = 0;
    let steps = 0;
    for (let position = from; position < to; ) {
      const known = top.dataWithin?.(position, to);
      if (known) {
        bytes += known.bytes;
        position += known.length;
        continue;
      }
      if (steps++ >= mostSteps) return Math.min(to - from, Math.round((bytes / (position - from)) * (to - from)));
      const run = this.locate(position);
      const length = Math.min(run.length, to - position);
      if (run.kind === "stored") bytes += length;
      position += length;
    }
    return bytes;
  }

  private locate(position: number): Run {
    return topmost(this.layers, this.size, position).run;
  }
}

/**
 * The run at `position` (< `size`) of the first layer that has it, cut to where every layer above leaves it absent; and
 * that layer's place in the chain, undefined where none has it.
 */
export function topmost(
  layers: readonly Layer[],
  size: number,
  position: number,
): { readonly run: Run; readonly layer: number | undefined } {
  let length = Number.POSITIVE_INFINITY;
  for (let number = 0; number < layers.length; number++) {
    const layer = layers[number]!;
    const rest = layer.size - position;
    if (rest <= 0) break; // a parent that is shorter than its child
    const run = layer.locate(position);
    const cut = Math.min(run.length, rest);
    if (cut < length) length = cut;
    if (run.kind !== "absent") return { run: run.length === length ? run : { ...run, length }, layer: number };
  }
  return { run: { kind: "zero", length: Number.isFinite(length) ? length : size - position }, layer: undefined };
}
