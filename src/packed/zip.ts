/**
 * zip (PKWARE's APPNOTE.TXT, 6.3.10) with one member that is a disk: the directory at the end tells where it is, how it is
 * packed, its size and its CRC-32.
 *
 *     local header, 30 + name + extra | packed content | …  directory: 46 + name + extra + comment each | end, 22 + comment
 *
 * With zip64 a record and a locator stand before the end, and sizes beyond 32 bits in the entries' extra fields.
 */
import { crc32 } from "node:zlib";
import { type ByteSource, readExactly, readFully, Slice } from "../bytes/byte-source.js";
import { corrupt, unsupported } from "../errors.js";
import { bzip2 } from "./bzip2.js";
import { DeflateReader, indexDeflate, type Members } from "./deflate.js";
import { type PackedInput, truncated } from "./packed-input.js";
import { type PackedFile, type Packing, type Piece, type PieceReader, type PieceWriter, pieceSize } from "./packing.js";
import { xz } from "./xz.js";
import { zstd } from "./zstd.js";

const localMagic = Buffer.from("PK\x03\x04");
const entryMagic = 0x02014b50;
const endMagic = Buffer.from("PK\x05\x06");
const locatorMagic = 0x07064b50;
const end64Magic = 0x06064b50;

/** Bytes of a directory that are read, and entries of it that are looked at: an archive of one disk has few. */
const largestDirectory = 1 << 22;
/** Members beside the disk that are passed over, when all of them together are not larger: a text, a checksum. */
const smallThings = 1 << 20;
/** Names that a message lists. */
const namesListed = 5;

export const zip: Packing = {
  name: "zip",
  recognises(source) {
    const mark = Buffer.alloc(4);
    return readFully(source, 0, mark) === 4 && mark.equals(localMagic);
  },
  open(source) {
    const member = diskOf(source, readDirectory(source));
    const data = memberData(source, member);
    if (member.method === 0) return new StoredMember(data, member);
    if (member.method === 8) return new DeflatedMember(data, member);
    const inner = [
      { method: 12, packing: bzip2 },
      { method: 93, packing: zstd },
      { method: 95, packing: xz },
    ].find(({ method }) => method === member.method);
    if (!inner)
      throw unsupported(
        `${source.name}: ${member.name} is packed with method ${member.method} of zip, which Spindle doesn't unpack. Unpack it first, for example with 7zz x.`,
      );
    return new InnerFile(inner.packing.open(data), member);
  },
};

interface Member {
  readonly name: string;
  readonly method: number;
  readonly flags: number;
  readonly crc: number;
  readonly packed: number;
  readonly size: number;
  /** First byte of its local header. */
  readonly header: number;
}

/** The place of the directory, from the end of the file. @throws ImageError `corrupt` */
function findDirectory(source: ByteSource): { at: number; size: number; count: number } {
  const tail = readExactly(
    source,
    Math.max(0, source.size - 65557),
    Math.min(source.size, 65557),
    "the end of the zip",
  );
  const base = source.size - tail.length;
  for (let at = tail.lastIndexOf(endMagic); at >= 0; at = at > 0 ? tail.lastIndexOf(endMagic, at - 1) : -1) {
    if (at + 22 > tail.length || at + 22 + tail.readUInt16LE(at + 20) !== tail.length) continue;
    const found = {
      count: tail.readUInt16LE(at + 10),
      size: tail.readUInt32LE(at + 12),
      at: tail.readUInt32LE(at + 16),
    };
    const isLarge = found.count === 0xffff || found.size === 0xffffffff || found.at === 0xffffffff;
    return isLarge ? (directory64(source, base + at) ?? found) : found;
  }
  throw corrupt(
    `${source.name}: the directory at the end of the zip archive is missing: the file is truncated, or one part of several. Fetch or copy it again.`,
  );
}

function directory64(source: ByteSource, end: number): { at: number; size: number; count: number } | undefined {
  if (end < 20) return undefined;
  const locator = readExactly(source, end - 20, 20, "the zip64 locator");
  if (locator.readUInt32LE(0) !== locatorMagic) return undefined;
  const at = Number(locator.readBigUInt64LE(8));
  if (at + 56 > end)
    throw corrupt(`${source.name}: its zip64 locator at byte ${end - 20} points to byte ${at}. It is damaged.`);
  const record = readExactly(source, at, 56, "the zip64 end of the directory");
  if (record.readUInt32LE(0) !== end64Magic)
    throw corrupt(`${source.name}: the zip64 record isn't at byte ${at}, where its locator says. The file is damaged.`);
  const number = (offset: number) => Number(record.readBigUInt64LE(offset));
  return { count: number(32), size: number(40), at: number(48) };
}

