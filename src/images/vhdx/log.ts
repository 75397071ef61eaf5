/**
 * The log of a VHDX ([MS-VHDX] 2.3): changes of metadata that were promised and perhaps not made before a crash. They
 * are made in memory, over the file; the file itself is never written.
 *
 * The log is a ring of 4 KiB sectors. An entry is a header with descriptors, then a data sector for each data descriptor.
 * Entries whose sequence numbers follow each other are a sequence; it is valid when its last entry (the head) names one
 * of its entries as the tail. The valid sequence with the highest number is replayed from its tail on.
 */
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { corrupt } from "../../errors.js";
import { u64le } from "../fields.js";
import { checksumIsRight, type Header } from "./headers.js";

const sector = 4096;
/** Logs have 1 MiB; a larger one than this is taken for damage. */
const largestLog = 64 << 20;
/** Changes that are replayed at most: a log of 1 MiB has room for half of them. */
const mostChanges = 65536;

interface Entry {
  /** Where in the log, in bytes. */
  readonly position: number;
  readonly bytes: Buffer;
  readonly sequence: number;
  readonly tail: number;
}

interface Patch {
  readonly start: number;
  readonly end: number;
  /** Undefined for zeros. */
  readonly bytes: Buffer | undefined;
}

/** What was replayed. */
export interface Replay {
  readonly source: ByteSource;
  readonly entries: number;
}

/**
 * `file` with the changes of its log.
 * @throws ImageError `corrupt` when the log promises what can't be, or more than the file holds.
 */
export function replayLog(file: ByteSource, header: Header): Replay {
  if (!header.logGuid) return { source: file, entries: 0 };
  const { logOffset, logLength } = header;
  if (logLength % sector !== 0 || logLength > largestLog || logOffset + logLength > file.size || logOffset < 1 << 20)
    throw corrupt(
      `${file.name}: its log should take ${logLength} bytes at byte ${logOffset}, where the file has ${file.size}. The file is truncated or damaged.`,
    );
  const entries = activeSequence(file, header);
  const patches: Patch[] = [];
  let size = file.size;
  let changes = 0;
  for (const { bytes } of entries) {
    if (u64le(bytes, 48) > file.size)
      throw corrupt(
        `${file.name}: its log was written when the file had ${u64le(bytes, 48)} bytes, but it has ${file.size}. The file is truncated.`,
      );
    size = Math.max(size, u64le(bytes, 56));
    changes += bytes.readUInt32LE(24);
    if (changes > mostChanges) throw corrupt(`${file.name}: its log tells of more than ${mostChanges} changes.`);
    for (const patch of patchesOf(file.name, bytes)) {
      apply(patches, patch);
      size = Math.max(size, patch.end);
    }
  }
  if (!Number.isSafeInteger(size)) throw corrupt(`${file.name}: its log makes the file impossibly long.`);
  const source = patches.length === 0 ? file : new PatchedSource(file, patches, size);
  return { source, entries: entries.length };
}

/** The entries to replay, oldest first. Without a valid sequence there are none: a crash in the first entry leaves that. */
function activeSequence(file: ByteSource, { logOffset, logLength, logGuid }: Header): Entry[] {
  const log = readExactly(file, logOffset, logLength, "the log");
  const entries = new Map<number, Entry>();
  /** Honest entries overlap nothing: a log of overlapping ones would take time without end. */
  let effort = 4 * logLength;
  for (let position = 0; position < logLength; position += sector) {
    if (log.toString("latin1", position, position + 4) !== "loge") continue;
    if (!log.subarray(position + 32, position + 48).equals(logGuid!)) continue;
    const length = log.readUInt32LE(position + 8);
    if (length < sector || length % sector !== 0 || length > logLength) continue;
    effort -= length;
    if (effort < 0) throw corrupt(`${file.name}: the entries of its log at byte ${logOffset} overlap.`);
    const end = position + length;
    const bytes =
      end <= logLength
        ? log.subarray(position, end)
        : Buffer.concat([log.subarray(position), log.subarray(0, end - logLength)]);
    if (!checksumIsRight(bytes) || !dataIsWhole(bytes)) continue;
    entries.set(position, { position, bytes, sequence: u64le(bytes, 16), tail: log.readUInt32LE(position + 12) });
  }
  let best: Entry[] = [];
  const seen = new Set<number>();
  for (const first of [...entries.values()].sort((a, b) => a.sequence - b.sequence)) {
    if (seen.has(first.position)) continue;
    const sequence: Entry[] = [];
    for (let entry: Entry | undefined = first; entry && !seen.has(entry.position); ) {
      seen.add(entry.position);
      sequence.push(entry);
      const next: Entry | undefined = entries.get((entry.position + entry.bytes.length) % logLength);
      entry = next?.sequence === entry.sequence + 1 ? next : undefined;
    }
    const head = sequence.at(-1)!;
    const tail = sequence.findIndex(({ position }) => position === head.tail);
    if (tail >= 0 && head.sequence > (best.at(-1)?.sequence ?? -1)) best = sequence.slice(tail);
  }
  return best;
}

