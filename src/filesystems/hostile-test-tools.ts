/**
 * Tests only: what a hostile filesystem may do to its reader. A small sound image is changed where its metadata lie, opened
 * and looked through as a mount would: every name, attribute, link, stream and hole, and the first and last bytes of every
 * file. Whatever comes out has to keep the contract of FileSystem; only ImageErrors may be thrown; the number of names and
 * of reads, the time and the memory are bounded.
 */
import vm from "node:vm";
import fc from "fast-check";
import { type ByteSource, NotYet } from "../bytes/byte-source.js";
import { ImageError } from "../errors.js";
import type { Format } from "../format.js";
import type { Attributes, FileId, FileSystem, Time } from "./filesystem.js";
import { testSurroundings } from "./shared-test-images.js";

export interface Sample {
  readonly name: string;
  readonly format: Format<FileSystem>;
  readonly bytes: Buffer;
  /** Makes checksums right again, so that lies are believed. */
  readonly mend?: (bytes: ChangedBytes) => void;
}

const PAGE = 4096;

/** An image with changes, of which only the pages that differ are kept. */
export class ChangedBytes implements ByteSource {
  readonly name = "hostile";
  size: number;
  reads = 0;
  bytesRead = 0;
  private readonly pages = new Map<number, Buffer>();

  constructor(private readonly sound: Buffer) {
    this.size = sound.length;
  }

  /** Counts what is asked for: a reader in a circle is found by that, whatever the machine's speed. */
  read(position: number, target: Uint8Array): number {
    if (!Number.isInteger(position) || position < 0) throw new Error(`a read at ${position}`);
    this.reads++;
    const length = Math.min(target.length, this.size - position);
    if (length <= 0) return 0;
    this.bytesRead += length;
    if (this.reads > MOST_READS || this.bytesRead > MOST_BYTES_READ)
      throw new Error(`read without end: ${this.reads} reads of ${this.bytesRead} bytes`);
    this.copy(position, target.subarray(0, length));
    return length;
  }

  copy(position: number, target: Uint8Array): void {
    for (let done = 0; done < target.length; ) {
      const at = position + done;
      const within = at % PAGE;
      const length = Math.min(PAGE - within, target.length - done);
      const page = this.pages.get((at - within) / PAGE);
      target.set(page ? page.subarray(within, within + length) : this.sound.subarray(at, at + length), done);
      done += length;
    }
  }

  bytesAt(position: number, length: number): Buffer {
    const bytes = Buffer.alloc(Math.max(0, Math.min(length, this.sound.length - position)));
    this.copy(position, bytes);
    return bytes;
  }

  write(position: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length && position + done < this.sound.length; ) {
      const at = position + done;
      const within = at % PAGE;
      const number = (at - within) / PAGE;
      let page = this.pages.get(number);
      if (!page) {
        page = Buffer.from(this.sound.subarray(number * PAGE, (number + 1) * PAGE));
        this.pages.set(number, page);
      }
      const part = bytes.subarray(done, Math.min(bytes.length, done + page.length - within));
      page.set(part, within);
      done += part.length;
    }
  }
}

/** A walk through a sound sample takes some hundreds of reads. */
const MOST_READS = 400_000;
const MOST_BYTES_READ = 2 ** 32;
/** Of all directories together; the samples have some hundred names and at most 64 MiB. */
const MOST_NAMES = 100_000;
const MOST_EXTENTS = 300;
/** Files of so many bytes are read whole. */
const READ_WHOLE = 1 << 19;
const MOST_READ_WHOLE = 1 << 22;
/** Seconds; a walk takes some milliseconds, and even a loaded machine has done it by then. */
const PATIENCE = 100;

/** Where a sound image's metadata lie. */
export interface Places {
  /** Positions, multiples of 8, at which the metadata aren't all zeros. */
  readonly telling: Uint32Array;
  /** All of the metadata: positions, multiples of 8. */
  readonly all: Uint32Array;
  /** What isn't zeros in all of the image. */
  readonly anywhere: Uint32Array;
}

