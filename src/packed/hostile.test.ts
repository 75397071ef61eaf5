/** Packed files that are damaged, cut off, or tell lies: refused in words, or read as they were; never other bytes. */
import { readFileSync, writeFileSync } from "node:fs";
import { crc32, deflateRawSync, gzipSync } from "node:zlib";
import test, { type ExecutionContext } from "ava";
import binding from "zstd-napi/binding.js";
import { type ByteSource, readFully } from "../bytes/byte-source.js";
import { MemorySource } from "../bytes/memory.js";
import { ImageError } from "../errors.js";
import { isRefused, numbers, opened, wholeDisk } from "../images/qemu-test-tools.js";
import { noise, packingFolder, packs, words } from "./packed-test-tools.js";
import type { Packing, PieceWriter } from "./packing.js";
import { xz } from "./xz.js";
import { zstd } from "./zstd.js";
import { FrameUnpacker } from "./zstd-frame.js";
import { indexFrame } from "./zstd-points.js";

/** Small, and yet of several pieces, blocks and frames. */
const content = Buffer.concat([words(90_000), noise(20_000), Buffer.alloc(1_200_000), words(30_000, 4)]);

const commands: readonly (readonly [string, string])[] = [
  ["gzip", "gzip -c disk > packed"],
  ["gzip of two members", "(head -c 100000 disk | gzip; tail -c +100001 disk | gzip) > packed"],
  ["BGZF", "bgzip -c disk > packed"],
  ["bzip2", "bzip2 -1 -c disk > packed"],
  ["xz of many blocks", "xz -0 -T2 --block-size=60000 -c disk > packed"],
  ["zstd", "zstd -qc disk > packed"],
  ["zstd of a pipe", "cat disk | zstd -qc > packed"],
  ["lz4", "lz4 -qc -B4 disk > packed"],
  ["zip", "zip -q packed.zip disk && mv packed.zip packed"],
  ["zip that isn't packed", "head -c 130000 disk > small; zip -q -0 packed.zip small && mv packed.zip packed"],
];

/** What reading all of a damaged file gives: an ImageError, or these bytes. */
function outcome(t: ExecutionContext, path: string, expected: Buffer, what: string): "refused" | "same" {
  try {
    const found = wholeDisk({ path });
    if (!found.equals(expected)) t.fail(`${what}: other bytes (${found.length}) are served`);
    return "same";
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    if (error.code !== "corrupt" && error.code !== "unsupported") t.fail(`${what}: ${error.code}: ${error.message}`);
    if (!error.message.includes(path)) t.fail(`${what}: the file isn't named: ${error.message}`);
    return "refused";
  }
}

for (const [name, command] of commands) {
  test(`${name}: cut off anywhere, it is refused`, (t) => {
    const path = packingFolder(t, content);
    if (!packs(t, path, command)) return;
    const bytes = readFileSync(path("packed"));
    const next = numbers(3);
    const ends = [12, 20, 40, bytes.length - 1, bytes.length - 4, bytes.length - 9, bytes.length - 30];
    for (let nth = 0; nth < 20; nth++) ends.push(20 + next(bytes.length - 20));
    // The end of BGZF is an empty block, and what ends before it ends well for any gzip.
    const wellEnded = name === "BGZF" ? bytes.length - 28 : -1;
    const boundary = name === "gzip of two members" ? bytes.indexOf(Buffer.of(0x1f, 0x8b, 8, 0), 1) : -1;
    for (const end of ends.filter((each) => each !== wellEnded && each !== boundary)) {
      writeFileSync(path("cut"), bytes.subarray(0, end));
      t.is(outcome(t, path("cut"), content, `cut to ${end}`), "refused", `cut to ${end} of ${bytes.length}`);
    }
  });

  test(`${name}: with any bit changed, it is refused or the same`, (t) => {
    const path = packingFolder(t, content);
    if (!packs(t, path, command)) return;
    const expected = wholeDisk({ path: path("packed") });
    const bytes = readFileSync(path("packed"));
    const next = numbers(5);
    let refused = 0;
    for (let nth = 0; nth < 60; nth++) {
      const changed = Buffer.from(bytes);
      // The first bytes and the last ones, where headers and tables are, as often as all the others.
      const from = [0, bytes.length - Math.min(bytes.length, 200), 0][nth % 3]!;
      const at = from + next([Math.min(bytes.length, 60), Math.min(bytes.length, 200), bytes.length][nth % 3]!);
      changed[at] = changed[at]! ^ (1 << next(8));
      // Without its signature, which is ten bytes at most, it is no packed file, but a raw disk.
      if (at < 10) continue;
      writeFileSync(path("changed"), changed);
      if (outcome(t, path("changed"), expected, `byte ${at}`) === "refused") refused++;
    }
    t.true(refused > 10, `${refused} refused`);
  });
}

