/**
 * Tests only: writes small UDF volumes with what no tool here writes: files in pieces, chains of allocation descriptors,
 * named streams, rewritten ICBs, and partitions that are sparable, virtual or for metadata. After ECMA-167 and UDF 2.60, and
 * with numbers of its own: it shares no code with the reader.
 */
export type Kind = "physical" | "sparable" | "virtual 1.50" | "virtual 2.00" | "metadata";

/** A piece of a file: its bytes, or a hole of that many bytes (which may be allocated all the same). */
export type Piece = Buffer | Hole;
export interface Hole {
  readonly hole: number;
  readonly allocated?: boolean;
}
const isHole = (piece: Piece): piece is Hole => "hole" in piece;

export interface Item {
  readonly type: "file" | "directory" | "symlink" | "character" | "block" | "fifo" | "socket";
  readonly pieces?: readonly Piece[];
  readonly form?: "inline" | "short" | "long";
  /** Allocation descriptors a block when they go on elsewhere; 0 keeps them in the ICB. */
  readonly chained?: number;
  readonly children?: Readonly<Record<string, Item>>;
  readonly streams?: Readonly<Record<string, Buffer>>;
  readonly device?: readonly [number, number];
  /** ECMA-167 permissions. */
  readonly permissions?: number;
  readonly flags?: number;
  readonly characteristics?: number;
  readonly links?: number;
  /** Writes an older ICB first, which an indirect entry leads on from. */
  readonly rewritten?: boolean;
  /** Ends up under a second name: the same ICB. */
  readonly also?: string;
}

const types = { directory: 4, file: 5, block: 6, character: 7, fifo: 9, socket: 10, symlink: 12, streamDirectory: 13 };

export function crc(bytes: Uint8Array): number {
  let sum = 0;
  for (const byte of bytes) {
    sum ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) sum = sum & 0x8000 ? ((sum << 1) ^ 0x1021) & 0xffff : (sum << 1) & 0xffff;
  }
  return sum;
}

/** Fills in the tag of a descriptor whose bytes end with `bytes`. */
export function sealTag(bytes: Buffer, identifier: number, location: number, length = bytes.length): void {
  bytes.writeUInt16LE(identifier, 0);
  bytes.writeUInt16LE(3, 2);
  bytes.writeUInt16LE(crc(bytes.subarray(16, length)), 8);
  bytes.writeUInt16LE(length - 16, 10);
  bytes.writeUInt32LE(location, 12);
  bytes[4] = 0;
  bytes[4] = bytes.subarray(0, 16).reduce((sum, byte) => sum + byte, 0) & 0xff;
}

export function compressed(text: string): Buffer {
  const units = Array.from({ length: text.length }, (_, index) => text.charCodeAt(index));
  if (units.every((unit) => unit < 256)) return Buffer.from([8, ...units]);
  return Buffer.from([16, ...units.flatMap((unit) => [unit >> 8, unit & 0xff])]);
}

function field(bytes: Buffer, at: number, size: number, text: string): void {
  const packed = compressed(text);
  packed.copy(bytes, at);
  bytes[at + size - 1] = packed.length;
}

const regid = (bytes: Buffer, at: number, name: string) => void bytes.write(name, at + 1, "latin1");

const charset = (bytes: Buffer, at: number) => void bytes.write("OSTA Compressed Unicode", at + 1, "latin1");

/** 2026-03-04 05:06:07.891234 in the zone 90 minutes west: 06:36:07.891234 in UTC. */
const stamp = Buffer.from([0xa6, 0x1f, 0xea, 0x07, 3, 4, 5, 6, 7, 89, 12, 34]);
export const stampSeconds = Date.UTC(2026, 2, 4, 6, 36, 7) / 1000;
export const stampNanoseconds = 891_234_000;

const FIRST = 300;
const PACKET = 4;

interface Placed {
  readonly block: number;
  readonly length: number;
  readonly kind: number;
}

