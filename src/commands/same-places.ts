/**
 * Whether two files have the same bytes, told from where these lie: in the same places of two disks, which don't differ
 * there. The filesystems are asked to read, and the disks note where from instead of reading (layers/traced-disk.ts).
 */
import { readSize } from "../browsing/contents.js";
import { type ByteSource, readFully } from "../bytes/byte-source.js";
import { ImageError } from "../errors.js";
import type { FileId, FileSystem } from "../filesystems/filesystem.js";
import type { Differences } from "../imaging/differences.js";
import type { Trace, TracedDisk } from "../layers/traced-disk.js";

/** The buffer that both disks watch for; it shares its memory with no other. */
export const traceBuffer = (): Uint8Array => new Uint8Array(new ArrayBuffer(readSize));

interface Side {
  readonly tree: FileSystem;
  readonly disk: TracedDisk;
}

export class SamePlaces {
  constructor(
    private readonly a: Side,
    private readonly b: Side,
    private readonly differences: Differences,
    private readonly buffer: Uint8Array,
  ) {}

  /**
   * Whether the stretch of both files is known to be equal. What a filesystem keeps packed, or within its own records, has
   * no place that it would read straight from: then this is false, and the bytes have to be compared.
   * @param length at most that of the buffer
   */
  knownEqual(a: FileId, b: FileId, position: number, length: number): boolean {
    const target = this.buffer.subarray(0, length);
    const ours = placesOf(this.a, a, position, target);
    if (!ours || ours.some(({ position: at, length: count }) => this.differences.touches(at, count))) return false;
    const theirs = placesOf(this.b, b, position, target);
    return (
      theirs?.length === ours.length &&
      ours.every((one, index) => {
        const other = theirs[index]!;
        return one.at === other.at && one.position === other.position && one.length === other.length;
      })
    );
  }
}

/** Where the bytes of the stretch lie; undefined where not every byte of it lies on the disk as it is. */
function placesOf({ tree, disk }: Side, file: FileId, position: number, target: Uint8Array): Trace[] | undefined {
  const source: ByteSource = {
    name: "",
    size: Number.MAX_SAFE_INTEGER,
    read: (at, part) => tree.read(file, at, part),
  };
  let got = 0;
  let traces: Trace[];
  try {
    traces = disk.tracesOf(() => {
      got = readFully(source, position, target);
    });
  } catch (error) {
    // It is damaged, or has checksums of its own, which what is in the buffer can't pass: reading it tells.
    if (error instanceof ImageError) return undefined;
    throw error;
  }
  if (got !== target.length) return undefined;
  // In the order of the file, each directly behind the one before.
  let covered = 0;
  const places: Trace[] = [];
  for (const trace of traces) {
    if (trace.at !== covered) return undefined;
    covered += trace.length;
    const last = places.at(-1);
    if (last && last.position + last.length === trace.position)
      places[places.length - 1] = { ...last, length: last.length + trace.length };
    else places.push(trace);
  }
  return covered === target.length ? places : undefined;
}
