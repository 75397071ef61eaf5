/** partclone's images: those that it makes and restores, and, of formats it no longer writes, those of a writer beside. */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, ftruncateSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import test, { type ExecutionContext } from "ava";
import { readFully } from "../../bytes/byte-source.js";
import { unpackZstd } from "../../bytes/zstd.js";
import { ImageError } from "../../errors.js";
import type { Damage, PieceReport } from "../../layers/layer.js";
import {
  isDisk,
  isRefused,
  numbers,
  opened,
  readSome,
  survivesDamage,
  testFolder,
  wholeDisk,
} from "../qemu-test-tools.js";
import { partclone } from "./index.js";
import { expectedDisk, partcloneImage, sealPartclone, type Written } from "./writer-test-tools.js";

/** Whether partclone is here and may run, which it does for root only; the reason is logged where not. */
function needsPartclone(t: ExecutionContext): boolean {
  const reason =
    spawnSync("partclone.restore", ["-v"]).status !== 0
      ? "partclone is not installed"
      : process.getuid?.() !== 0
        ? "partclone works for root only"
        : undefined;
  if (reason) t.pass(t.log(`skipped: ${reason}`) as undefined);
  return reason === undefined;
}

type Paths = (name: string) => string;

function run(path: Paths, command: string, ...words: string[]): void {
  // Between two looks at its progress it would sleep for seconds.
  execFileSync(command, [...words, "-q", "-f", "0", "-L", path("log")], { stdio: "pipe" });
}

/** What partclone restores the image to. */
function restored(path: Paths, image: string): Buffer {
  run(path, "partclone.restore", "-s", image, "-O", path("restored"), "-W");
  return readFileSync(path("restored"));
}

/** A filesystem with some files, some of which were deleted, so that its used blocks are scattered. */
function makeFileSystem(path: Paths, type: string): void {
  const next = numbers(9);
  const noise = Buffer.from(Array.from({ length: 300_000 }, () => next(256)));
  writeFileSync(path("noise"), noise);
  const image = path("fs");
  if (type === "ext4") {
    execFileSync("mke2fs", ["-q", "-F", "-t", "ext4", "-b", "1024", image, "6M"]);
    const commands = Array.from({ length: 9 }, (_, n) => `write ${path("noise")} file${n}`);
    writeFileSync(path("commands"), [...commands, "rm file1", "rm file4", "rm file7"].join("\n"));
    execFileSync("debugfs", ["-w", "-f", path("commands"), image], { stdio: "pipe" });
  } else if (type === "vfat") {
    execFileSync("mkfs.vfat", ["-C", image, "9000"], { stdio: "pipe" });
    for (let n = 0; n < 5; n++) execFileSync("mcopy", ["-i", image, path("noise"), `::file${n}`]);
    execFileSync("mdel", ["-i", image, "::file1", "::file3"]);
  } else {
    execFileSync("truncate", ["-s", "8388608", image]);
    execFileSync("mkfs.ntfs", ["-q", "-F", "-Q", image], { stdio: "pipe" });
    for (let n = 0; n < 4; n++) execFileSync("ntfscp", [image, path("noise"), `file${n}`], { stdio: "pipe" });
  }
}

/** What verifying finds, and how many bytes it checked. */
function verified(path: string): { damages: Damage[]; bytes: number; notes?: string[] } {
  return opened({ path }, ({ layers: [layer] }) => {
    const { pieces } = layer!.integrity!;
    const reports: PieceReport[] = [];
    for (let piece = 0; piece < pieces; piece += reports.at(-1)!.pieces ?? 1)
      reports.push(layer!.integrity!.check(piece));
    const notes = reports.flatMap((report) => report.notes ?? []);
    return {
      ...(notes.length > 0 && { notes }),
      damages: reports.flatMap((report) => report.damages),
      bytes: reports.reduce((sum, report) => sum + report.bytes, 0),
    };
  });
}