export class UdfWriter {
  readonly image: Buffer;
  private readonly blocks: number;
  /** Next free block of the partition for data, and of the metadata file or the virtual partition. */
  private next = 200;
  private nextMeta = 0;
  private readonly table: number[] = [];
  private readonly metadata: number[];
  private readonly mirror: number[];

  constructor(
    private readonly kind: Kind,
    private readonly blockSize: number,
    private readonly extended: boolean,
    blocks = 1024,
  ) {
    this.blocks = blocks;
    this.image = Buffer.alloc(blocks * blockSize);
    // The metadata file in two pieces out of order, and a mirror in one.
    this.metadata = [...range(60, 90), ...range(20, 50)];
    this.mirror = range(100, 160);
  }

  /** Whether the first of two sparing tables is older than the second, and lacks a packet. */
  outdated = true;

  private get metaReference(): number {
    return this.kind === "physical" || this.kind === "sparable" ? 0 : 1;
  }

  /** Writes `bytes` to a block of the partition with ICBs and directories. */
  private putMeta(block: number, bytes: Buffer): void {
    if (this.kind === "metadata") {
      this.put(this.metadata[block]!, bytes);
      this.put(this.mirror[block]!, bytes);
    } else this.put(this.kind.startsWith("virtual") ? this.table[block]! : block, bytes);
  }

  private put(block: number, bytes: Buffer): void {
    bytes.copy(this.image, (FIRST + block) * this.blockSize);
  }

  private allocate(count: number): number {
    this.next += count;
    return this.next - count;
  }

  private allocateMeta(count: number): number {
    if (this.metaReference === 0) return this.allocate(count);
    const first = this.nextMeta;
    this.nextMeta += count;
    // Virtual blocks lie in the volume in another order than their numbers.
    if (this.kind.startsWith("virtual"))
      for (let index = 0; index < count; index++) this.table.push(190 - this.table.length);
    return first;
  }

  /** @returns the image: the whole volume. */
  write(root: Item, label: string): Buffer {
    const fileSet = this.allocateMeta(1);
    const { block } = this.icb(root, undefined);
    const set = Buffer.alloc(512);
    stamp.copy(set, 16);
    for (const at of [48, 240]) charset(set, at);
    field(set, 112, 128, label);
    field(set, 304, 32, "files");
    regid(set, 416, "*OSTA UDF Compliant");
    set.writeUInt16LE(3, 28);
    set.writeUInt32LE(1, 32);
    set.writeUInt32LE(1, 36);
    set.writeUInt32LE(this.blockSize, 400);
    set.writeUInt32LE(block, 404);
    set.writeUInt16LE(this.metaReference, 408);
    sealTag(set, 256, fileSet);
    this.putMeta(fileSet, set);
    this.volume(label, fileSet);
    return this.image;
  }

  /** The ICB of an item with all that is below it. */
  private icb(item: Item, parent: number | undefined, type: number = types[item.type]): { block: number } {
    const block = this.allocateMeta(item.rewritten ? 2 : 1);
    let pieces = item.pieces ?? [];
    let { form } = item;
    if (item.children) {
      form ??= "inline";
      pieces = [this.directory(item.children, parent ?? block, block)];
      if ((pieces[0] as Buffer).length > this.blockSize - 300) form = "long";
    }
    const streams =
      item.streams && this.icb({ type: "directory", children: streamItems(item.streams) }, block, 13).block;
    const target = item.rewritten ? this.allocateMeta(1) : block;
    const entry = this.entry(item, type, pieces, form ?? "long", streams, target);
    this.putMeta(target, entry);
    if (item.rewritten) {
      const old = this.entry({ type: "file" }, type, [Buffer.from("the old content")], "inline", undefined, block);
      old.writeUInt16LE(4096, 20);
      sealTag(old, old.readUInt16LE(0), block);
      this.putMeta(block, old);
      const indirect = Buffer.alloc(52);
      indirect.writeUInt32LE(this.blockSize, 36);
      indirect.writeUInt32LE(target, 40);
      indirect.writeUInt16LE(this.metaReference, 44);
      sealTag(indirect, 259, block + 1);
      this.putMeta(block + 1, indirect);
    }
    return { block };
  }