/** Finds the metadata of a sample: what is read of it while its tree is looked through, and no file is read. */
export function placesOf({ format, bytes, mend }: Sample): Places {
  const touched = new Uint8Array(Math.ceil(bytes.length / 8));
  const source = new (class extends ChangedBytes {
    override read(position: number, target: Uint8Array): number {
      const count = super.read(position, target);
      touched.fill(1, Math.floor(position / 8), Math.ceil((position + count) / 8));
      return count;
    }
  })(bytes);
  mend?.(source);
  if (!format.recognises(source)) throw new Error("a sound sample isn't recognised");
  const tree = format.open(source, testSurroundings());
  const { errors } = lookThrough(tree, { content: false });
  if (errors.length > 0) throw new Error(`a sound sample has errors: ${errors[0]}`);
  const telling: number[] = [];
  const all: number[] = [];
  const anywhere: number[] = [];
  for (let index = 0; index < touched.length; index++) {
    const isTelling = bytes.subarray(index * 8, index * 8 + 8).some((byte) => byte !== 0);
    if (isTelling) anywhere.push(index * 8);
    if (!touched[index]) continue;
    all.push(index * 8);
    if (isTelling) telling.push(index * 8);
  }
  return { telling: Uint32Array.from(telling), all: Uint32Array.from(all), anywhere: Uint32Array.from(anywhere) };
}

/** One lie. `place` and `from` choose a place of `Places` each, `value` is what a field is set to. */
interface Lie {
  readonly kind: "byte" | "bit" | "field" | "number from elsewhere" | "copy" | "zeros" | "cut";
  readonly where: keyof Places;
  readonly place: number;
  readonly from: number;
  readonly within: number;
  readonly width: 1 | 2 | 4 | 6 | 8;
  readonly big: boolean;
  readonly value: number;
  readonly length: number;
}

const edges = [0, 1, 2, 3, 7, 8, 0x2f, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1];

const lie: fc.Arbitrary<Lie> = fc.record({
  kind: fc.oneof(
    { weight: 5, arbitrary: fc.constant("byte" as const) },
    { weight: 4, arbitrary: fc.constant("bit" as const) },
    { weight: 8, arbitrary: fc.constant("field" as const) },
    { weight: 5, arbitrary: fc.constant("number from elsewhere" as const) },
    { weight: 3, arbitrary: fc.constant("copy" as const) },
    { weight: 1, arbitrary: fc.constant("zeros" as const) },
    { weight: 1, arbitrary: fc.constant("cut" as const) },
  ),
  where: fc.oneof(
    { weight: 8, arbitrary: fc.constant("telling" as const) },
    { weight: 2, arbitrary: fc.constant("all" as const) },
    { weight: 2, arbitrary: fc.constant("anywhere" as const) },
  ),
  place: fc.nat(),
  from: fc.nat(),
  within: fc.nat(7),
  width: fc.constantFrom(1, 2, 2, 4, 4, 4, 6, 8),
  big: fc.boolean(),
  value: fc.oneof(fc.constantFrom(...edges), fc.nat(255), fc.nat(65535), fc.nat()),
  length: fc.oneof(fc.constantFrom(8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096), fc.integer({ min: 1, max: 600 })),
});

export const lies = fc.array(lie, { minLength: 1, maxLength: 10, size: "max" });

export function changed(sample: Sample, places: Places, told: readonly Lie[]): ChangedBytes {
  const bytes = new ChangedBytes(sample.bytes);
  for (const one of told) apply(bytes, places, one);
  sample.mend?.(bytes);
  return bytes;
}

