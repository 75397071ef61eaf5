/** What a pass leaves behind: gone on with, shared, bound to its file, and never believed when it is damaged. */
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { NotYet, readFully } from "../bytes/byte-source.js";
import { FileSource } from "../bytes/file.js";
import { LocalChunkCache } from "../bytes/local-cache.js";
import { openLayers, reopenLayers } from "../chain.js";
import { ImageError } from "../errors.js";
import { isRefused, opened, wholeDisk } from "../images/qemu-test-tools.js";
import { openImage } from "../open.js";
import { lock } from "./builder.js";
import { cacheLimit, makeRoom, namelessFile, openPieceFiles } from "./cache-folder.js";
import { PackedContent } from "./content.js";
import { type Claims, claimsHead, diskClaims } from "./disk-claims.js";
import { likelySize, OpenPacked, packingOf } from "./index.js";
import { cacheFolderOfTests, disk, noise, packingFolder, packs, words } from "./packed-test-tools.js";
import { RunningPass } from "./pass.js";
import { PieceTable, recordSize } from "./piece-table.js";
import { Progress } from "./progress.js";
import { Scratch } from "./scratch.js";
import { silently } from "./waiting.js";

const tables = () => readdirSync(cacheFolderOfTests).filter((name) => name.endsWith(".table"));

for (const [name, command] of [
  ["gzip", "gzip -c disk > packed"],
  [
    "gzip of three members",
    "(head -c 700000 disk | gzip; tail -c +700001 disk | head -c 3000000 | gzip; tail -c +3700001 disk | gzip) > packed",
  ],
  ["BGZF, then gzip", "(head -c 1000000 disk | bgzip -c; tail -c +1000001 disk | gzip) > packed"],
  ["bzip2", "bzip2 -3 -c disk > packed"],
  ["xz", "xz -0 -T2 --block-size=500000 -c disk > packed"],
  ["zstd", "zstd -qc disk > packed"],
  ["lz4", "lz4 -qc -B6 disk > packed"],
] as const)
  test(`${name}: a pass that is ended again and again comes to the same as one that isn't`, (t) => {
    const path = packingFolder(t);
    if (!packs(t, path, command)) return;
    const source = FileSource.open(path("packed"));
    const file = packingOf(source)!.open(source);
    const key = Buffer.alloc(32, 5);
    const files = { table: namelessFile(), data: namelessFile(), name: "a table" };
    t.teardown(() => {
      for (const fd of [files.table, files.data, source.fd]) closeSync(fd);
    });
    const progress = Progress.create();
    let runs = 0;
    for (let ended = false; !ended; runs++) {
      // So many steps that something is added each time, even where every pass begins at the start.
      let steps = 0;
      const before = progress.covered;
      const pass = new RunningPass(file, files, key, progress);
      ended = pass.run(() => ++steps > 3 && progress.covered > before);
      pass.close();
      if (runs > 200) return t.fail("it doesn't come to an end");
    }
    // Those with an index of their own are gone through in a few steps.
    t.true(runs > (name === "xz" || name === "zstd" ? 0 : 1));
    t.is(progress.state, "whole");
    t.is(progress.covered, disk.length);
    const table = new PieceTable(files, key);
    const scratch = Scratch.create();
    t.teardown(() => scratch.close());
    const parts = { name: "packed", file, table, progress, scratch, size: disk.length, whileWaiting: () => {} };
    const bytes = Buffer.alloc(disk.length);
    t.is(readFully(new PackedContent(parts, new LocalChunkCache(4 << 20)), 0, bytes), disk.length);
    t.true(bytes.equals(disk));
    const { count, covered, ending } = table.survey();
    t.deepEqual([count, covered, ending?.size, ending?.code], [progress.count, disk.length, disk.length, undefined]);
  });

test("what was found out is there the next time, for the same file under another name too", (t) => {
  const path = packingFolder(t);
  if (!packs(t, path, "bzip2 -1 -k disk && cp -p disk.bz2 copy")) return;
  t.true(wholeDisk({ path: path("disk.bz2") }).equals(disk));
  const before = tables();
  t.true(wholeDisk({ path: path("copy") }).equals(disk));
  t.deepEqual(tables(), before);
});

test("a file that is replaced by another of its size and name is gone through anew", (t) => {
  const path = packingFolder(t);
  // Stored in blocks, so that both have the same size and the same samples, but for the middle.
  const pack = (byte: number) => {
    const other = Buffer.from(disk);
    other.fill(byte, 1_000_000, 1_000_100);
    writeFileSync(path("disk"), other);
    packs(t, path, "zip -q -0 -X packed.zip disk");
    return other;
  };
  const first = pack(1);
  t.true(wholeDisk({ path: path("packed.zip") }).equals(first));
  rmSync(path("packed.zip"));
  const second = pack(2);
  utimesSync(path("packed.zip"), new Date(5e9), new Date(5e9));
  t.true(wholeDisk({ path: path("packed.zip") }).equals(second));
});