for (const [type, variants] of [
  ["ext4", [[], ["-a0"], ["-k", "1"], ["-k", "7"]]],
  ["vfat", [[], ["-k", "3"]]],
  ["ntfs", [[]]],
] as const)
  test(`an image that partclone.${type} makes is what partclone restores it to`, (t) => {
    if (!needsPartclone(t)) return;
    const path = testFolder(t);
    makeFileSystem(path, type);
    for (const options of variants) {
      run(path, `partclone.${type}`, "-c", "-s", path("fs"), "-O", path("image"), ...options);
      const expected = restored(path, path("image"));
      isDisk(t, { path: path("image") }, expected, 1024);
      opened({ path: path("image") }, ({ layers: [layer] }) => {
        const { blockSize, usedBlocks, filesystem } = layer!.facts as Record<string, number>;
        t.true(["EXTFS", "NTFS", "FAT12", "FAT16"].includes(`${filesystem}`));
        let stored = 0;
        for (let position = 0; position < layer!.size; ) {
          const run = layer!.locate(position);
          if (run.kind === "stored") stored += run.length;
          position += run.length;
        }
        t.is(stored, usedBlocks! * blockSize!);
        if (options[0] === "-a0") t.is(layer!.integrity, undefined);
        else t.deepEqual(verified(path("image")), { damages: [], bytes: stored });
      });
    }
  });

test("checksums that go on from one strip to the next, which partclone writes and cannot read, are verified", (t) => {
  if (!needsPartclone(t)) return;
  const path = testFolder(t);
  makeFileSystem(path, "ext4");
  run(path, "partclone.ext4", "-c", "-s", path("fs"), "-O", path("reseeded"));
  run(path, "partclone.ext4", "-c", "-s", path("fs"), "-O", path("image"), "-k", "5", "-K");
  isDisk(t, { path: path("image") }, restored(path, path("reseeded")), 1024);
  t.deepEqual(verified(path("image")).damages, []);
});

/** Blocks of which a third is used, in stretches of all lengths, and noise. */
function scattered(blocks: number, blockSize: number, rest: Partial<Written> = {}): Written {
  const next = numbers(blocks);
  const used: boolean[] = [];
  while (used.length < blocks) {
    const length = 1 + next(next(3) === 0 ? 40 : 5);
    used.push(...Array.from({ length }, () => true), ...Array.from({ length: 2 * length }, () => false));
  }
  used.length = blocks;
  const disk = rest.disk ?? Buffer.from(Array.from({ length: blocks * blockSize }, () => next(256)));
  return { version: 2, blockSize, used, ...rest, disk };
}

for (const [what, spec] of [
  ["format 1", scattered(2000, 512, { version: 1 })],
  ["format 1 with checksums of 8 bytes", scattered(1000, 512, { version: 1, wide: true })],
  ["format 2", scattered(2001, 512)],
  ["format 2, a strip a block", scattered(301, 2048, { perChecksum: 1 })],
  ["format 2, one strip", scattered(100, 4096, { perChecksum: 1000 })],
  ["format 2 without checksums", scattered(999, 512, { perChecksum: 0 })],
  ["format 2 with checksums that go on", scattered(999, 512, { perChecksum: 3, reseed: false })],
  ["format 2 with a bitmap of bytes", scattered(999, 512, { bitmap: "bytes" })],
  ["format 2 without a bitmap", { ...scattered(500, 512, { bitmap: "none" }), used: Array(500).fill(true) }],
  ["a partition that goes on behind its blocks", scattered(500, 512, { size: 300_000 })],
  ["a partition that ends within its last block", scattered(500, 512, { size: 255_700 })],
  ["blocks of an odd size", scattered(500, 700)],
  ["more blocks than a page of the bitmap has", scattered(140_000, 8, { perChecksum: 100 })],
  ["nothing used", { ...scattered(500, 512), used: Array(500).fill(false) }],
] as const)
  test(`${what}: every block where it was`, (t) => {
    const path = testFolder(t);
    writeFileSync(path("image"), partcloneImage(spec));
    isDisk(t, { path: path("image") }, expectedDisk(spec), spec.blockSize * 37);
    if (spec.perChecksum !== 0) t.deepEqual(verified(path("image")).damages, []);
  });