  private entry(
    item: Item,
    type: number,
    pieces: readonly Piece[],
    form: string,
    streams: number | undefined,
    at: number,
  ) {
    const head = this.extended ? 216 : 176;
    const attributes = item.device ? deviceAttribute(item.device, at) : Buffer.alloc(0);
    const size = pieces.reduce((sum, piece) => sum + (isHole(piece) ? piece.hole : piece.length), 0);
    const placed = form === "inline" ? [] : pieces.map((piece) => this.place(piece));
    const allocation =
      form === "inline"
        ? ((pieces[0] as Buffer | undefined) ?? Buffer.alloc(0))
        : this.descriptorsOf(placed, form, item.chained ?? 0);
    const bytes = Buffer.alloc(head + attributes.length + allocation.length);
    bytes.writeUInt16LE(4, 20);
    bytes.writeUInt16LE(1, 24);
    bytes[27] = type;
    bytes.writeUInt16LE(["short", "long", "extended", "inline"].indexOf(form) | (item.flags ?? 0), 34);
    bytes.writeUInt32LE(1000, 36);
    bytes.writeUInt32LE(0xffffffff, 40);
    bytes.writeUInt32LE(item.permissions ?? 0x14a5, 44);
    bytes.writeUInt16LE(item.links ?? 1, 48);
    bytes.writeUInt32LE(size, 56);
    const stored = placed.reduce(
      (sum, { length, kind }) => sum + (kind < 2 ? Math.ceil(length / this.blockSize) : 0),
      0,
    );
    if (this.extended) {
      bytes.writeUInt32LE(size, 64);
      bytes.writeUInt32LE(stored, 72);
      for (const time of [80, 92, 104, 116]) stamp.copy(bytes, time);
      if (streams !== undefined) {
        bytes.writeUInt32LE(this.blockSize, 152);
        bytes.writeUInt32LE(streams, 156);
        bytes.writeUInt16LE(this.metaReference, 160);
      }
    } else {
      bytes.writeUInt32LE(stored, 64);
      for (const time of [72, 84, 96]) stamp.copy(bytes, time);
    }
    bytes.writeUInt32LE(attributes.length, head - 8);
    bytes.writeUInt32LE(allocation.length, head - 4);
    attributes.copy(bytes, head);
    allocation.copy(bytes, head + attributes.length);
    sealTag(bytes, this.extended ? 266 : 261, at);
    return bytes;
  }

  /** Each piece behind a free block, so that no two lie together. */
  private place(piece: Piece): Placed {
    if (isHole(piece))
      return piece.allocated
        ? { block: this.allocate(Math.ceil(piece.hole / this.blockSize)), length: piece.hole, kind: 1 }
        : { block: 0, length: piece.hole, kind: 2 };
    this.allocate(1);
    const block = this.allocate(Math.ceil(piece.length / this.blockSize));
    this.put(block, piece);
    return { block, length: piece.length, kind: 0 };
  }

  private descriptorsOf(placed: readonly Placed[], form: string, chained: number): Buffer {
    const size = form === "short" ? 8 : 16;
    const one = ({ block, length, kind }: Placed, reference = 0) => {
      const bytes = Buffer.alloc(size);
      bytes.writeUInt32LE(length + kind * 2 ** 30, 0);
      bytes.writeUInt32LE(block, 4);
      if (size === 16) bytes.writeUInt16LE(reference, 8);
      return bytes;
    };
    if (chained === 0 || placed.length <= chained) return Buffer.concat(placed.map((extent) => one(extent)));
    const reference = form === "short" ? 0 : this.metaReference;
    const block = reference === 0 ? this.allocate(1) : this.allocateMeta(1);
    const rest = this.descriptorsOf(placed.slice(chained), form, chained);
    const extent = Buffer.concat([Buffer.alloc(24), rest]);
    extent.writeUInt32LE(rest.length, 20);
    sealTag(extent, 258, block);
    if (reference === 0) this.put(block, extent);
    else this.putMeta(block, extent);
    const here = placed.slice(0, chained).map((extent) => one(extent));
    return Buffer.concat([...here, one({ block, length: this.blockSize, kind: 3 }, reference)]);
  }