test("a gzip member that tells another length or checksum is refused", (t) => {
  const path = packingFolder(t, content);
  const bytes = gzipSync(content);
  for (const at of [8, 4]) {
    const lying = Buffer.from(bytes);
    lying[lying.length - at]! ^= 1;
    writeFileSync(path("packed"), lying);
    isRefused(t, "corrupt", { path: path("packed") }, path("packed"), at === 8 ? "checksum" : "length");
  }
});

test("a BGZF block that tells another length of its content is refused when it is read", (t) => {
  const path = packingFolder(t, words(200_000));
  if (!packs(t, path, "bgzip -c disk > packed")) return;
  const bytes = readFileSync(path("packed"));
  const size = bytes.readUInt16LE(16) + 1;
  for (const change of [1, -1]) {
    const lying = Buffer.from(bytes);
    lying.writeUInt32LE(lying.readUInt32LE(size - 4) + change, size - 4);
    writeFileSync(path("lying"), lying);
    isRefused(t, "corrupt", { path: path("lying") }, path("lying"));
  }
  bytes.writeUInt16LE(12, 16);
  writeFileSync(path("lying"), bytes);
  isRefused(t, "corrupt", { path: path("lying") }, "BGZF block");
});

/** A number as xz writes it. */
const varint = (value: number): number[] =>
  value < 128 ? [value] : [(value % 128) | 128, ...varint(Math.floor(value / 128))];

/** An xz file whose index is another, with the checksums that it should have. */
function withIndex(bytes: Buffer, records: readonly (readonly [number, number])[]): Buffer {
  const indexSize = (bytes.readUInt32LE(bytes.length - 8) + 1) * 4;
  const body = Buffer.from([
    0,
    ...varint(records.length),
    ...records.flatMap(([a, b]) => [...varint(a), ...varint(b)]),
  ]);
  const index = Buffer.concat([body, Buffer.alloc((4 - (body.length % 4)) % 4)]);
  const crc = Buffer.alloc(4);
  crc.writeUInt32LE(crc32(index));
  const footer = Buffer.from(bytes.subarray(bytes.length - 12));
  footer.writeUInt32LE(index.length / 4, 4);
  footer.writeUInt32LE(crc32(footer.subarray(4, 10)), 0);
  return Buffer.concat([bytes.subarray(0, bytes.length - 12 - indexSize), index, crc, footer]);
}

test("an xz index that tells other sizes than the blocks have is refused", (t) => {
  const path = packingFolder(t, words(50_000));
  if (!packs(t, path, "xz -0 -c disk > packed")) return;
  const bytes = readFileSync(path("packed"));
  const indexSize = (bytes.readUInt32LE(bytes.length - 8) + 1) * 4;
  const block = bytes.length - 24 - indexSize;
  const unpadded = [3, 2, 1, 0].map((less) => block - less);
  const lies: (readonly [number, number])[][] = [
    ...unpadded.flatMap((size) => [1, -1, 2 ** 40].map((more): [number, number][] => [[size, 50_000 + more]])),
    [
      [block, 50_000],
      [block, 50_000],
    ],
    [[4, 50_000]],
    [[2 ** 50, 1]],
    [
      [block, 2 ** 52],
      [8, 2 ** 52],
    ],
  ];
  for (const lie of lies) {
    writeFileSync(path("lying"), withIndex(bytes, lie));
    t.throws(
      () => opened({ path: path("lying") }, ({ disk }) => readFully(disk, 0, Buffer.alloc(60_000))),
      {
        instanceOf: ImageError,
      },
      JSON.stringify(lie),
    );
  }
});