test("bytes that changed behind the table's back are refused, and found by verify", (t) => {
  const path = packingFolder(t, noise(3_000_000));
  if (!packs(t, path, "gzip -k disk")) return;
  const time = new Date(1e12);
  utimesSync(path("disk.gz"), time, time);
  t.true(wholeDisk({ path: path("disk.gz") }).equals(noise(3_000_000)));
  const bytes = readFileSync(path("disk.gz"));
  // Incompressible, so it is stored: the change is one of content. Not in a place that is sampled.
  bytes[1_234_567]! ^= 1;
  writeFileSync(path("disk.gz"), bytes);
  utimesSync(path("disk.gz"), time, time);
  opened({ path: path("disk.gz") }, ({ disk: found, wrappings }) => {
    const error = t.throws(() => readFully(found, 1_234_000, Buffer.alloc(2000)), { instanceOf: ImageError });
    t.is((error as ImageError).code, "corrupt");
    t.true(error?.message.includes("not what they were"));
    const { integrity } = wrappings[0]![0]!;
    const damages = Array.from({ length: integrity!.pieces }, (_, piece) => integrity!.check(piece).damages).flat();
    t.is(damages.length, 1);
    t.true(damages[0]!.position <= 1_234_600 && damages[0]!.position + damages[0]!.length > 1_234_500);
  });
});

test("a table that is damaged, cut off or another file's is made again", (t) => {
  const path = packingFolder(t);
  if (!packs(t, path, "gzip -k disk")) return;
  const before = tables();
  t.true(wholeDisk({ path: path("disk.gz") }).equals(disk));
  const name = join(cacheFolderOfTests, tables().find((one) => !before.includes(one))!);
  const good = readFileSync(name);
  const flipped = (bytes: Buffer, at: number) => {
    bytes[at] = bytes[at]! ^ 1;
    return bytes;
  };
  const damages: [string, (bytes: Buffer) => Buffer][] = [
    ["a bit of the second record", (bytes) => flipped(bytes, 140)],
    ["a bit of the header", (bytes) => flipped(bytes, 20)],
    ["cut within a record", (bytes) => bytes.subarray(0, 150)],
    [
      "the last two records swapped",
      (bytes) => Buffer.concat([bytes.subarray(0, -128), bytes.subarray(-64), bytes.subarray(-128, -64)]),
    ],
    ["random", (bytes) => noise(bytes.length)],
  ];
  for (const [what, damage] of damages) {
    writeFileSync(name, damage(Buffer.from(good)));
    t.true(wholeDisk({ path: path("disk.gz") }).equals(disk), what);
    t.true(readFileSync(name).equals(good), `${what}: it is the same again`);
  }
  // The data beside an empty table may be another one's: it stays, and what is told anew lies behind it.
  writeFileSync(name, "");
  t.true(wholeDisk({ path: path("disk.gz") }).equals(disk), "empty");
  t.is(readFileSync(name).length, good.length);
});

test("a damaged window is not used: the table goes, and the next opening makes it anew", (t) => {
  const path = packingFolder(t);
  if (!packs(t, path, "gzip -2 -k disk")) return;
  const before = tables();
  t.true(wholeDisk({ path: path("disk.gz") }).equals(disk));
  const name = join(cacheFolderOfTests, tables().find((one) => !before.includes(one))!);
  const data = name.replace(/table$/, "data");
  const bytes = readFileSync(data);
  bytes.fill(0x55, 0, bytes.length - 100);
  writeFileSync(data, bytes);
  isRefused(t, "system", { path: path("disk.gz") }, path("disk.gz"), "made anew");
  t.true(wholeDisk({ path: path("disk.gz") }).equals(disk));
});

test.serial("without a folder for it, and with one that others may write to, everything is read all the same", (t) => {
  const path = packingFolder(t);
  if (!packs(t, path, "gzip -3 -k disk")) return;
  const usual = process.env.XDG_CACHE_HOME;
  t.teardown(() => {
    process.env.XDG_CACHE_HOME = usual;
  });
  mkdirSync(path("open/spindle/packed"), { recursive: true, mode: 0o777 });
  packs(t, path, "chmod 777 open/spindle/packed");
  for (const folder of ["/proc/nothing", path("disk"), path("open")]) {
    process.env.XDG_CACHE_HOME = folder;
    t.true(wholeDisk({ path: path("disk.gz") }).equals(disk), folder);
  }
  t.deepEqual(readdirSync(path("open/spindle/packed")), []);
});