  private directory(children: Readonly<Record<string, Item>>, parent: number, own: number): Buffer {
    const parts = [this.identifier("", 0x0a, parent, own)];
    for (const [name, item] of Object.entries(children)) {
      const { block } = this.icb(item, own);
      const flags = (item.type === "directory" ? 2 : 0) | (item.characteristics ?? 0);
      parts.push(this.identifier(name, flags, block, own));
      if (item.also !== undefined) parts.push(this.identifier(item.also, flags, block, own));
    }
    return Buffer.concat(parts);
  }

  private identifier(name: string, characteristics: number, block: number, location: number): Buffer {
    const packed = name === "" ? Buffer.alloc(0) : compressed(name);
    // What implementations add: of some, so that names don't always begin at the same place.
    const added = name.length % 3 === 1 ? 32 : 0;
    const bytes = Buffer.alloc((38 + added + packed.length + 3) & ~3);
    bytes.writeUInt16LE(1, 16);
    bytes[18] = characteristics;
    bytes[19] = packed.length;
    bytes.writeUInt32LE(this.blockSize, 20);
    bytes.writeUInt32LE(block, 24);
    bytes.writeUInt16LE(this.metaReference, 28);
    bytes.writeUInt16LE(added, 36);
    packed.copy(bytes, 38 + added);
    sealTag(bytes, 257, location);
    return bytes;
  }

  private volume(label: string, fileSet: number): void {
    const { blockSize, image, kind } = this;
    const step = Math.max(2048, blockSize);
    for (const [index, name] of ["BEA01", this.extended ? "NSR03" : "NSR02", "TEA01"].entries())
      image.write(`\0${name}\x01`, 32768 + index * step, "latin1");
    const revision = kind === "metadata" ? 0x250 : this.extended ? 0x201 : 0x150;
    if (kind === "metadata") this.metadataFiles();
    const maps = this.maps(revision);
    const length = this.blocks - FIRST;
    for (const start of [260, 270]) {
      const primary = Buffer.alloc(512);
      primary.writeUInt32LE(1, 16);
      for (const at of [56, 58]) primary.writeUInt16LE(1, at);
      for (const at of [60, 62]) primary.writeUInt16LE(2, at);
      for (const at of [64, 68]) primary.writeUInt32LE(1, at);
      for (const at of [200, 264]) charset(primary, at);
      field(primary, 24, 32, label);
      field(primary, 72, 128, "0123456789abcdefHandmade");
      stamp.copy(primary, 376);
      const partition = Buffer.alloc(512);
      partition.writeUInt32LE(2, 16);
      partition.writeUInt16LE(1, 20);
      partition.writeUInt16LE(7, 22);
      regid(partition, 24, this.extended ? "+NSR03" : "+NSR02");
      partition.writeUInt32LE(1, 184);
      partition.writeUInt32LE(FIRST, 188);
      partition.writeUInt32LE(length, 192);
      const logical = Buffer.concat([Buffer.alloc(440), ...maps]);
      logical.writeUInt32LE(3, 16);
      charset(logical, 20);
      field(logical, 84, 128, label);
      logical.writeUInt32LE(blockSize, 212);
      regid(logical, 216, "*OSTA UDF Compliant");
      logical.writeUInt16LE(revision, 240);
      logical.writeUInt32LE(blockSize, 248);
      logical.writeUInt32LE(fileSet, 252);
      logical.writeUInt16LE(this.metaReference, 256);
      logical.writeUInt32LE(logical.length - 440, 264);
      logical.writeUInt32LE(maps.length, 268);
      logical.writeUInt32LE(blockSize, 432);
      logical.writeUInt32LE(280, 436);
      for (const [index, [bytes, tag]] of (
        [
          [primary, 1],
          [partition, 5],
          [logical, 6],
          [Buffer.alloc(512), 8],
        ] as const
      ).entries())
        this.putDescriptor(start + index, bytes, tag);
    }
    const integrity = Buffer.alloc(88 + 46);
    integrity.writeUInt32LE(1, 28);
    integrity.writeUInt32LE(1, 72);
    integrity.writeUInt32LE(46, 76);
    integrity.writeUInt32LE(12, 80);
    integrity.writeUInt32LE(length, 84);
    integrity.writeUInt32LE(5, 88 + 32);
    integrity.writeUInt32LE(6, 88 + 36);
    this.putDescriptor(280, integrity, 9);
    for (const block of kind.startsWith("virtual") ? [256] : [256, this.blocks - 1]) {
      const anchor = Buffer.alloc(512);
      for (const [at, start] of [
        [16, 260],
        [24, 270],
      ] as const) {
        anchor.writeUInt32LE(10 * blockSize, at);
        anchor.writeUInt32LE(start, at + 4);
      }
      this.putDescriptor(block, anchor, 2);
    }
    if (kind.startsWith("virtual")) this.virtualTable();
  }