test("an xz dictionary of a gigabyte is refused before it is allocated", (t) => {
  const path = packingFolder(t, words(1000));
  if (!packs(t, path, "xz --lzma2=dict=1GiB -c disk > packed")) return;
  isRefused(t, "unsupported", { path: path("packed") }, path("packed"), "dictionary");
});

test("a zstd window of 2 GiB is refused before it is allocated; a dictionary too", (t) => {
  const path = packingFolder(t, words(1000));
  // A frame with a window of 2^31 and no size, a last raw block of one byte.
  writeFileSync(path("window"), Buffer.from("28b52ffd00a8090000aa", "hex"));
  isRefused(t, "unsupported", { path: path("window") }, path("window"), "--long");
  writeFileSync(path("dictionary"), Buffer.from("28b52ffd010005090000aa", "hex"));
  isRefused(t, "unsupported", { path: path("dictionary") }, path("dictionary"), "dictionary");
});

test.serial("a frame that is refused by its header takes no decompressor with it", (t) => {
  const usual = binding.DCtx;
  let made = 0;
  binding.DCtx = class extends usual {
    constructor() {
      super();
      made++;
    }
  };
  t.teardown(() => {
    binding.DCtx = usual;
  });
  // A frame that needs a dictionary.
  const source = new MemorySource("/refused", Buffer.from("28b52ffd010005090000aa", "hex"));
  const writer = new Counted();
  for (let times = 0; times < 5; times++) {
    t.throws(() => new FrameUnpacker(source, { at: 0 }), { instanceOf: ImageError, code: "unsupported" });
    t.throws(() => [...indexFrame(source, writer, 0, undefined)], { instanceOf: ImageError, code: "unsupported" });
  }
  t.is(made, 0);
});

/** The seekable format's table over frames of these packed and unpacked sizes. */
function seekTable(entries: readonly (readonly [number, number])[]): Buffer {
  const table = Buffer.alloc(8 + entries.length * 8 + 9);
  table.writeUInt32LE(0x184d2a5e, 0);
  table.writeUInt32LE(entries.length * 8 + 9, 4);
  for (const [index, [packed, size]] of entries.entries()) {
    table.writeUInt32LE(packed, 8 + index * 8);
    table.writeUInt32LE(size, 12 + index * 8);
  }
  table.writeUInt32LE(entries.length, table.length - 9);
  table.writeUInt32LE(0x8f92eab1, table.length - 4);
  return table;
}

test("a seekable zstd file is read by its table, and a table that lies is refused", (t) => {
  const path = packingFolder(t, words(50_000));
  if (!packs(t, path, "head -c 20000 disk | zstd -qc > a; tail -c +20001 disk | zstd -qc > b")) return;
  const [a, b] = [readFileSync(path("a")), readFileSync(path("b"))];
  const write = (...entries: [number, number][]) =>
    writeFileSync(path("packed"), Buffer.concat([a, b, seekTable(entries)]));
  write([a.length, 20_000], [b.length, 30_000]);
  t.true(wholeDisk({ path: path("packed") }).equals(words(50_000)));
  opened({ path: path("packed") }, ({ wrappings }) => t.is(wrappings[0]![0]!.facts["packed seekTable"], "2 frames"));
  for (const lie of [
    [
      [a.length, 20_001],
      [b.length, 29_999],
    ],
    [
      [a.length, 19_999],
      [b.length, 30_001],
    ],
    [
      [a.length + 1, 20_000],
      [b.length - 1, 30_000],
    ],
    [
      [a.length, 20_000],
      [b.length + 5, 30_000],
    ],
    [
      [a.length, 0xffffffff],
      [b.length, 0xffffffff],
    ],
  ] as [number, number][][]) {
    write(...lie);
    t.throws(
      () =>
        opened({ path: path("packed") }, ({ disk }) => {
          const bytes = Buffer.alloc(50_010);
          const count = readFully(disk, 0, bytes);
          if (count < 50_000) throw new ImageError("corrupt", "short");
        }),
      { instanceOf: ImageError },
      JSON.stringify(lie),
    );
  }
});