test("partclone reads the images of this test's writer as Spindle does", (t) => {
  if (!needsPartclone(t)) return;
  const path = testFolder(t);
  for (const spec of [scattered(2000, 512, { version: 1 }), scattered(2001, 512)]) {
    writeFileSync(path("image"), partcloneImage(spec));
    t.true(restored(path, path("image")).equals(wholeDisk({ path: path("image") })));
  }
});

test("damage is told with the stretch of the disk that it hits", (t) => {
  const path = testFolder(t);
  for (const rest of [{ version: 1 }, {}, { reseed: false }] as const) {
    const spec = scattered(1000, 512, rest);
    const image = partcloneImage(spec);
    const perStrip = rest.version === 1 ? 1 : 4;
    const blocks = spec.used.flatMap((used, block) => (used ? [block] : []));
    const start = image.indexOf(spec.disk.subarray(blocks[0]! * 512, blocks[0]! * 512 + 512));
    const placeOf = (nth: number) => start + nth * 512 + Math.floor(nth / perStrip) * 4;
    // Of format 1 a checksum sees the first byte of a block only.
    for (const nth of [0, 40, blocks.length - 1]) image[placeOf(nth)]! ^= 1;
    writeFileSync(path("image"), image);
    const { damages } = verified(path("image"));
    const expected = [0, 40, blocks.length - 1].map((nth) => {
      const first = Math.floor(nth / perStrip) * perStrip;
      const last = Math.min(first + perStrip, blocks.length) - 1;
      return [blocks[first]! * 512, (blocks[last]! + 1 - blocks[first]!) * 512];
    });
    t.deepEqual(
      damages.map(({ position, length }) => [position, length]),
      expected,
    );
    t.true(damages[0]!.message.includes(`${path("image")}: the strip of ${perStrip} blocks at byte ${start}`));
  }
});

test("a damaged header or bitmap is refused before anything is served, and a cut file where it ends", (t) => {
  const path = testFolder(t);
  const spec = scattered(1000, 512);
  const image = partcloneImage(spec);
  const refused = (code: Parameters<typeof isRefused>[1], bytes: Buffer, ...words: string[]) => {
    writeFileSync(path("a"), bytes);
    isRefused(t, code, { path: path("a") }, path("a"), ...words);
  };
  const changed = (from: Buffer, at: number, ...values: number[]) => {
    const bytes = Buffer.from(from);
    bytes.set(values, at);
    return bytes;
  };
  refused("corrupt", changed(image, 60, 1), "header is damaged");
  refused("corrupt", changed(image, 150, image[150]! ^ 4), "bitmap", "from byte 110");
  refused("unsupported", changed(image, 33, 0x33), "0003");
  refused("corrupt", image.subarray(0, 109), "header");
  refused("corrupt", image.subarray(0, 200), "bitmap", "truncated");
  refused("corrupt", image.subarray(0, image.length - 600), "truncated");
  const old = partcloneImage({ ...spec, version: 1 });
  refused("corrupt", changed(old, 4160 + 1000, 0x62), "BiTmAgIc", "5160");
  refused("corrupt", changed(old, 36, 0, 0), "blocks of 0 bytes");
  refused("corrupt", changed(old, 52, 1), "reach to byte");
  refused("unsupported", changed(old, 54, 1), "blocks");
  writeFileSync(path("a"), image.subarray(0, image.length - 600));
  const { damages } = verified(path("a"));
  t.true(damages.length > 0 && damages.every(({ message }) => message.includes("cut off")));
});

/** The header's checksum put right after a change. */
function signed(image: Buffer, at: number, ...values: number[]): Buffer {
  const bytes = Buffer.from(image);
  bytes.set(values, at);
  sealPartclone(bytes);
  return bytes;
}

test("what is unknown is refused by name", (t) => {
  const path = testFolder(t);
  const image = partcloneImage(scattered(100, 512));
  for (const [at, values, words] of [
    [34, [0xc0, 0xde], "byte order"],
    [88, [19], "features"],
    [92, [3], "features"],
    [96, [0x21], "unknown kind, 33"],
    [105, [2], "unknown way, 2"],
  ] as const) {
    writeFileSync(path("a"), signed(image, at, ...values));
    isRefused(t, "unsupported", { path: path("a") }, words);
  }
  writeFileSync(path("a"), signed(image, 98, 5));
  isRefused(t, "corrupt", { path: path("a") }, "of 5 bytes");
});