function apply(bytes: ChangedBytes, places: Places, { kind, where, place, from, within, width, big, ...told }: Lie) {
  const choose = (number: number) => places[where][number % places[where].length]!;
  const at = choose(place);
  const aligned = at + (within - (within % Math.min(width, 4)));
  if (kind === "byte") bytes.write(at + within, Uint8Array.of(told.value));
  else if (kind === "bit")
    bytes.write(at + within, Uint8Array.of(bytes.bytesAt(at + within, 1)[0]! ^ (1 << (told.value & 7))));
  else if (kind === "field") bytes.write(aligned, field(told.value, width, big));
  else if (kind === "number from elsewhere") bytes.write(aligned, bytes.bytesAt(choose(from), width));
  else if (kind === "copy") bytes.write(at, bytes.bytesAt(choose(from), told.length));
  else if (kind === "zeros") bytes.write(at, new Uint8Array(told.length));
  // Rarely: most would be refused at once.
  else if (told.value % 4 === 0) bytes.size = Math.max(1, Math.min(bytes.size, at + within));
}

/** A number of the width; the greatest 32-bit ones stand for the greatest of that width, 2^63 and its neighbours too. */
function field(value: number, width: number, big: boolean): Buffer {
  const bytes = Buffer.alloc(8);
  if (width === 8 && value === 2 ** 32 - 1) bytes.fill(0xff);
  else if (width === 8 && value === 2 ** 31) bytes[7] = 0x80;
  else if (width === 8 && value === 2 ** 31 - 1) bytes.fill(0xff).writeUInt8(0x7f, 7);
  else bytes.writeUInt32LE(value >>> 0, 0);
  const cut = Buffer.from(bytes.subarray(0, width));
  return big ? cut.reverse() : cut;
}

/** What became of it. */
export interface Outcome {
  /** Undefined where it couldn't be opened. */
  readonly names: number | undefined;
  readonly errors: readonly string[];
}

/** Opens an image and looks through it. @throws Error for whatever a hostile image must not bring about */
export function meet({ format }: Sample, bytes: ChangedBytes): Outcome {
  return inTime(() => {
    if (!format.recognises(bytes)) return { names: undefined, errors: [] };
    try {
      const { names, errors } = lookThrough(format.open(bytes, testSurroundings()), { content: true });
      return { names, errors };
    } catch (error) {
      if (error instanceof ImageError) return { names: undefined, errors: [error.message] };
      throw error;
    }
  });
}

/** Of so many reads of a walk, in even steps, and the first of it, it is tried that their bytes aren't there yet. */
const TRIED_READS = 24;

/**
 * Reads of a sound sample that a compressed disk couldn't answer yet (NotYet), which didn't come to who asked: taken for damage, a
 * filesystem would be shown without what is only waited for. By their numbers, from 1 on.
 */
export function swallowed(sample: Sample): number[] {
  const walk = (late: number): { reads: number; told: boolean } => {
    const signal = new NotYet(0);
    const bytes = new (class extends ChangedBytes {
      override read(position: number, target: Uint8Array): number {
        const count = super.read(position, target);
        if (this.reads === late) throw signal;
        return count;
      }
    })(sample.bytes);
    sample.mend?.(bytes);
    try {
      meet(sample, bytes);
      return { reads: bytes.reads, told: false };
    } catch (error) {
      if (error !== signal) throw error;
      return { reads: bytes.reads, told: true };
    }
  };
  const all = walk(0).reads;
  const step = Math.max(1, Math.floor(all / TRIED_READS));
  const numbers = Array.from({ length: all }, (_, index) => index + 1);
  return numbers.filter((number) => (number <= TRIED_READS || number % step === 0) && !walk(number).told);
}

/** Ends what goes on without end and reads nothing, which counting can't find. */
function inTime<T>(act: () => T): T {
  let result: T | undefined;
  const context = vm.createContext({
    act: () => {
      result = act();
    },
  });
  vm.runInContext("act()", context, { timeout: PATIENCE * 1000 });
  return result!;
}