/** Bytes of the header and the descriptors: whole sectors. */
const descriptorsEnd = (entry: Buffer) => Math.ceil((64 + entry.readUInt32LE(24) * 32) / sector) * sector;

/** Whether every descriptor and data sector of an entry is of its sequence number. */
function dataIsWhole(entry: Buffer): boolean {
  const count = entry.readUInt32LE(24);
  let data = descriptorsEnd(entry);
  if (data > entry.length) return false;
  for (let at = 64; at < 64 + count * 32; at += 32) {
    if (!entry.subarray(at + 24, at + 32).equals(entry.subarray(16, 24))) return false;
    const kind = entry.toString("latin1", at, at + 4);
    if (kind === "zero") continue;
    if (kind !== "desc" || data + sector > entry.length || entry.toString("latin1", data, data + 4) !== "data")
      return false;
    if (entry.readUInt32LE(data + 4) !== entry.readUInt32LE(20)) return false;
    if (entry.readUInt32LE(data + sector - 4) !== entry.readUInt32LE(16)) return false;
    data += sector;
  }
  return true;
}

function* patchesOf(name: string, entry: Buffer): Iterable<Patch> {
  const count = entry.readUInt32LE(24);
  let data = descriptorsEnd(entry);
  for (let at = 64; at < 64 + count * 32; at += 32) {
    const start = u64le(entry, at + 16);
    const zeros = entry.toString("latin1", at, at + 4) === "zero";
    const length = zeros ? u64le(entry, at + 8) : sector;
    if (start % sector !== 0 || length % sector !== 0 || !Number.isSafeInteger(start + length))
      throw corrupt(`${name}: its log changes ${length} bytes at byte ${start}, which are no whole sectors.`);
    if (length === 0) continue;
    if (zeros) yield { start, end: start + length, bytes: undefined };
    else {
      const bytes = Buffer.from(entry.subarray(data, data + sector));
      // The first 8 and the last 4 bytes are in the descriptor: their places hold a signature and sequence numbers.
      entry.copy(bytes, 0, at + 8, at + 16);
      entry.copy(bytes, sector - 4, at + 4, at + 8);
      data += sector;
      yield { start, end: start + sector, bytes };
    }
  }
}

/** Puts a patch over those before it, which stay sorted and free of overlaps. */
function apply(patches: Patch[], patch: Patch): void {
  const from = firstEndingAfter(patches, patch.start);
  let to = from;
  const rest: Patch[] = [];
  for (; to < patches.length && patches[to]!.start < patch.end; to++) {
    const { start, end, bytes } = patches[to]!;
    if (start < patch.start) rest.push({ start, end: patch.start, bytes: bytes?.subarray(0, patch.start - start) });
    if (end > patch.end) rest.push({ start: patch.end, end, bytes: bytes?.subarray(patch.end - start) });
  }
  patches.splice(from, to - from, ...[...rest, patch].sort((a, b) => a.start - b.start));
}

/** Index of the first patch that ends after `position`. */
function firstEndingAfter(patches: readonly Patch[], position: number): number {
  let low = 0;
  for (let high = patches.length; low < high; ) {
    const middle = (low + high) >> 1;
    if (patches[middle]!.end > position) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** A file with patches over it; what lies behind the file's end and under no patch is zeros. */
class PatchedSource implements ByteSource {
  constructor(
    private readonly file: ByteSource,
    private readonly patches: readonly Patch[],
    readonly size: number,
  ) {}

  get name(): string {
    return this.file.name;
  }

  read(position: number, target: Uint8Array): number {
    const most = Math.min(target.length, this.size - position);
    if (most <= 0) return 0;
    const patch = this.patches[firstEndingAfter(this.patches, position)];
    if (patch && patch.start <= position) {
      const part = target.subarray(0, Math.min(most, patch.end - position));
      if (patch.bytes) part.set(patch.bytes.subarray(position - patch.start, position - patch.start + part.length));
      else part.fill(0);
      return part.length;
    }
    const part = target.subarray(0, Math.min(most, (patch?.start ?? this.size) - position));
    if (position < this.file.size) return this.file.read(position, part);
    part.fill(0);
    return part.length;
  }

  willRead(position: number, length: number): void {
    const rest = this.file.size - position;
    if (rest > 0) this.file.willRead?.(position, Math.min(length, rest));
  }

  /** Few bytes are patched, and whether one is matters less than that the answer is quick. */
  isFar(position: number): boolean {
    return position < this.file.size && this.file.isFar?.(position) === true;
  }
}