  private putDescriptor(block: number, bytes: Buffer, tag: number): void {
    sealTag(bytes, tag, block);
    bytes.copy(this.image, block * this.blockSize);
  }

  private maps(revision: number): Buffer[] {
    const first = Buffer.from([1, 6, 1, 0, 7, 0]);
    if (this.kind === "physical") return [first];
    const second = Buffer.alloc(64);
    second[0] = 2;
    second[1] = 64;
    second.writeUInt16LE(revision, 28);
    second.writeUInt16LE(1, 36);
    second.writeUInt16LE(7, 38);
    if (this.kind.startsWith("virtual")) {
      regid(second, 4, "*UDF Virtual Partition");
      return [first, second];
    }
    if (this.kind === "metadata") {
      regid(second, 4, "*UDF Metadata Partition");
      second.writeUInt32LE(0, 40);
      second.writeUInt32LE(1, 44);
      second.writeUInt32LE(0xffffffff, 48);
      second[58] = 1;
      return [first, second];
    }
    regid(second, 4, "*UDF Sparable Partition");
    second.writeUInt16LE(PACKET, 40);
    second[42] = 2;
    second.writeUInt32LE(512, 44);
    second.writeUInt32LE(282, 48);
    second.writeUInt32LE(284, 52);
    this.spare();
    return [second];
  }

  /** Two packets with data are moved between the descriptors and the partition's start; 1 table of 2 is out of date. */
  private spare(): void {
    const { blockSize, image } = this;
    const moves = [
      [200, 288],
      [212, 292],
    ] as const;
    for (const [packet, to] of moves) {
      const from = (FIRST + packet) * blockSize;
      image.copyWithin(to * blockSize, from, from + PACKET * blockSize);
      image.fill(0xee, from, from + PACKET * blockSize);
    }
    for (const [block, entries, sequence] of [
      [282, this.outdated ? moves.slice(0, 1) : moves, 4],
      [284, moves, 5],
    ] as const) {
      const bytes = Buffer.alloc(56 + (entries.length + 1) * 8);
      regid(bytes, 16, "*UDF Sparing Table");
      bytes.writeUInt16LE(entries.length + 1, 48);
      bytes.writeUInt32LE(sequence, 52);
      for (const [index, [packet, to]] of [...entries, [0xffffffff, 296] as const].entries()) {
        bytes.writeUInt32LE(packet, 56 + index * 8);
        bytes.writeUInt32LE(to, 60 + index * 8);
      }
      this.putDescriptor(block, bytes, 0);
    }
  }