function lookThrough(tree: FileSystem, { content }: { content: boolean }): { names: number; errors: string[] } {
  const errors: string[] = [];
  let names = 0;
  let whole = 0;
  const buffer = Buffer.alloc(1 << 16);
  const noted = <T>(act: () => T): T | undefined => {
    try {
      return act();
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      // Sentences of a sensible length: names and numbers of the image don't make them longer without end.
      if (error.message.length > 6000) throw new Error(`a message of ${error.message.length} characters`);
      errors.push(error.message);
      return undefined;
    }
  };
  checkFacts(tree);
  noted(() => checkStatistics(tree.statistics));

  const readAt = (file: FileId, size: number, position: number) =>
    noted(() => {
      const target = buffer.subarray(0, 777);
      const count = tree.read(file, position, target);
      if (!(count > 0 && count <= Math.min(777, size - position)))
        throw new Error(`read ${count} at ${position} of ${size}`);
    });
  const readFile = (file: FileId, size: number) => {
    for (const at of [0, size - 1, size >> 1, 4095, 2 ** 31, 2 ** 32 + 5, size - 70_000])
      if (at >= 0 && at < size) readAt(file, size, at);
    for (const at of [size, size + 1, 2 * size + 10 ** 6])
      noted(() => {
        if (tree.read(file, at, buffer) !== 0) throw new Error(`read at ${at} of ${size}`);
      });
    if (size > READ_WHOLE || whole + size > MOST_READ_WHOLE) return;
    noted(() => {
      for (let at = 0; at < size; ) {
        const count = tree.read(file, at, buffer);
        if (!(count > 0 && count <= buffer.length)) throw new Error(`read ${count} at ${at} of ${size}`);
        at += count;
        whole += count;
      }
    });
  };
  const holes = (file: FileId, size: number) => {
    for (const start of [0, size - 1, Math.floor(size / 3)])
      noted(() => {
        for (let at = start, count = 0; at >= 0 && at < size && count < MOST_EXTENTS; count++) {
          const { hole, length } = tree.extentAt!(file, at);
          if (typeof hole !== "boolean" || !(length > 0))
            throw new Error(`an extent of ${length} bytes at ${at} of ${size}`);
          at += length;
        }
      });
  };
  const visit = (file: FileId) => {
    const attributes = noted(() => {
      const attributes = tree.attributes(file);
      checkAttributes(attributes);
      return attributes;
    });
    noted(() => checkXattrs(tree.extendedAttributes?.(file)));
    noted(() => {
      if (JSON.stringify(tree.details?.(file) ?? {}).length > 10_000) throw new Error("absurd details");
    });
    noted(() => {
      for (const name of tree.streams?.(file) ?? []) {
        const stream = tree.stream!(file, name);
        if (!stream || !isSize(stream.size)) throw new Error(`a stream of ${stream?.size} bytes`);
        for (const at of content ? [0, stream.size - 1] : [])
          noted(() => {
            const count = at < 0 || at >= stream.size ? 1 : stream.read(at, buffer.subarray(0, 99));
            if (!(count > 0 && count <= 99)) throw new Error(`read ${count} of a stream`);
          });
      }
    });
    if (!attributes) return;
    if (attributes.kind === "symlink")
      noted(() => {
        const target = tree.readLink(file);
        if (!(target instanceof Uint8Array) || target.length > 1 << 17) throw new Error("an absurd target");
      });
    if (attributes.kind !== "file") return;
    if (tree.extentAt) holes(file, attributes.size);
    if (content) readFile(file, attributes.size);
  };

  const seen = new Set<FileId>([tree.root]);
  const open = [tree.root];
  visit(tree.root);
  for (let folder = open.pop(); folder !== undefined; folder = open.pop()) {
    const directory = folder;
    noted(() => {
      let first: { name: Uint8Array; file: FileId } | undefined;
      for (const { name, file, kind, inode } of tree.list(directory)) {
        if (++names > MOST_NAMES) throw new Error(`listed without end: ${names} names`);
        checkName(name);
        if (!kinds.has(kind)) throw new Error(`an entry of kind ${kind}`);
        if (!isSize(file) || (inode !== undefined && !isSize(inode))) throw new Error(`file ${file}, inode ${inode}`);
        first ??= { name, file };
        noted(() => {
          if (tree.lookup(directory, name) === undefined)
            throw new Error(`${Buffer.from(name)} is listed, and not found`);
        });
        if (seen.has(file)) continue;
        seen.add(file);
        visit(file);
        if (kind === "directory") open.push(file);
      }
      // In the same order on every call.
      for (const again of first ? tree.list(directory) : []) {
        if (again.file !== first!.file || Buffer.compare(again.name, first!.name) !== 0)
          throw new Error("another order on the second call");
        break;
      }
    });
    noted(() => tree.lookup(directory, Buffer.from("no such name")));
    noted(() => tree.lookup(directory, Buffer.from([0xff, 0x2f, 0x00, 0xed, 0xa0, 0x80])));
  }
  return { names, errors };
}

