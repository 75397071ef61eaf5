/**
 * Where two disks differ. The main thread passes over what is known to be equal in long stretches; workers pass over the
 * rest of it, compare digests where both have them, and read only what is left.
 */
import type { OpenedLayers } from "../chain.js";
import { SpinLayer } from "../images/spin/reader.js";
import { settings } from "../settings.js";
import type { DiffInit, DiffJob, DiffResult } from "./diff-worker.js";
import { Differences } from "./differences.js";
import { KnownEqual } from "./known-equal.js";
import { WorkerPool } from "./pool.js";

export interface DiffOptions {
  readonly threads: number;
  /** Told bytes of disk done, of `total`. */
  progress?(done: number, total: number): void;
}

/**
 * The stretches in which two disks differ, to the sector. Where one is longer, all that it has beyond the other's end is
 * the last of them.
 * @throws ImageError as reading either disk does
 */
export async function diffDisks(a: OpenedLayers, b: OpenedLayers, options: DiffOptions): Promise<Differences> {
  const common = Math.min(a.disk.size, b.disk.size);
  const total = Math.max(a.disk.size, b.disk.size);
  const differences = new Differences(total);
  if (!haveOneContent(a, b)) await compare(a, b, common, differences, options);
  differences.add(common, total - common);
  return differences;
}

async function compare(
  a: OpenedLayers,
  b: OpenedLayers,
  end: number,
  differences: Differences,
  { threads, progress }: DiffOptions,
): Promise<void> {
  const known = new KnownEqual(a, b);
  const { jobSize } = settings;
  const init: DiffInit = { a: a.data, b: b.data, jobSize };
  const pool = new WorkerPool<DiffJob, DiffResult>(new URL("./diff-worker.js", import.meta.url), init, threads);
  const running: { readonly result: Promise<DiffResult>; readonly end: number }[] = [];
  const take = async () => {
    const { result, end: done } = running.shift()!;
    const pairs = await result;
    for (let i = 0; i < pairs.length; i += 2) differences.add(pairs[i]!, pairs[i + 1]!);
    progress?.(done, end);
  };
  try {
    for (let position = 0; position < end; ) {
      const { equal, length } = known.at(position);
      // Jobs end at multiples of the job size, so that a chunk is not unpacked for two of them.
      const rest = Math.min(jobSize - (position % jobSize), end - position);
      if (equal && length >= rest) {
        const reach = position + length;
        position = reach === end ? end : reach - (reach % jobSize);
        continue;
      }
      running.push({ result: pool.run({ position, length: rest }), end: position + rest });
      position += rest;
      if (running.length > threads * 4) await take();
    }
    while (running.length > 0) await take();
  } finally {
    await pool.close();
  }
}

/** Whether two chains of .spin images say that they have the same content: the same bytes, and the same chunk size. */
function haveOneContent(a: OpenedLayers, b: OpenedLayers): boolean {
  const [one, other] = [a.layers[0], b.layers[0]];
  return (
    one instanceof SpinLayer && other instanceof SpinLayer && one.trailer.contentRoot.equals(other.trailer.contentRoot)
  );
}