for (const sum of ["xxh64", "xxh128"] as const)
  test(`checksums of ${sum} are verified, strip by strip or going on from one to the next`, (t) => {
    const path = testFolder(t);
    for (const perChecksum of [1, 7, 1000])
      for (const reseed of [true, false]) {
        const spec = scattered(100, 512, { sum, perChecksum, reseed });
        const used = spec.used.filter(Boolean).length;
        const image = partcloneImage(spec);
        writeFileSync(path("a"), image);
        isDisk(t, { path: path("a") }, expectedDisk(spec), 512);
        t.deepEqual(verified(path("a")), { damages: [], bytes: used * 512 });
        const { facts } = opened({ path: path("a") }, ({ layers }) => layers[0]!);
        t.like(facts, { checksums: sum, checksumsCompared: reseed ? undefined : "by verify only" });
        // A byte of the last strip's checksum, one of its content, and one of the first strip's.
        const start = 110 + 13 + 4;
        for (const at of [image.length - 1, image.length - 100, start + 300]) {
          const bytes = Buffer.from(image);
          bytes[at]! ^= 0x10;
          writeFileSync(path("a"), bytes);
          const { damages } = verified(path("a"));
          t.is(damages.length, 1, `byte ${at}, ${perChecksum} a strip`);
          t.true(damages[0]!.message.includes(path("a")) && damages[0]!.message.includes("checksum"));
        }
        writeFileSync(path("a"), image.subarray(0, image.length - 5));
        t.true(verified(path("a")).damages.at(-1)?.message.includes("cut off"));
      }
  });

test("of sums that go on from strip to strip, one damage is told once, with what lies behind it and can't be checked", (t) => {
  const path = testFolder(t);
  const spec = scattered(1000, 512, { sum: "xxh64", perChecksum: 4, reseed: false });
  const image = partcloneImage(spec);
  const blocks = spec.used.flatMap((used, block) => (used ? [block] : []));
  const start = 110 + 125 + 4;
  const step = 4 * 512 + 8;
  const changed = (...places: number[]) => {
    const bytes = Buffer.from(image);
    for (const at of places) bytes[at]! ^= 1;
    writeFileSync(path("a"), bytes);
    return verified(path("a"));
  };
  const damaged = changed(start + 10 * step + 700);
  t.deepEqual(
    damaged.damages.map(({ position, length }) => [position, position + length]),
    [[blocks[40]! * 512, (blocks[43]! + 1) * 512]],
  );
  t.is(damaged.bytes, 40 * 512);
  const strips = Math.ceil(blocks.length / 4);
  t.is(damaged.notes!.length, 1);
  t.true(damaged.notes![0]!.includes(`the ${strips - 11} strips behind`), damaged.notes![0]);
  t.true(damaged.notes![0]!.includes(`from byte ${start + 11 * step} on`), damaged.notes![0]);
  // Of a checksum that is damaged itself the next one tells that the blocks aren't.
  const proven = changed(start + 11 * step - 1, start + 21 * step - 1, start + 22 * step - 1);
  t.is(proven.notes, undefined);
  t.is(proven.bytes, blocks.length * 512);
  t.deepEqual(
    proven.damages.map(({ position }) => position),
    [blocks[40]! * 512, blocks[80]! * 512],
  );
  t.true(proven.damages.every(({ message }) => message.includes("blocks are what they were")));
});

test("what a cut file lacks is one damage, to the end of the disk", (t) => {
  const path = testFolder(t);
  for (const rest of [{}, { reseed: false }, { sum: "xxh64", reseed: false }, { version: 1 }] as const) {
    const spec = scattered(4000, 512, rest);
    const image = partcloneImage(spec);
    const blocks = spec.used.flatMap((used, block) => (used ? [block] : []));
    writeFileSync(path("a"), image.subarray(0, image.length - 500_000));
    const { damages } = verified(path("a"));
    t.is(damages.length, 1);
    t.is(damages[0]!.position + damages[0]!.length, (blocks.at(-1)! + 1) * 512);
    t.true(damages[0]!.message.includes("is cut off"));
    // What is told to be there can be read.
    const before = Buffer.alloc(damages[0]!.position);
    opened({ path: path("a") }, ({ disk }) => readFully(disk, 0, before));
    t.true(before.equals(expectedDisk(spec).subarray(0, before.length)));
  }
});