const kinds = new Set(["file", "directory", "symlink", "character", "block", "fifo", "socket"]);

const isSize = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;

function checkName(name: Uint8Array): void {
  const text = Buffer.from(name).toString("latin1");
  if (text === "" || text === "." || text === ".." || /[/\0]/.test(text) || name.length > 1024)
    throw new Error(`the name ${JSON.stringify(text)}`);
}

function checkTime(what: string, time: Time): void {
  const { seconds, nanoseconds } = time;
  if (!Number.isSafeInteger(seconds) || !(Number.isInteger(nanoseconds) && nanoseconds >= 0 && nanoseconds < 1e9))
    throw new Error(`${what} at ${seconds} s and ${nanoseconds} ns`);
}

function checkAttributes(attributes: Attributes): void {
  const { kind, mode, device, accessed, modified, changed, born } = attributes;
  for (const what of ["inode", "links", "owner", "group", "size", "allocated"] as const)
    if (!isSize(attributes[what])) throw new Error(`${what} is ${attributes[what]}`);
  for (const what of ["links", "owner", "group"] as const)
    if (attributes[what] >= 2 ** 32) throw new Error(`${what} is ${attributes[what]}`);
  if (!kinds.has(kind)) throw new Error(`a file of kind ${kind}`);
  if (!(mode >= 0 && mode <= 0o7777)) throw new Error(`mode ${mode}`);
  if (device && !(isSize(device.major) && isSize(device.minor) && device.major < 2 ** 32 && device.minor < 2 ** 32))
    throw new Error(`device ${device.major}:${device.minor}`);
  checkTime("accessed", accessed);
  checkTime("modified", modified);
  checkTime("changed", changed);
  if (born) checkTime("born", born);
}

function checkXattrs(xattrs: ReadonlyMap<string, Uint8Array> | undefined): void {
  let total = 0;
  for (const [name, value] of xattrs ?? []) {
    if (typeof name !== "string" || name === "" || !(value instanceof Uint8Array)) throw new Error(`attribute ${name}`);
    total += name.length + value.length;
  }
  if (total > 1 << 25) throw new Error(`attributes of ${total} bytes`);
}

function checkFacts({ label, type, facts, warnings }: FileSystem): void {
  if (typeof label !== "string" || label.length > 1000 || typeof type !== "string") throw new Error(`label ${label}`);
  if (JSON.stringify(facts ?? {}).length > 100_000) throw new Error("absurd facts");
  if ((warnings ?? []).length > 300) throw new Error(`${warnings!.length} warnings`);
}

function checkStatistics(statistics: FileSystem["statistics"]): void {
  for (const [what, value] of Object.entries(statistics))
    if (value !== undefined && !isSize(value)) throw new Error(`${what} is ${value}`);
  if (statistics.blockSize === 0) throw new Error("blocks of 0 bytes");
}