function readDirectory(source: ByteSource): Member[] {
  const { at, size, count } = findDirectory(source);
  if (at + size > source.size)
    throw corrupt(
      `${source.name}: its zip directory should be at byte ${at}, ${size} bytes long, beyond the end of the file.`,
    );
  if (size > largestDirectory)
    throw unsupported(`${source.name}: is a zip archive of ${count} files, not of one disk. Unpack it with unzip.`);
  const bytes = readExactly(source, at, size, "the zip directory");
  const members: Member[] = [];
  for (let position = 0; members.length < count; ) {
    if (position + 46 > size || bytes.readUInt32LE(position) !== entryMagic)
      throw corrupt(`${source.name}: there is no entry of the zip directory at byte ${at + position}. It is damaged.`);
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((offset) =>
      bytes.readUInt16LE(position + offset),
    );
    const extra = position + 46 + nameLength!;
    const next = extra + extraLength! + commentLength!;
    if (next > size) throw truncated(source, "its zip directory");
    members.push(
      memberAt(
        source,
        bytes,
        position,
        bytes.subarray(position + 46, extra),
        bytes.subarray(extra, extra + extraLength!),
      ),
    );
    position = next;
  }
  return members;
}

function memberAt(source: ByteSource, bytes: Buffer, at: number, name: Buffer, extra: Buffer): Member {
  const wide = zip64Fields(extra);
  const number = (offset: number) => {
    const value = bytes.readUInt32LE(at + offset);
    if (value !== 0xffffffff) return value;
    const found = wide.shift();
    if (found === undefined) return value;
    if (!Number.isSafeInteger(found))
      throw corrupt(`${source.name}: its zip directory tells a size of ${found} bytes.`);
    return found;
  };
  // In the extra field they stand in this order, those that are needed.
  const size = number(24);
  const packed = number(20);
  const header = number(42);
  const flags = bytes.readUInt16LE(at + 8);
  const text = name.toString((flags & 0x800) !== 0 ? "utf8" : "latin1");
  return {
    name: text,
    method: bytes.readUInt16LE(at + 10),
    flags,
    crc: bytes.readUInt32LE(at + 16),
    size,
    packed,
    header,
  };
}

function zip64Fields(extra: Buffer): number[] {
  for (let at = 0; at + 4 <= extra.length; ) {
    const length = extra.readUInt16LE(at + 2);
    const end = Math.min(at + 4 + length, extra.length);
    if (extra.readUInt16LE(at) === 1) {
      const values: number[] = [];
      for (let field = at + 4; field + 8 <= end; field += 8) values.push(Number(extra.readBigUInt64LE(field)));
      return values;
    }
    at = end;
  }
  return [];
}

/** The member that is the disk: the only one, or the only one of any size. */
function diskOf(source: ByteSource, members: readonly Member[]): Member {
  const files = members.filter(({ name }) => !name.endsWith("/")).sort((a, b) => b.size - a.size);
  const [disk, ...others] = files;
  if (!disk) throw unsupported(`${source.name}: is a zip archive without a file in it.`);
  const rest = others.reduce((sum, { size }) => sum + size, 0);
  if (others.length > 0 && (rest > smallThings || rest * 16 > disk.size)) {
    const names = files.slice(0, namesListed).map(({ name }) => name);
    if (files.length > namesListed) names.push(`${files.length - namesListed} more`);
    throw unsupported(
      `${source.name}: is a zip archive of ${files.length} files (${names.join(", ")}); only one that holds a single disk is read. Take the disk out of it with unzip.`,
    );
  }
  if ((disk.flags & 1) !== 0)
    throw unsupported(`${source.name}: ${disk.name} is encrypted. Unpack it first, with 7zz x.`);
  return disk;
}

/** The packed bytes of a member. */
function memberData(source: ByteSource, member: Member): Slice {
  const local = readExactly(source, member.header, 30, `the header of ${member.name}`);
  if (!local.subarray(0, 4).equals(localMagic))
    throw corrupt(
      `${source.name}: the header of ${member.name} isn't at byte ${member.header}, where the directory says.`,
    );
  const start = member.header + 30 + local.readUInt16LE(26) + local.readUInt16LE(28);
  if (start + member.packed > source.size)
    throw corrupt(
      `${source.name}: ${member.name} should end at byte ${start + member.packed}, beyond the end of the file.`,
    );
  return new Slice(`${source.name} > ${member.name}`, source, start, member.packed);
}