test.serial(
  "the folder keeps to its limit: what was used longest ago goes, and what can't fit is refused in words",
  (t) => {
    // A window is kept for each piece of it, which packs no better than the content.
    const path = packingFolder(t, noise(12_000_000));
    if (!packs(t, path, "gzip -1 disk")) return;
    const usual = process.env.XDG_CACHE_HOME;
    mkdirSync(path("cache"));
    process.env.XDG_CACHE_HOME = path("cache");
    t.teardown(() => {
      process.env.XDG_CACHE_HOME = usual;
      delete process.env.SPINDLE_CACHE_LIMIT;
    });
    const files = ["a", "b", "c"].map((name) => openPieceFiles(name));
    for (const [index, { data, table }] of files.entries()) {
      writeFileSync(data, noise(100_000));
      utimesSync(`/proc/self/fd/${table}`, index, index);
    }
    process.env.SPINDLE_CACHE_LIMIT = "250K";
    t.is(cacheLimit(), 256_000);
    t.is(makeRoom(files[1]!, 30_000), undefined);
    t.deepEqual(readdirSync(path("cache/spindle/packed")).sort(), ["b.data", "b.table", "c.data", "c.table"]);
    t.regex(makeRoom(files[1]!, 200_000)!, /SPINDLE_CACHE_LIMIT/);
    t.deepEqual(readdirSync(path("cache/spindle/packed")).sort(), ["b.data", "b.table"]);
    for (const { data, table } of files) for (const fd of [data, table]) closeSync(fd);
    isRefused(t, "system", { path: path("disk.gz") }, path("disk.gz"), "SPINDLE_CACHE_LIMIT", "Unpack");
    process.env.SPINDLE_CACHE_LIMIT = "much";
    t.throws(() => cacheLimit(), { instanceOf: ImageError, message: /SPINDLE_CACHE_LIMIT=much/ });
  },
);

test.serial(
  "where one process had no room for what it has to keep, another doesn't wait for it while it has the file open",
  (t) => {
    const usual = process.env.XDG_CACHE_HOME;
    const path = packingFolder(t, noise(3_000_000));
    if (!packs(t, path, "zip -q disk.zip disk")) return;
    process.env.XDG_CACHE_HOME = path("cache");
    t.teardown(() => {
      process.env.XDG_CACHE_HOME = usual;
      delete process.env.SPINDLE_CACHE_LIMIT;
    });
    mkdirSync(path("cache"));
    const source = FileSource.open(path("disk.zip"));
    const open = () => OpenPacked.open([source], packingOf(source)!, { trust: "proven", waiting: silently });
    process.env.SPINDLE_CACHE_LIMIT = "40K";
    const first = open();
    for (let looks = 0; first.pass.state === "under way" && looks < 500; looks++)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
    t.regex(first.pass.problem ?? "", /SPINDLE_CACHE_LIMIT/);
    delete process.env.SPINDLE_CACHE_LIMIT;
    const second = open();
    for (let looks = 0; second.pass.state === "under way" && looks < 300; looks++)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
    t.is(second.pass.state, "whole");
    second.close();
    first.close();
  },
);

test("a new table over data that another has, whose name is gone, leaves that as it is", (t) => {
  const path = packingFolder(t);
  if (!packs(t, path, "gzip -c disk > packed")) return;
  const source = FileSource.open(path("packed"));
  const key = Buffer.alloc(32, 1);
  const data = namelessFile();
  const begin = () => {
    const files = { table: namelessFile(), data, name: "packed" };
    const pass = new RunningPass(packingOf(source)!.open(source), files, key, Progress.create());
    return { pass, table: new PieceTable(files, key) };
  };
  const isWhole = (table: PieceTable) => {
    const { count, covered } = table.survey();
    const pieces = Array.from({ length: count }, (_, number) => table.piece(number));
    return covered === disk.length && pieces.every((piece) => piece.dataLength === 0 || table.data(piece));
  };
  const first = begin();
  t.true(first.pass.run(() => false));
  t.true(isWhole(first.table));
  const second = begin();
  t.true(isWhole(first.table), "while the second is made");
  t.true(second.pass.run(() => false));
  t.true(isWhole(first.table) && isWhole(second.table));
  for (const fd of [first.table.files.table, second.table.files.table, data]) closeSync(fd);
  source.close();
});