test("zip: a directory that tells another size, checksum or place is refused", (t) => {
  const path = packingFolder(t, words(100_000));
  if (!packs(t, path, "zip -q packed.zip disk")) return;
  const bytes = readFileSync(path("packed.zip"));
  const entry = bytes.lastIndexOf(Buffer.from("PK\x01\x02"));
  for (const [what, at] of [
    ["checksum", 16],
    ["packed size", 20],
    ["size", 24],
    ["header", 42],
  ] as const) {
    for (const change of [1, 0x01000000]) {
      const lying = Buffer.from(bytes);
      lying.writeUInt32LE((lying.readUInt32LE(entry + at) + change) >>> 0, entry + at);
      writeFileSync(path("lying"), lying);
      // A packed size that reaches into the directory leaves the stream as it was.
      if (what === "packed size" && change === 1) t.not(outcome(t, path("lying"), words(100_000), what), undefined);
      else isRefused(t, "corrupt", { path: path("lying") }, path("lying"));
    }
  }
});

test("two hundred megabytes of zeros in one are opened in little memory, and are a hole", (t) => {
  const path = packingFolder(t, Buffer.alloc(0));
  if (!packs(t, path, "(echo start; head -c 200M /dev/zero; echo end) | gzip -1 > packed")) return;
  const before = process.memoryUsage().rss;
  opened({ path: path("packed") }, ({ disk }) => {
    t.is(disk.size, 200 * 2 ** 20 + 10);
    t.true(disk.extentAt(100e6).hole);
    const tail = Buffer.alloc(4);
    t.is(readFully(disk, disk.size - 4, tail), 4);
    t.is(tail.toString(), "end\n");
  });
  t.true(process.memoryUsage().rss - before < 100e6);
});

test("a block without a way into its middle is kept, and any place in it is read", (t) => {
  const path = packingFolder(t, Buffer.alloc(0));
  // One deflate block of many mebibytes: only matches of 258 bytes, which zlib itself would cut.
  const long = Buffer.concat([Buffer.from("x"), Buffer.alloc(258 * 30_000, "abcdefghij")]);
  writeFileSync(path("packed"), gzipSync(long, { level: 9, memLevel: 9 }));
  t.true(wholeDisk({ path: path("packed") }).equals(long));
  opened({ path: path("packed") }, ({ disk }) => {
    const part = Buffer.alloc(1000);
    readFully(disk, 5_000_000, part);
    t.true(part.equals(long.subarray(5_000_000, 5_001_000)));
  });
});

test("millions of empty members take time, and no memory", (t) => {
  const path = packingFolder(t, Buffer.alloc(0));
  const empty = gzipSync(Buffer.alloc(0));
  writeFileSync(path("packed"), Buffer.concat([...Array(30_000).fill(empty), gzipSync(Buffer.from("disk"))]));
  t.is(wholeDisk({ path: path("packed") }).toString(), "disk");
});