  private metadataFiles(): void {
    for (const [block, type, where] of [
      [0, 250, this.metadata],
      [1, 251, this.mirror],
    ] as const) {
      const extents: Placed[] = [];
      for (const one of where) {
        const last = extents.at(-1);
        if (last && last.block + last.length / this.blockSize === one)
          extents[extents.length - 1] = { ...last, length: last.length + this.blockSize };
        else extents.push({ block: one, length: this.blockSize, kind: 0 });
      }
      const allocation = this.descriptorsOf(extents, "short", 0);
      const bytes = Buffer.concat([Buffer.alloc(216), allocation]);
      bytes.writeUInt16LE(4, 20);
      bytes.writeUInt16LE(1, 24);
      bytes[27] = type;
      bytes.writeUInt16LE(1, 48);
      bytes.writeUInt32LE(where.length * this.blockSize, 56);
      bytes.writeUInt32LE(allocation.length, 212);
      sealTag(bytes, 266, block);
      this.put(block, bytes);
    }
  }

  /** At the end, but for a few blocks that were never written. */
  private virtualTable(): void {
    const entries = Buffer.alloc(this.table.length * 4);
    for (const [index, block] of this.table.entries()) entries.writeUInt32LE(block, index * 4);
    let content: Buffer;
    if (this.kind === "virtual 2.00") {
      const header = Buffer.alloc(152);
      header.writeUInt16LE(152, 0);
      header.writeUInt32LE(0xffffffff, 132);
      content = Buffer.concat([header, entries]);
    } else {
      const trailer = Buffer.alloc(36);
      regid(trailer, 0, "*UDF Virtual Alloc Tbl");
      trailer.writeUInt32LE(0xffffffff, 32);
      content = Buffer.concat([entries, trailer]);
    }
    const at = this.blocks - FIRST - 10;
    const entry = this.entry(
      { type: "file" },
      this.kind === "virtual 2.00" ? 248 : 0,
      [content],
      "short",
      undefined,
      at,
    );
    this.put(at, entry);
  }
}

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index);

const streamItems = (streams: Readonly<Record<string, Buffer>>) =>
  Object.fromEntries(
    Object.entries(streams).map(([name, bytes]): [string, Item] => [
      name,
      { type: "file", pieces: [bytes], form: "long" },
    ]),
  );

/** A header, an attribute that is passed over, and the device specification. */
function deviceAttribute([major, minor]: readonly [number, number], location: number): Buffer {
  const bytes = Buffer.alloc(24 + 16 + 24);
  bytes.writeUInt32LE(bytes.length, 16);
  bytes.writeUInt32LE(bytes.length, 20);
  sealTag(bytes, 262, location, 24);
  bytes.writeUInt32LE(3, 24);
  bytes[28] = 1;
  bytes.writeUInt32LE(16, 32);
  bytes.writeUInt32LE(12, 40);
  bytes[44] = 1;
  bytes.writeUInt32LE(24, 48);
  bytes.writeUInt32LE(major, 56);
  bytes.writeUInt32LE(minor, 60);
  return bytes;
}

/** Path components of a symbolic link. */
export function components(path: string): Buffer {
  const parts: Buffer[] = path.startsWith("/") ? [Buffer.from([2, 0, 0, 0])] : [];
  for (const name of path.split("/").filter((part) => part !== ""))
    if (name === "..") parts.push(Buffer.from([3, 0, 0, 0]));
    else if (name === ".") parts.push(Buffer.from([4, 0, 0, 0]));
    else {
      const packed = compressed(name);
      parts.push(Buffer.concat([Buffer.from([5, packed.length, 0, 0]), packed]));
    }
  return Buffer.concat(parts);
}