/** The image with a byte changed in the used block of that rank. */
function damagedAt(spec: Written, rank: number): Buffer {
  const image = Buffer.from(partcloneImage(spec));
  const block = spec.used.flatMap((used, number) => (used ? [number] : []))[rank]!;
  image[image.indexOf(spec.disk.subarray(block * spec.blockSize, (block + 1) * spec.blockSize))]! ^= 1;
  return image;
}

test("a damaged strip is refused when it is read, and nothing else is", (t) => {
  const path = testFolder(t);
  for (const rest of [{ version: 1 }, {}, { reseed: false }, { sum: "xxh64" }, { sum: "xxh128" }] as const) {
    const spec = scattered(1000, 512, rest);
    const perStrip = rest.version === 1 ? 1 : 4;
    const expected = expectedDisk(spec);
    writeFileSync(path("a"), damagedAt(spec, 42));
    const lost = new Set(
      spec.used
        .flatMap((used, block) => (used ? [block] : []))
        .slice(42 - (42 % perStrip), 42 - (42 % perStrip) + perStrip),
    );
    opened({ path: path("a") }, ({ disk }) => {
      const bytes = Buffer.alloc(512);
      // Twice, and the second time backwards: what was found out is still known then.
      for (const block of [...spec.used.keys(), ...[...spec.used.keys()].reverse()]) {
        const read = () => readFully(disk, block * 512, bytes);
        if (lost.has(block))
          t.throws(read, { instanceOf: ImageError, code: "corrupt", message: /strip of . blocks at byte/ });
        else {
          read();
          t.true(bytes.equals(expected.subarray(block * 512, block * 512 + 512)));
        }
      }
    });
  }
});

test("large strips, which would take long, are checked when the disk is copied", (t) => {
  const path = testFolder(t);
  for (const perChecksum of [20, 260]) {
    const disk = Buffer.concat(Array.from({ length: 900 }, (_, n) => Buffer.alloc(65536, `${n}`)));
    const spec = scattered(900, 65536, { perChecksum, disk });
    const expected = expectedDisk(spec);
    const all = Buffer.alloc(expected.length);
    writeFileSync(path("a"), partcloneImage(spec));
    opened({ path: path("a"), copied: true }, ({ disk }) => readFully(disk, 0, all));
    t.true(all.equals(expected));
    writeFileSync(path("a"), damagedAt(spec, 70));
    opened({ path: path("a"), copied: true }, ({ disk }) =>
      t.throws(() => readFully(disk, 0, all), {
        instanceOf: ImageError,
        code: "corrupt",
        message: /recorded checksum/,
      }),
    );
    opened({ path: path("a") }, ({ disk }) => t.is(readFully(disk, 0, all), all.length));
  }
});

/**
 * What partclone itself (its sources of July 2026 with xxHash) makes of a fresh MINIX filesystem of 300 KiB with -k 3, and -a2 or
 * -a3; with the sha256 of what it restores that to.
 */
