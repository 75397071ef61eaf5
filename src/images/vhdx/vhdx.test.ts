import { copyFileSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import fc from "fast-check";
import { readFully } from "../../bytes/byte-source.js";
import { MemorySource } from "../../bytes/memory.js";
import { ImageError } from "../../errors.js";
import {
  differenceFromRaw,
  hasQemu,
  noQemu,
  openedImage,
  qemuImg,
  qemuIo,
  readsLike,
  register,
  sha256OfDisk,
  sharedContainers,
  shuffledWrites,
  surroundings,
  survives,
  temporaryFolder,
  unpackShared,
} from "../shared-test-images.js";
import { vhdx } from "./index.js";
import { batAt, guid, guids, logAt, logEntry, makeVhdx as make, metadataAt, sum } from "./vhdx-test-tools.js";

register(vhdx);
const MiB = 1 << 20;

test("the shared VHDX files are the disks that QEMU and libvhdi read from them", (t) => {
  for (const row of sharedContainers(t, "vhdx")) {
    const path = unpackShared(t, row);
    const { disk, layers } = openedImage(t, path);
    t.is(layers[0]!.format, "vhdx");
    t.is(disk.size, Number(row.raw_size), row.file);
    if (disk.size <= 2 ** 31) t.is(sha256OfDisk(disk), row.raw_sha256, row.file);
    else if (!hasQemu) t.log(noQemu);
    else {
      // Too large to hash here: QEMU replays the log in a copy, and holes of both are passed.
      copyFileSync(path, `${path}.copy`);
      qemuImg("check", "-q", "-r", "all", "-f", "vhdx", `${path}.copy`);
      qemuImg("convert", "-f", "vhdx", "-O", "raw", `${path}.copy`, `${path}.raw`);
      t.is(differenceFromRaw(disk, `${path}.raw`), undefined, row.file);
    }
  }
});

test("a log that was not replayed is replayed in memory, and the file stays as it was", (t) => {
  for (const row of sharedContainers(t, "vhdx-dynamic-dirtylog")) {
    const path = unpackShared(t, row);
    const before = readFileSync(path);
    const { layers, disk } = openedImage(t, path);
    t.true((layers[0]!.facts.logEntriesReplayed as number) > 0);
    disk.read(0, Buffer.alloc(4096));
    t.true(readFileSync(path).equals(before));
  }
});

for (const [size, ...options] of [
  ["11000320", "subformat=dynamic", "block_size=1M"],
  ["11000320", "subformat=dynamic", "block_size=1M", "block_state_zero=off"],
  ["11000320", "subformat=fixed", "block_size=2M"],
  ["30000128", "subformat=dynamic", "block_size=8M"],
] as [string, ...string[]][])
  test(`a disk that QEMU makes with ${options} is read as QEMU reads it`, (t) => {
    if (!hasQemu) {
      t.log(noQemu);
      t.pass();
      return;
    }
    const folder = temporaryFolder(t);
    const path = join(folder, "disk.vhdx");
    qemuImg("create", "-q", "-f", "vhdx", "-o", options.join(), path, size);
    qemuIo("vhdx", path, ...shuffledWrites(Number(size)));
    qemuImg("convert", "-f", "vhdx", "-O", "raw", path, join(folder, "raw"));
    const opened = openedImage(t, path);
    readsLike(t, opened.disk, readFileSync(join(folder, "raw")), MiB);
    // QEMU has no map of VHDX: it calls everything data.
    t.is(opened.disk.dataBytes(0, Number(size)) < Number(size), options.includes("block_size=1M"));
  });

const open = (bytes: Buffer) => vhdx.open(new MemorySource("/images/test.vhdx", bytes), surroundings());

/** A layer's own content; what it leaves absent is `?`. */
function contentOf(bytes: Buffer): Buffer {
  const layer = open(bytes);
  const content = Buffer.alloc(layer.size);
  for (let position = 0; position < layer.size; ) {
    const run = layer.locate(position);
    const part = content.subarray(position, position + run.length);
    if (run.kind === "stored") readFully(run.source, run.at, part);
    else if (run.kind === "absent") part.fill("?");
    position += run.length;
  }
  return content;
}
const plain = (blocks: string, size = blocks.length * MiB) =>
  Buffer.concat([...blocks].map((letter) => Buffer.alloc(MiB, letter === "." ? 0 : letter))).subarray(0, size);

test("blocks out of order, of every state, and a last block in part are read", (t) => {
  for (const reversed of [false, true])
    t.true(
      contentOf(make({ blocks: "ab.0cumd", reversed, size: 8 * MiB - 512 })).equals(plain("ab..c..d", 8 * MiB - 512)),
    );
});

for (const sector of [512, 4096])
  test(`a chain of three with other sizes is read through bitmaps of sectors of ${sector} bytes`, (t) => {
    const folder = temporaryFolder(t);
    const path = (name: string) => join(folder, name);
    writeFileSync(path("base.vhdx"), make({ blocks: "abcdef", sector }));
    const middle = { parent_linkage: `{${guids.base.toUpperCase()}}`, relative_path: ".\\base.vhdx" };
    writeFileSync(path("middle.vhdx"), make({ blocks: "g~..", sector, id: guids.middle, parent: middle }));
    const top = { parent_linkage: `{${guids.middle}}`, absolute_win32_path: "C:\\VMs\\middle.vhdx" };
    writeFileSync(path("top.vhdx"), make({ blocks: "..h0~.", sector, id: guids.top, parent: top, reversed: true }));
    const { disk, layers } = openedImage(t, path("top.vhdx"));
    t.is(layers.length, 3);
    // The middle has 4 blocks: the base's e and f lie beyond it, yet the top's layers beneath begin with the middle.
    const expected = Buffer.concat([plain("gbh.."), plain(".")]);
    for (const [at, fill] of [
      [MiB, "z"],
      [4 * MiB, "z"],
    ] as [number, string][]) {
      expected.fill(fill, at + 3 * sector, at + 10 * sector);
      expected.fill(fill, at + MiB - sector, at + MiB);
    }
    readsLike(t, disk, expected, MiB);
  });

test("a log is replayed over the file: data, zeros, newer entries over older, and only a valid sequence", (t) => {
  const bat = (blocks: string) => make({ blocks, reversed: true }).subarray(batAt, batAt + 4096);
  const wanted = bat("ab..");
  const file = make({ blocks: "....", log: [[batAt, wanted]] });
  const grown = Buffer.concat([file, plain("ba")]);
  t.true(contentOf(grown).equals(plain("ab..")));
  t.is(open(grown).facts.logEntriesReplayed, 1);

  const second = logEntry([[batAt, 4096]], 6, 0, grown.length);
  const both = Buffer.from(grown);
  both.set(second, logAt + 8192);
  t.true(contentOf(both).equals(plain("....")), "the second entry zeroes the table");
  const fresh = Buffer.from(grown);
  fresh.set(logEntry([[batAt, 4096]], 6, 8192, grown.length), logAt + 8192);
  t.true(contentOf(fresh).equals(plain("....")), "the tail is the second entry itself");
  const gap = Buffer.from(grown);
  gap.set(logEntry([[batAt, 4096]], 7, 0, grown.length), logAt + 8192);
  t.true(contentOf(gap).equals(plain("ab..")), "an entry that doesn't follow, with a tail outside its sequence");
  const torn = Buffer.from(both);
  torn[logAt + 8192 + 300]! ^= 1;
  t.true(contentOf(torn).equals(plain("ab..")), "an entry that fails its checksum");
  const wrapped = Buffer.from(make({ blocks: "....", log: [[batAt, wanted]] }));
  const entry = Buffer.from(wrapped.subarray(logAt, logAt + 8192));
  entry.writeUInt32LE(MiB - 4096, 12);
  sum(entry);
  wrapped.set(entry.subarray(0, 4096), logAt + MiB - 4096);
  wrapped.set(entry.subarray(4096), logAt);
  t.true(contentOf(Buffer.concat([wrapped, plain("ba")])).equals(plain("ab..")), "an entry that goes around the ring");
  t.throws(() => open(make({ blocks: "..", log: [[batAt + 1, 4096]] })), { message: /no whole sectors/ });
  t.throws(() => open(make({ blocks: "..", log: [[0, 4096]] }).subarray(0, 4 * MiB)), {
    message: /log was written when/,
  });
});

test("the newer of two headers counts, and the older serves where it is damaged, with a complaint", (t) => {
  const file = make({ blocks: "a." });
  guid(guids.top).copy(file, 65536 + 32);
  sum(file.subarray(65536, 65536 + 4096));
  t.is(open(file).facts.dataWriteGuid, guids.base);
  file[131072 + 100]! ^= 1;
  t.is(open(file).facts.dataWriteGuid, guids.top);
  t.regex(open(file).integrity!.check(0).damages[0]!.message, /header at byte 131072 fails its checksum/);
  t.deepEqual(open(make({ blocks: "a." })).integrity!.check(0).damages, []);
  file[65536 + 100]! ^= 1;
  t.throws(() => open(file), { instanceOf: ImageError, message: /neither of the headers/ });
});

test("a parent that is missing, renamed, changed, another or no VHDX is told in words", (t) => {
  const folder = temporaryFolder(t);
  const [base, top] = ["base.vhdx", "top.vhdx"].map((name) => join(folder, name));
  const parent = {
    parent_linkage: `{${guids.base}}`,
    relative_path: ".\\base.vhdx",
    volume_path: "\\\\?\\Volume{1}\\x",
  };
  writeFileSync(base!, make({ blocks: "ab" }));
  writeFileSync(top!, make({ blocks: "..", id: guids.top, parent }));
  openedImage(t, top!);
  const refused = (...words: RegExp[]) => {
    const error = t.throws(() => openedImage(t, top!), { instanceOf: ImageError });
    for (const word of [...words, /top\.vhdx/, /base\.vhdx/, /--parent/]) t.regex(error.message, word);
  };
  renameSync(base!, join(folder, "moved.vhdx"));
  refused(/not found/, /moved\.vhdx/);
  writeFileSync(base!, make({ blocks: "ab", id: guids.middle }));
  refused(/is not the parent it was made from, or was changed/, new RegExp(guids.middle));
  writeFileSync(base!, plain("a"));
  refused(/not a VHDX \(raw\)/);
  rmSync(join(folder, "moved.vhdx"));
  rmSync(base!);
  refused(/not found/, /Put it there/);
});

test("truncated files are refused or end in words", (t) => {
  const whole = make({ blocks: "ab.c" });
  for (const length of [0, 7, 8, 65536, 70000, 131072, 200000, MiB, 2 * MiB, 2 * MiB + 65540, 3 * MiB, 4 * MiB - 8]) {
    const error = t.throws(() => contentOf(whole.subarray(0, length)), { instanceOf: ImageError }, `${length}`);
    t.regex(error.message, /^\/images\/test\.vhdx: /);
  }
  const path = join(temporaryFolder(t), "x.vhdx");
  writeFileSync(path, whole);
  truncateSync(path, whole.length - 1000);
  t.throws(() => sha256OfDisk(openedImage(t, path).disk), { message: /block 3 .* truncated or damaged/ });
});

test("numbers that can't be are refused at once", (t) => {
  const lies: [(bytes: Buffer) => void, RegExp][] = [
    [(file) => file.writeUInt32LE(3 * MiB, metadataAt + 65536), /blocks of 3145728 bytes/],
    [(file) => file.writeUInt32LE(2 ** 30, metadataAt + 65536), /blocks of 1073741824 bytes/],
    [(file) => file.writeBigUInt64LE(2n ** 50n, metadataAt + 65544), /impossible disk size/],
    [(file) => file.writeBigUInt64LE(2n ** 46n, metadataAt + 65544), /need \d+/],
    [(file) => file.writeUInt32LE(1024, metadataAt + 65568), /sectors of 1024 bytes/],
    [(file) => file.writeUInt16LE(3000, metadataAt + 10), /tells of 3000 items/],
    [(file) => file.writeUInt32LE(0xffffffff, metadataAt + 48), /no usable item fileParameters/],
    [(file) => file.writeUInt32LE(0x11111111, metadataAt + 32), /requires a metadata item/],
    [(file) => file.writeUInt8(4, batAt), /unknown state 4/],
    [(file) => file.writeUInt8(7, batAt), /there is no parent/],
    [(file) => file.writeBigUInt64LE(2n ** 63n + 6n, batAt), /no block can be/],
    [(file) => file.writeBigUInt64LE(2n ** 44n + 6n, batAt), /truncated or damaged/],
    [(file) => file.writeBigUInt64LE(6n, batAt), /no block can be/],
  ];
  for (const [lie, message] of lies) {
    const bytes = make({ blocks: "ab.c" });
    lie(bytes);
    t.throws(() => contentOf(bytes), { instanceOf: ImageError, message });
  }
});

test("a file with any bytes changed, checksums made right, is refused or read in peace", (t) => {
  const parent = { parent_linkage: `{${guids.base}}`, relative_path: "b" };
  const files = [
    make({ blocks: "a." }),
    make({ blocks: "~.", parent }),
    make({
      blocks: "a.",
      log: [
        [batAt, Buffer.alloc(4096, 3)],
        [metadataAt + MiB / 2, 8192],
      ],
    }),
  ];
  const places = [65536, 131072, 196608, 262144, logAt, logAt + 4096, metadataAt, metadataAt + 65536, batAt, 4 * MiB];
  fc.assert(
    fc.property(
      fc.constantFrom(...files),
      fc.array(fc.record({ place: fc.constantFrom(...places), at: fc.nat(200), byte: fc.nat(255) }), {
        minLength: 1,
        maxLength: 4,
      }),
      (file, changes) => {
        const undo = changes.map(({ place, at }) => [place + at, file[place + at]!] as const);
        for (const { place, at, byte } of changes) file[place + at] = byte;
        const sums = [65536, 131072].map((at) => file.subarray(at, at + 4096));
        sums.push(...[196608, 262144].map((at) => file.subarray(at, at + 65536)), file.subarray(logAt, logAt + 8192));
        for (const part of sums) sum(part);
        try {
          survives(vhdx, file);
        } finally {
          for (const [at, byte] of undo.reverse()) file[at] = byte;
        }
      },
    ),
    { numRuns: 500 },
  );
  t.pass();
});