test("bzip2: a mark within a block doesn't end it", (t) => {
  const path = packingFolder(t, words(300_000));
  if (!packs(t, path, "bzip2 -1 -c disk > packed")) return;
  // What looks like the next block is only found by unpacking: the real one must still be taken. Damage is told instead
  // where nothing fits.
  const bytes = readFileSync(path("packed"));
  const forged = Buffer.from(bytes);
  Buffer.from("314159265359", "hex").copy(forged, 5000);
  writeFileSync(path("forged"), forged);
  isRefused(t, "corrupt", { path: path("forged") }, path("forged"));
});

test("a stored block and a fixed one, put together by hand, begin at odd bits and are found there", (t) => {
  const path = packingFolder(t, Buffer.alloc(0));
  const parts = Array.from({ length: 40 }, (_, index) => words(60_000, index + 1));
  const script = `
import zlib, sys, gzip
data = open("parts", "rb").read()
out = b"\\x1f\\x8b\\x08\\0\\0\\0\\0\\0\\0\\3"
c = None
for i in range(40):
    part = data[i * 60000:(i + 1) * 60000]
    if c is None: c = zlib.compressobj(6, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY)
    out += c.compress(part) + c.flush(zlib.Z_PARTIAL_FLUSH if i % 2 else zlib.Z_BLOCK)
out += c.flush()
out += zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
open("packed", "wb").write(out)`;
  writeFileSync(path("parts"), Buffer.concat(parts));
  writeFileSync(path("make.py"), script.replace("zlib.Z_BLOCK", "5"));
  if (!packs(t, path, "python3 make.py")) return;
  t.true(wholeDisk({ path: path("packed") }).equals(Buffer.concat(parts)));
});

test("deflate data that refers to before its start is refused", (t) => {
  const path = packingFolder(t, Buffer.alloc(0));
  // A fixed block: the first thing in it is a match of three bytes, one back.
  const header = Buffer.from("1f8b0800000000000003", "hex");
  const body = deflateRawSync(Buffer.alloc(10, "a"));
  const broken = Buffer.concat([header, Buffer.of(0x03, 0x02), body, Buffer.alloc(8)]);
  writeFileSync(path("packed"), broken);
  isRefused(t, "corrupt", { path: path("packed") }, path("packed"));
});

/** A writer that only counts the content. */
class Counted implements PieceWriter {
  position = 0;
  zeros(length: number): void {
    this.position += length;
  }
  packed = this.zeros;
  kept(content: Uint8Array): void {
    this.position += content.length;
  }
  progress(): void {}
  remark(): void {}
  resume(): undefined {}
}

/** Bytes that a pass through `file` reads, for each byte of it; and the content's length. */
function passed(packing: Packing, file: Buffer): { times: number; length: number } {
  const memory = new MemorySource("/many", file);
  let read = 0;
  const source: ByteSource = {
    name: memory.name,
    size: memory.size,
    read(position, target) {
      const count = memory.read(position, target);
      read += count;
      return count;
    },
  };
  const opened = packing.open(source);
  const writer = new Counted();
  for (const _ of opened.pass(writer)) if (read > 100 * file.length) break;
  return { times: read / file.length, length: writer.position };
}

test("a file of thousands of tiny streams or frames is gone through in a few readings of it", (t) => {
  const path = packingFolder(t, Buffer.from("abcd"));
  const many = (one: Buffer) => Buffer.concat(Array.from({ length: 4000 }, () => one));
  if (!packs(t, path, "xz -c < /dev/null > none.xz && xz -c disk > some.xz")) return;
  const streams = Buffer.concat([readFileSync(path("some.xz")), many(readFileSync(path("none.xz")))]);
  const found = passed(xz, streams);
  t.is(found.length, 4);
  t.true(found.times < 20, `xz: each byte is read ${found.times} times`);

  if (!packs(t, path, "cat disk | zstd -qc --no-content-size > one.zst")) return;
  const frames = passed(zstd, many(readFileSync(path("one.zst"))));
  t.true(frames.times < 20, `zstd: each byte is read ${frames.times} times`);
  t.is(frames.length, 16_000);
});