const byPartclone = {
  xxh64:
    "KLUv/WSwIx0GAELKJCtgd9YMnCSF89ACSrYBGA0+i2stBNKfNJrgnTQ0iYG4k5dBK0j2QWIgQmQKB1Plcqzsw9qrvX5KqQqCQ70+bkxAtPjFb8zSO7EWA4WnLL3ZukoYCb7C/3e9VvDQElqidb0ZKCZSrX/3912c+wfvPeD/K/i/d3oyRkYICxbee/8f9ZSoZdh7eSE1pqLccDIW9CQ7AQ8gwHbfYtkrwnvmq8AB/+zeVkF/DVhV7FSCg9azwupY9RWoLP/Vi2QeCRQHPZbt1Xg=",
  xxh128:
    "KLUv/WTIIz0HAMLLLS9Qdw6od2OZo7z83kjN9Seo3f1EtjLsuZgOAg7sutvxxcYI5Vcqvqqs4kWZtWTLFKR55uF2FJr1obeTRYU4/81/y46S7KViya1NJFkhFUMpfiaQSvx/+t8A6n5sXSh8+rE0QQjDWiMyrofjHqzMsvD/X/7+vc83fSR4qP2uLbRe3/v/xzdf8emL/y/4J/8B////+/z/fzL2E3VVH7Pcovf+//8fg96YM3j/F+NuYMTL6Wgu8cf1BA8gwHbfYtkrwnv2q4D/V+veVkB/EVhV7FQCJ6xn1aoT1VegCvxXL5J5JFAc9G0a7tU=",
  restored: "10c44be0472cb0a5d73fa88272214ccce23a61764f5f9818e1d3c4f80d35118c",
};

for (const kind of ["xxh64", "xxh128"] as const)
  test(`an image that partclone made with ${kind} is what it restores, and every strip is proven`, (t) => {
    const path = testFolder(t);
    const target = Buffer.alloc(1 << 20);
    const packed = Buffer.from(byPartclone[kind], "base64");
    const image = target.subarray(0, unpackZstd(packed, target));
    writeFileSync(path("a"), image);
    t.is(
      createHash("sha256")
        .update(wholeDisk({ path: path("a") }))
        .digest("hex"),
      byPartclone.restored,
    );
    const sound = verified(path("a"));
    t.deepEqual(sound.damages, []);
    const { facts } = opened({ path: path("a") }, ({ layers }) => layers[0]!);
    t.like(facts, { checksums: kind, blocksPerChecksum: 3, usedBlocks: sound.bytes / 1024 });
    const size = kind === "xxh64" ? 8 : 16;
    for (let at = image.length - size; at > 110 + 300 / 8 + 4; at -= 3 * 1024 + size) {
      const bytes = Buffer.from(image);
      bytes[at]! ^= 1;
      writeFileSync(path("a"), bytes);
      t.is(verified(path("a")).damages.length, 1, `byte ${at}`);
    }
  });

test("the last blocks of a large filesystem are found through a bitmap that is mostly a hole", (t) => {
  const path = testFolder(t);
  const blocks = 2 ** 31;
  const spec: Written = { version: 1, blockSize: 4096, used: [true, true], disk: Buffer.alloc(8192, 9) };
  const small = partcloneImage(spec);
  const file = openSync(path("image"), "w+");
  const head = Buffer.from(small.subarray(0, 4160));
  head.writeBigUInt64LE(BigInt(blocks), 48);
  writeSync(file, head);
  writeSync(file, Buffer.from([1, 2, 1]), 0, 3, 4160 + blocks - 3);
  writeSync(file, small, 4162, small.length - 4162, 4160 + blocks);
  closeSync(file);
  opened({ path: path("image") }, ({ disk, layers }) => {
    t.is(disk.size, blocks * 4096);
    const target = Buffer.alloc(3 * 4096);
    t.is(readFully(disk, disk.size - target.length, target), target.length);
    t.true(target.subarray(0, 4096).equals(Buffer.alloc(4096, 9)));
    t.true(target.subarray(4096, 8192).equals(Buffer.alloc(4096)));
    t.is(layers[0]!.integrity!.pieces, 1);
  });
  const cut = openSync(path("image"), "r+");
  ftruncateSync(cut, 4160 + blocks);
  closeSync(cut);
  isRefused(t, "corrupt", { path: path("image") }, "truncated");
});

test("changed bytes and cut files give refusals or other bytes, nothing else", (t) => {
  for (const rest of [{ version: 1 }, {}, { bitmap: "bytes" }] as const) {
    const image = partcloneImage(scattered(200, 512, rest));
    survivesDamage(t, image, (bytes) => {
      const repaired = rest.version === 1 || bytes.length < 110 ? bytes : signed(bytes, 0);
      readSome(partclone, repaired);
    });
  }
});