const factsOf = ({ name }: Member) => ({ member: name });

/** The one deflate stream of a member, whose length and checksum the directory tells. */
class SingleStream implements Members {
  constructor(
    private readonly source: ByteSource,
    private readonly member: Member,
  ) {}

  begin(input: PackedInput): boolean {
    return input.position === 0;
  }

  end(_: PackedInput, content?: { readonly crc: number; readonly length: number }): void {
    if (content) checkMember(this.source, this.member, content);
  }
}

function checkMember({ name }: ByteSource, member: Member, content: { readonly crc: number; readonly length: number }) {
  if (content.length !== member.size)
    throw corrupt(
      `${name}: ${member.name} unpacks to ${content.length} bytes, the directory tells ${member.size}. It is damaged.`,
    );
  if (content.crc !== member.crc)
    throw corrupt(
      `${name}: ${member.name} is damaged: its checksum doesn't match its content. Fetch or copy the file again.`,
    );
}

class DeflatedMember implements PackedFile {
  readonly name: string;
  readonly told: PackedFile["told"];
  readonly hasChecksums = true;
  readonly facts: Record<string, unknown>;
  private readonly members: Members;

  constructor(
    private readonly source: ByteSource,
    member: Member,
  ) {
    this.name = source.name;
    this.told = { kind: "proven", size: member.size };
    this.facts = factsOf(member);
    this.members = new SingleStream(source, member);
  }

  *pass(writer: PieceWriter): Generator<void, void> {
    yield* indexDeflate(this.source, this.members, writer, writer.resume());
  }

  reader(): PieceReader {
    return new DeflateReader(this.source, this.members);
  }
}

/** A member that isn't packed: its pieces are there for their checksums. */
class StoredMember implements PackedFile {
  readonly name: string;
  readonly told: PackedFile["told"];
  readonly hasChecksums = true;
  readonly facts: Record<string, unknown>;

  constructor(
    private readonly source: ByteSource,
    private readonly member: Member,
  ) {
    this.name = source.name;
    if (member.size !== source.size)
      throw corrupt(
        `${source.name}: ${member.name} isn't packed, and yet has ${source.size} bytes for ${member.size}.`,
      );
    this.told = { kind: "proven", size: member.size };
    this.facts = factsOf(member);
  }

  *pass(writer: PieceWriter): Generator<void, void> {
    const { source } = this;
    const buffer = Buffer.alloc(pieceSize);
    let crc = 0;
    for (let at = 0; at < source.size; at += buffer.length) {
      const part = buffer.subarray(0, Math.min(buffer.length, source.size - at));
      if (readFully(source, at, part) < part.length) throw truncated(source, this.member.name);
      crc = crc32(part, crc);
      writer.packed(part.length, { at: at * 8, crc: crc32(part) });
      writer.progress(at);
      yield;
    }
    checkMember(source, this.member, { crc, length: source.size });
  }

  reader(): PieceReader {
    const { source } = this;
    let position = 0;
    return {
      begin: ({ at }: Piece) => {
        position = at / 8;
      },
      fill(target) {
        if (readFully(source, position, target) < target.length) throw truncated(source, "a member");
        position += target.length;
      },
      finish() {},
    };
  }
}

/** A member that is a file of another compression. */
class InnerFile implements PackedFile {
  readonly name: string;
  readonly told: PackedFile["told"];
  readonly hasChecksums: boolean;
  readonly facts: Record<string, unknown>;

  constructor(
    private readonly inner: PackedFile,
    private readonly member: Member,
  ) {
    this.name = inner.name;
    this.told = { kind: "proven", size: member.size };
    this.hasChecksums = inner.hasChecksums;
    this.facts = { ...inner.facts, ...factsOf(member) };
  }

  *pass(writer: PieceWriter): Generator<void, void> {
    yield* this.inner.pass(writer);
    const { name, size } = this.member;
    if (writer.position !== size)
      throw corrupt(
        `${this.name}: ${name} unpacks to ${writer.position} bytes, the directory tells ${size}. It is damaged.`,
      );
  }

  reader(): PieceReader {
    return this.inner.reader();
  }
}