test("a read that must not wait ends with what it waits for; one that may wait gets its bytes", (t) => {
  const path = packingFolder(t, Buffer.concat([disk, words(4_000_000, 11)]));
  if (!packs(t, path, "bzip2 -9 -k disk")) return;
  const source = FileSource.open(path("disk.bz2"));
  const packing = packingOf(source)!;
  const held = OpenPacked.open([source], packing, { trust: "proven", waiting: silently });
  const { files, key } = held.data;
  const table = new PieceTable(files, key);
  const { count } = table.survey();
  const half = table.piece(Math.floor(count / 2));
  // A pass that stands still half-way.
  const stuck = Progress.create();
  stuck.publish(half.number, half.start, 0);
  const data = { ...held.data, progress: stuck.memory };
  const hurried = OpenPacked.reopen([source], data, (waited, position) => {
    if (waited > 20) throw new NotYet(position);
  });
  const content = hurried.content(new LocalChunkCache(4 << 20));
  const bytes = Buffer.alloc(1000);
  t.is(readFully(content, 0, bytes), 1000);
  t.true(content.isFar(half.start));
  t.false(content.isFar(half.start - 1));
  t.false(content.extentAt(half.start).hole);
  const error = t.throws(() => content.read(half.start + 5, bytes), { instanceOf: NotYet });
  t.is((error as NotYet).position, half.start + 5);
  stuck.publish(count, held.size, 0);
  t.true(content.read(half.start + 5, bytes) > 0);
  held.close();
  source.close();
});

/** Leaves a file as another process does whose pass stands still half-way, until the test ends. */
function stuckHalfWay(t: ExecutionContext, path: string): FileSource {
  const source = FileSource.open(path);
  const whole = OpenPacked.open([source], packingOf(source)!, { trust: "proven", waiting: silently });
  whole.close();
  const files = openPieceFiles(Buffer.from(whole.data.key).toString("hex", 0, 16));
  const { count } = new PieceTable(files, whole.data.key).survey();
  ftruncateSync(files.table, (1 + Math.floor(count / 2)) * recordSize);
  t.true(lock(files));
  t.teardown(() => {
    for (const fd of [files.table, files.data]) closeSync(fd);
    source.close();
  });
  return source;
}

test.serial(
  "however many packed partitions are gone through, the next one is opened without waiting for its turn",
  (t) => {
    const path = packingFolder(t);
    if (!packs(t, path, "lz4 -qc -B4 disk > packed; for n in {1..12}; do cp packed $n; done")) return;
    const opened = Array.from({ length: 12 }, (_, number) => {
      const source = stuckHalfWay(t, path(`${number + 1}`));
      const lengthOf = () => disk.length;
      return OpenPacked.open([source], packingOf(source)!, { trust: "disk", waiting: silently, lengthOf });
    });
    for (const one of opened) {
      t.is(one.pass.state, "under way");
      const head = Buffer.alloc(100_000);
      t.is(readFully(one.head(), 0, head), head.length);
      t.true(head.equals(disk.subarray(0, head.length)));
    }
    for (const one of opened) one.close();
  },
);

for (const [what, command] of [
  ["a GPT", "truncate -s 20M disk; printf 'label: gpt\\nstart=1MiB' | sfdisk -q disk"],
  [
    "an MBR whose partition ends with it",
    "truncate -s 20M disk; printf 'label: dos\\nstart=2048, type=83' | sfdisk -q disk; mke2fs -q -F -t ext4 -E offset=1048576 disk 19m",
  ],
  ["a filesystem", "mke2fs -q -F -t ext4 disk 20m"],
] as const)
  test.serial(`a disk in a zip that is filled by ${what} is opened without waiting for its end`, (t) => {
    const path = packingFolder(t, Buffer.alloc(0));
    if (!packs(t, path, command)) return;
    if (
      !packs(
        t,
        path,
        `head -c 2000000 /dev/urandom | dd of=disk bs=1M seek=9 conv=notrunc status=none; zip -q disk.zip disk`,
      )
    )
      return;
    stuckHalfWay(t, path("disk.zip"));
    const image = openImage({ path: path("disk.zip") });
    t.is(image.passes()[0]!.state, "under way");
    t.is(image.layers[0]!.format, "raw");
    t.is(image.disk.size, 20 * 2 ** 20);
    image.close();
  });

test("another process's pass is followed, and taken over when it ends half-way", (t) => {
  const path = packingFolder(t);
  if (!packs(t, path, "gzip -4 -k disk")) return;
  const before = openPieceFiles("followed");
  t.true(lock(before));
  const again = openPieceFiles("followed");
  t.false(lock(again));
  for (const fd of [before.table, before.data]) closeSync(fd);
  t.true(lock(again));
  for (const fd of [again.table, again.data]) closeSync(fd);
});

