/**
 * Checks of an image whose format has no checksums of its data: that every table entry leads somewhere, that no two
 * stretches of the disk, or of tables, are kept in the same place, and that what is packed unpacks. That the data are as
 * they were written can't be told.
 *
 * The map is walked once by one thread (piece 0). Places are compared by their sorted starts and ends: intervals are
 * disjoint just when the end of the nth is never behind the start of the one after it. Packed chunks are unpacked by all
 * threads (the other pieces).
 */
import type { ByteSource } from "../bytes/byte-source.js";
import type { PackedChunks } from "../bytes/chunk-cache.js";
import { ImageError } from "../errors.js";
import type { Damage, Integrity, Layer, PieceReport } from "../layers/layer.js";

export interface CheckedMap extends Pick<Layer, "name" | "size" | "locate"> {
  /** Bytes of the disk that one entry of the tables tells of. */
  readonly blockSize: number;
  /** Where stored runs are kept whose places are compared. */
  readonly source: ByteSource;
  /** What packed runs are read from, and what they are made of. */
  readonly unpacked?: ByteSource;
  readonly packed?: PackedChunks;
  /** Places of `source` that aren't data: the header, the tables. */
  reserved?(): Iterable<ReservedPlace>;
  /** What was found to be wrong when the image was opened, as sentences with the file's name. */
  readonly complaints?: readonly string[];
  /** What a sound image still has to be told of, as sentences with the file's name. */
  readonly notes?: readonly string[];
}

export interface ReservedPlace {
  readonly position: number;
  readonly length: number;
  /** For messages: `a table`. */
  readonly what: string;
  /** The stretch of the disk that depends on it; all of it by default. */
  readonly disk?: { readonly position: number; readonly length: number };
}

/** Bytes of disk whose packed chunks one piece unpacks: at least one chunk. */
const pieceSize = 16 << 20;
/** Places that are compared: more would take more than 128 MiB. A full disk of 500 GiB in no order has so many. */
const mostPlaces = 8 << 20;
/** Broken places after which the map is walked no further: each takes time, and a small file can have very many. */
const mostBroken = 10_000;
/** Tables in a place of another that are taken for damage of no more than themselves. */
const mostTablesTwice = 16;
/** Damages that one piece lists; what follows is summed up. */
const mostDamages = 100;

export function mapIntegrity(map: CheckedMap): Integrity {
  const { packed } = map;
  const length = packed ? Math.max(pieceSize, packed.chunkSize) : 0;
  const pieces = packed ? 1 + Math.ceil(map.size / length) : 1;
  let reserved: Reserved | undefined;
  return {
    pieces,
    proves: "tables",
    ...(map.notes && { notes: map.notes }),
    check(piece) {
      reserved ??= reservedOf(map);
      if (piece === 0) return checkMap(map, reserved);
      if (reserved.endless) return { chunks: 0, bytes: 0, damages: [], pieces: pieces - piece };
      return unpackPiece(map, packed!, (piece - 1) * length, length);
    },
  };
}

/** The checks of an image's parts as one. @param start where each part begins on the disk, in bytes. */
export function joinedIntegrity(
  parts: readonly { readonly start: number; readonly integrity: Integrity }[],
): Integrity | undefined {
  if (parts.length === 0) return undefined;
  let pieces = 0;
  const placed = parts.map(({ start, integrity }) => {
    const first = pieces;
    pieces += integrity.pieces;
    return { start, first, integrity };
  });
  return {
    pieces,
    proves: "tables",
    notes: parts.flatMap(({ integrity }) => integrity.notes ?? []),
    check(piece) {
      const { start, first, integrity } = placed.findLast((part) => part.first <= piece)!;
      const report = integrity.check(piece - first);
      const damages = report.damages.map((damage) => ({ ...damage, position: start + damage.position }));
      return { ...report, damages };
    },
  };
}

/** A list of damages that stays short: what goes beyond is one entry. */
class Damages {
  readonly list: Damage[] = [];
  private more = 0;

  constructor(private readonly map: CheckedMap) {}

  add(position: number, length: number, message: string): void {
    const { name: file, size } = this.map;
    const last = this.list.at(-1);
    if (this.list.length < mostDamages)
      this.list.push({ file, position, length: Math.min(length, size - position), message });
    else {
      const end = Math.min(position + length, size);
      const start = this.more++ === 0 ? position : last!.position;
      const sum = {
        file,
        position: start,
        length: end - start,
        message: `${file}: ${this.more} more places are damaged.`,
      };
      if (this.more > 1) this.list.pop();
      this.list.push(sum);
    }
  }
}

interface Reserved {
  readonly places: Places;
  /** Starts of tables that lie in others. */
  readonly conflicts: readonly number[];
  /** Whether there are so many that they make an endless map of a small file: it isn't walked. */
  readonly endless: boolean;
}

function reservedOf(map: CheckedMap): Reserved {
  const places = new Places();
  for (const { position, length } of map.reserved?.() ?? []) places.add(position, length);
  const { starts, count } = places.conflicts();
  return { places, conflicts: starts, endless: count >= mostTablesTwice };
}

function checkMap(map: CheckedMap, reserved: Reserved): PieceReport {
  const damages = new Damages(map);
  for (const message of map.complaints ?? []) damages.add(0, map.size, message);
  if (reserved.endless) {
    tellConflicts({ ...map, locate: () => ({ kind: "zero", length: map.size }) }, reserved.conflicts, damages);
    return { chunks: 0, bytes: 0, damages: damages.list };
  }
  const places = reserved.places.copy();
  let broken = 0;
  walk(
    map,
    (_, length, at) => places.add(at, length),
    (position, length, error) => {
      const last = ++broken >= mostBroken;
      if (last) damages.add(position, map.size - position, `${map.name}: is damaged all over; the rest was left out.`);
      else damages.add(position, length, error.message);
      return !last;
    },
  );
  const { starts } = places.conflicts();
  if (starts.length > 0) tellConflicts(map, starts, damages);
  const notes = places.full
    ? [`${map.name}: is too fragmented to look for places that are used twice; that was left out.`]
    : [];
  return { chunks: 0, bytes: 0, damages: damages.list, ...(notes.length > 0 && { notes }) };
}

