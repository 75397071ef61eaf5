/**
 * The table of contents of a tar archive: POSIX ustar and pax (IEEE 1003.1, pax, "ustar Interchange Format") and GNU tar's
 * additions (its manual, "Basic Tar Format").
 *
 *   a member:   header 512   data, rounded up to 512
 *   header:     name 100 at 0   size 12 at 124   checksum 8 at 148   type 1 at 156   "ustar" at 257   name's front 155 at 345
 *
 * Numbers are octal, or, with the highest bit set, of base 256. Before a member may stand others that belong to it: its
 * longer name (GNU, type L), or records of any field (pax, type x). Two blocks of zeros end the archive.
 */
import { type ByteSource, readExactly, readFully } from "../../bytes/byte-source.js";
import { corrupt, unsupported } from "../../errors.js";

/** An appliance has a handful; whoever packs more has packed something else. */
const mostMembers = 10_000;
/** Bytes of a long name or of pax records. */
const longestExtension = 1 << 20;
const block = 512;

export interface Member {
  /** Without `./` in front. */
  readonly name: string;
  /** Of its data, in bytes of the archive. */
  readonly position: number;
  readonly size: number;
  /** Whether its data is cut into stretches by GNU tar, holes left out: no plain bytes. */
  readonly sparse: boolean;
}

/** Whether `source` begins as the header of a member does. */
export function isTar(source: ByteSource): boolean {
  const mark = Buffer.alloc(5);
  return readFully(source, 257, mark) === 5 && mark.toString("latin1") === "ustar";
}

/**
 * The regular files of an archive.
 * @throws ImageError `corrupt` for headers that can't be, or data that isn't all there; `unsupported` for too many
 */
export function membersOf(source: ByteSource): Member[] {
  const members: Member[] = [];
  let extension: { name?: string; size?: number; sparse?: boolean } = {};
  let headers = 0;
  for (let position = 0; position + block <= source.size; ) {
    const header = readExactly(source, position, block, "a member's header");
    if (header.every((byte) => byte === 0)) break;
    if (!isHeader(header))
      throw corrupt(
        `${source.name}: byte ${position} of the archive should begin a member, and does not. It is damaged, or was cut and joined.`,
      );
    if (++headers > mostMembers)
      throw unsupported(`${source.name}: is an archive of more than ${mostMembers} members. Take the disk out of it.`);
    const type = String.fromCharCode(header[156]!);
    const data = position + block;
    const belongs = ["L", "K", "x", "g"].includes(type);
    const size = (belongs ? undefined : extension.size) ?? numberAt(source, header, 124, position);
    if (data + size > source.size)
      throw corrupt(
        `${source.name}: the member at byte ${position} should have ${size} bytes of data, but the archive ends at byte ${source.size}. It is truncated or damaged.`,
      );
    position = data + Math.ceil(size / block) * block;
    switch (type) {
      case "L":
        extension.name = text(readExtension(source, data, size));
        break;
      case "x":
        extension = { ...extension, ...paxRecords(source, data, size) };
        break;
      case "g": // of all members: comments, mostly
      case "K": // of a link
        break;
      default: {
        const name = (extension.name ?? nameOf(header)).replace(/^(\.\/+)+/, "");
        const sparse = type === "S" || extension.sparse === true;
        // Of links, folders and devices nothing can be opened; 7 is a file that should lie in one piece.
        if (["0", "\0", "7", "S"].includes(type) && !name.endsWith("/"))
          members.push({ name, position: data, size, sparse });
        if (type === "S") position += continuations(source, header, position);
        extension = {};
      }
    }
  }
  return members;
}

/** Bytes of the further maps that an old sparse member has between its header and its data. */
function continuations(source: ByteSource, header: Buffer, after: number): number {
  let length = 0;
  for (let more = header[482]; more === 1; length += block)
    more = readExactly(source, after + length, block, "a sparse member's map")[504];
  return length;
}

/** A checksum over the header, its own field taken as spaces; some added signed bytes once. */
function isHeader(header: Buffer): boolean {
  if (header.toString("latin1", 257, 262) !== "ustar") return false;
  const told = Number.parseInt(header.toString("latin1", 148, 156).replace(/[\0 ]+$/, ""), 8);
  let sum = 8 * 32;
  let signed = 8 * 32;
  for (let at = 0; at < block; at++) {
    if (at >= 148 && at < 156) continue;
    sum += header[at]!;
    signed += header.readInt8(at);
  }
  return told === sum || told === signed;
}

function nameOf(header: Buffer): string {
  const name = text(header.subarray(0, 100));
  // GNU tar has other things there.
  const front = header.toString("latin1", 257, 263) === "ustar\0" ? text(header.subarray(345, 500)) : "";
  return front ? `${front}/${name}` : name;
}

function numberAt(source: ByteSource, header: Buffer, at: number, position: number): number {
  const field = header.subarray(at, at + 12);
  let value: number;
  if (field[0]! & 0x80) {
    const large = BigInt(`0x${field.toString("hex")}`) & ((1n << 95n) - 1n);
    value = field[0] === 0x80 && large <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(large) : Number.NaN;
  } else {
    const digits = field
      .toString("latin1")
      .replace(/[\0 ]+$/, "")
      .trim();
    value = /^[0-7]*$/.test(digits) ? Number.parseInt(digits || "0", 8) : Number.NaN;
  }
  if (!Number.isSafeInteger(value))
    throw corrupt(`${source.name}: the member at byte ${position} of the archive tells no size. It is damaged.`);
  return value;
}

function readExtension(source: ByteSource, position: number, size: number): Buffer {
  if (size > longestExtension)
    throw corrupt(`${source.name}: byte ${position} of the archive has a name of ${size} bytes. It is damaged.`);
  return readExactly(source, position, size, "a member's name");
}

/** Records `LENGTH KEY=VALUE\n`, of which the length counts all of it. */
function paxRecords(source: ByteSource, position: number, size: number) {
  const bytes = readExtension(source, position, size);
  const found: { name?: string; size?: number; sparse?: boolean } = {};
  for (let at = 0; at < bytes.length; ) {
    const space = bytes.indexOf(32, at);
    const length = Number(bytes.toString("latin1", at, space));
    const equals = bytes.indexOf(61, space);
    if (space < 0 || !(length > space - at) || at + length > bytes.length || equals < 0 || equals >= at + length)
      throw corrupt(`${source.name}: byte ${position + at} of the archive has no record of pax. It is damaged.`);
    const key = bytes.toString("utf8", space + 1, equals);
    const value = bytes.toString("utf8", equals + 1, at + length - 1);
    if (key === "path" || key === "GNU.sparse.name") found.name = value;
    if (key === "size") {
      if (!/^\d{1,15}$/.test(value))
        throw corrupt(
          `${source.name}: byte ${position + at} of the archive tells a size of "${value}". It is damaged.`,
        );
      found.size = Number(value);
    }
    if (key.startsWith("GNU.sparse.")) found.sparse = true;
    at += length;
  }
  return found;
}

function text(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString("utf8", 0, end < 0 ? bytes.length : end);
}