test("a size that the disk and the file tell differently is an error where the content ends", (t) => {
  const path = packingFolder(t);
  if (!packs(t, path, "gzip -5 -k disk")) return;
  const image = openLayers({ path: path("disk.gz") });
  t.teardown(() => image.close());
  const [{ packed, ...file }] = image.data.files as [(typeof image.data.files)[0]];
  const content = { ...packed!.content!, size: disk.length + 1000 };
  const files = [{ ...file, packed: { ...packed!, content } }];
  const longer = reopenLayers({ ...image.data, files }, new LocalChunkCache(1 << 20)).disk;
  const bytes = Buffer.alloc(10);
  t.is(longer.read(disk.length - 10, bytes), 10);
  t.throws(() => longer.read(disk.length, bytes), { instanceOf: ImageError, message: /its content ends at byte/ });
});

test("the size of a disk is told by its partition table or its filesystem, as the tools made it", (t) => {
  const MiB = 2 ** 20;
  const made: [string, string, Claims | undefined][] = [
    [
      "GPT",
      "truncate -s 40M image; echo 'label: gpt\nstart=1MiB, size=10MiB' | sfdisk -q image",
      { least: 40 * MiB, whole: 40 * MiB },
    ],
    [
      "MBR",
      "truncate -s 40M image; echo 'label: dos\nstart=1MiB, size=10MiB' | sfdisk -q image",
      { least: 11 * MiB, whole: undefined },
    ],
    ["ext4", "mke2fs -q -t ext4 image 20m", { least: 20 * MiB, whole: undefined }],
    ["ext2 of 1 KiB blocks", "mke2fs -q -t ext2 -b 1024 image 9m", { least: 9 * MiB, whole: undefined }],
    ["FAT16", "truncate -s 20M image; mkfs.vfat -F 16 image", { least: 20 * MiB, whole: undefined }],
    ["FAT32", "truncate -s 40M image; mkfs.vfat -F 32 image", { least: 40 * MiB, whole: undefined }],
    ["NTFS", "truncate -s 20M image; mkfs.ntfs -q -F -f image", { least: 20 * MiB, whole: undefined }],
    ["exFAT", "truncate -s 20M image; mkfs.exfat image", { least: 20 * MiB, whole: undefined }],
    ["nothing known", "head -c 20M /dev/zero > image", undefined],
    ["noise", "head -c 200000 /dev/urandom > image", undefined],
  ];
  for (const [what, command, expected] of made) {
    const path = packingFolder(t, Buffer.alloc(0));
    if (!packs(t, path, command)) continue;
    const head = readFileSync(path("image")).subarray(0, claimsHead);
    t.deepEqual(diskClaims(head), expected, what);
  }
});

test("of what a gzip file tells of its size, that is taken which the disk agrees with", (t) => {
  const GiB = 2 ** 30;
  const told = (size: number, least = 1000, most = 100 * GiB) => ({ kind: "modulo", size, least, most }) as const;
  const whole = (size: number): Claims => ({ least: size, whole: size });
  const least = (size: number): Claims => ({ least: size, whole: undefined });
  t.is(likelySize(whole(3 * GiB), told(3 * GiB), "disk"), 3 * GiB);
  t.is(likelySize(whole(4 * GiB), told(0), "disk"), 4 * GiB);
  t.is(likelySize(whole(9 * GiB), told(1 * GiB), "disk"), 9 * GiB);
  t.is(likelySize(whole(9 * GiB), told(1 * GiB + 512), "disk"), undefined, "another last member");
  t.is(likelySize(least(9 * GiB), told(1 * GiB + 512), "files"), 9 * GiB + 512);
  t.is(likelySize(least(9 * GiB), told(1 * GiB - 512), "files"), 13 * GiB - 512);
  t.is(likelySize(least(9 * GiB), told(1 * GiB), "disk"), 9 * GiB);
  t.is(likelySize(whole(9 * GiB), told(1 * GiB), "proven"), undefined);
  t.is(likelySize(whole(9 * GiB), told(1 * GiB, 0, 8 * GiB), "disk"), undefined, "more than can be packed so small");
  t.is(likelySize(least(GiB), told(GiB, 3 * GiB), "disk"), undefined, "less than can be packed so large");
  t.is(likelySize(least(GiB), undefined, "files"), GiB);
  t.is(likelySize(whole(GiB), undefined, "disk"), undefined);
});