/** Goes through the map: every run that is kept in `source`, and every place where it is broken, while `broken` says so. */
function walk(
  map: CheckedMap,
  stored: (position: number, length: number, at: number) => void,
  broken: (position: number, length: number, error: ImageError) => boolean,
): void {
  for (let position = 0; position < map.size; ) {
    try {
      const run = map.locate(position);
      if (run.kind === "stored" && run.source === map.source) stored(position, run.length, run.at);
      position += run.length;
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      const next = (Math.floor(position / map.blockSize) + 1) * map.blockSize;
      if (!broken(position, next - position, error)) return;
      position = next;
    }
  }
}

/** Intervals of a file. */
class Places {
  private starts = new Float64Array(1024);
  private ends = new Float64Array(1024);
  private count = 0;
  /** Whether there were more than are kept. */
  full = false;

  add(position: number, length: number): void {
    if (this.count > 0 && this.ends[this.count - 1] === position) {
      this.ends[this.count - 1] = position + length;
      return;
    }
    if (this.count >= mostPlaces) {
      this.full = true;
      return;
    }
    if (this.count === this.starts.length) {
      this.starts = grown(this.starts);
      this.ends = grown(this.ends);
    }
    this.starts[this.count] = position;
    this.ends[this.count++] = position + length;
  }

  copy(): Places {
    const other = new Places();
    other.starts = this.starts.slice();
    other.ends = this.ends.slice();
    other.count = this.count;
    other.full = this.full;
    return other;
  }

  /** Starts of intervals that lie in another, ascending, some at most; and how many intervals do. */
  conflicts(): { readonly starts: readonly number[]; readonly count: number } {
    if (this.full) return { starts: [], count: 0 };
    const starts = this.starts.slice(0, this.count).sort();
    const ends = this.ends.slice(0, this.count).sort();
    const found: number[] = [];
    let count = 0;
    for (let nth = 1; nth < this.count; nth++) {
      if (starts[nth]! >= ends[nth - 1]!) continue;
      count++;
      if (found.length < mostDamages && found.at(-1) !== starts[nth]) found.push(starts[nth]!);
    }
    return { starts: found, count };
  }
}

function grown(numbers: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(numbers.length * 2);
  larger.set(numbers);
  return larger;
}

/** Says for each place that is used twice by whom, which takes another walk. */
function tellConflicts(map: CheckedMap, conflicts: readonly number[], damages: Damages): void {
  let broken = 0;
  const users: { words: string; position: number; length: number }[][] = conflicts.map(() => []);
  const use = (
    position: number,
    length: number,
    user: (at: number) => { words: string; position: number; length: number },
  ) => {
    for (let nth = 0; nth < conflicts.length; nth++) {
      const at = conflicts[nth]!;
      if (at >= position && at < position + length && users[nth]!.length < 3) users[nth]!.push(user(at));
    }
  };
  for (const { position, length, what, disk = { position: 0, length: map.size } } of map.reserved?.() ?? [])
    use(position, length, () => ({ words: what, ...disk }));
  walk(
    map,
    (position, length, at) =>
      use(at, length, (place) => {
        const first = position + (place - at);
        const whole = Math.min(map.blockSize, position + length - first);
        return { words: `disk bytes ${first} to ${first + whole - 1}`, position: first, length: whole };
      }),
    () => ++broken < mostBroken,
  );
  for (const [nth, at] of conflicts.entries()) {
    const [first, second] = users[nth]!;
    if (!first || !second) continue;
    const words = users[nth]!.map((user) => user.words).join(" and ");
    const { name } = map.source;
    damages.add(
      second.position,
      second.length,
      `${map.name}: ${words} are kept in the same place, byte ${at}${name === map.name ? "" : ` of ${name}`}: at most one of them is right.`,
    );
  }
}

function unpackPiece(map: CheckedMap, packed: PackedChunks, start: number, length: number): PieceReport {
  const damages = new Damages(map);
  const { chunkSize } = packed;
  const buffer = Buffer.allocUnsafe(chunkSize);
  const end = Math.min(start + length, map.size);
  let chunks = 0;
  let bytes = 0;
  let position = start;
  while (position < end) {
    let runEnd: number;
    try {
      const run = map.locate(position);
      runEnd = position + run.length;
      if (run.kind !== "stored" || run.source !== map.unpacked) {
        position = runEnd;
        continue;
      }
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      position = (Math.floor(position / map.blockSize) + 1) * map.blockSize; // told by the walk
      continue;
    }
    for (const stop = Math.min(runEnd, end); position < stop; ) {
      const chunk = Math.floor(position / chunkSize);
      const whole = Math.min(chunkSize, packed.size - chunk * chunkSize);
      try {
        packed.unpack(chunk, buffer.subarray(0, whole));
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
        damages.add(chunk * chunkSize, whole, error.message);
      }
      chunks++;
      bytes += whole;
      position = (chunk + 1) * chunkSize;
    }
  }
  // A run without data that goes on behind this piece is passed at once.
  const passed = Math.max(1, Math.floor((Math.min(position, map.size) - start) / length));
  return { chunks, bytes, damages: damages.list, pieces: passed };
}
