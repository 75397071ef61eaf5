import {
  closeSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { FileSource } from "../../bytes/file.js";
import { LocalChunkCache } from "../../bytes/local-cache.js";
import { MemorySource } from "../../bytes/memory.js";
import { SharedChunkCache } from "../../bytes/shared-cache.js";
import { createSharedCacheMemory } from "../../bytes/shared-cache-memory.js";
import { ImageError } from "../../errors.js";
import type { FileSystem } from "../filesystem.js";
import { contentsOf, hasTools, noise, run, scratchFolder } from "../image-test-tools.js";
import {
  compareManifest,
  openRecognised,
  openSharedImage,
  readManifest,
  sharedImages,
  testSurroundings,
  type Walk,
  walk,
} from "../shared-test-images.js";
import { DataBlocks } from "./data.js";
import { squashfs } from "./squashfs.js";

const packages = "squashfs-tools attr";
const KiB = 1024;

/** Words and noise: what packs well, what doesn't, and machine code for the xz filters. */
function tree(folder: string): string {
  const top = join(folder, "tree");
  mkdirSync(join(top, "a/b/c"), { recursive: true });
  mkdirSync(join(top, "empty"));
  const words = Buffer.from(Array.from({ length: 60_000 }, (_, index) => `word ${(index * 7919) % 997} `).join(""));
  writeFileSync(join(top, "words"), words);
  writeFileSync(join(top, "noise"), noise(300_001));
  writeFileSync(join(top, "zeros"), Buffer.alloc(200_000));
  writeFileSync(join(top, "code"), machineCode(700_000));
  writeFileSync(join(top, "nothing"), "");
  writeFileSync(join(top, "exact"), words.subarray(0, 128 * KiB));
  writeFileSync(join(top, "holes"), Buffer.concat([noise(1000), Buffer.alloc(400_000), noise(5000, 2)]));
  for (let index = 0; index < 300; index++)
    writeFileSync(join(top, "a", `file ${index}`), words.subarray(index, index * 17));
  writeFileSync(join(top, "a/b/c/ünï 🎈"), "x");
  writeFileSync(join(top, "a", "n".repeat(255)), "long");
  linkSync(join(top, "words"), join(top, "a/b/linked"));
  symlinkSync("../words", join(top, "a/link"));
  symlinkSync("/absolute/".padEnd(3000, "x"), join(top, "a/long link"));
  utimesSync(join(top, "noise"), 1, 1);
  utimesSync(join(top, "words"), 4_000_000_000, 4_000_000_000);
  return top;
}

function machineCode(size: number): Buffer {
  const bytes = Buffer.alloc(size);
  const fd = openSync(process.execPath, "r");
  readSync(fd, bytes, 0, size, 30_000_000);
  closeSync(fd);
  return bytes;
}

function pack(t: ExecutionContext, top: string, ...options: string[]): string {
  const path = join(scratchFolder(t), "image.squashfs");
  run("mksquashfs", [top, path, "-noappend", "-quiet", "-no-progress", ...options]);
  return path;
}

function open(t: ExecutionContext, path: string): FileSystem {
  const source = FileSource.open(path);
  t.teardown(() => source.close());
  return openRecognised(t, squashfs, source);
}

const find = (fileSystem: FileSystem, path: string) =>
  path
    .split("/")
    .filter((part) => part !== "")
    .reduce((directory, name) => fileSystem.lookup(directory, Buffer.from(name))!, fileSystem.root);

/** In the words of contentsOf, which knows no devices. */
const contents = ({ files }: Walk) =>
  new Map(
    [...files]
      .filter(([, { attributes }]) => ["file", "directory", "symlink"].includes(attributes.kind))
      .map(([path, { attributes, hash, link }]): [string, string] => [
        path,
        link !== undefined ? `-> ${link}` : hash === undefined ? "directory" : `${attributes.size} ${hash}`,
      ])
      .sort(),
  );

const types = { file: "-", directory: "d", symlink: "l", character: "c", block: "b", fifo: "p", socket: "s" };

/** As `unsquashfs -lln -UTC` writes them, without the path of the root. */
function lines({ files }: Walk): string[] {
  return [...files]
    .map(([path, { attributes, link }]) => {
      const { kind, mode, owner, group, size, device, modified } = attributes;
      const letters = ["r", "w", "x"].map((letter, bit) => [letter, 4 >> bit] as const);
      let text = types[kind];
      for (const shift of [6, 3, 0])
        for (const [letter, bit] of letters) {
          const special = bit === 1 && mode & (0o1000 << (shift / 3));
          const plain = (mode >> shift) & bit ? letter : "-";
          const marked = shift === 0 ? "t" : "s";
          text += special ? (plain === "x" ? marked : marked.toUpperCase()) : plain;
        }
      const amount = device ? `${device.major},${device.minor}` : String(kind === "symlink" ? link!.length : size);
      const date = new Date(modified.seconds * 1000).toISOString().slice(0, 16).replace("T", " ");
      return `${text} ${owner}/${group} ${amount} ${date} ${path}${link === undefined ? "" : ` -> ${link}`}`;
    })
    .sort();
}

const theirLines = (path: string) =>
  run("unsquashfs", ["-lln", "-UTC", path])
    .trimEnd()
    .split("\n")
    .map((line) => line.replace(/^(\S+) (\S+) +(\d+,)? *(\S+ \S+ \S+) squashfs-root/, "$1 $2 $3$4 "))
    .filter((line) => !/^\S+ \S+ \S+ \S+ \S+ $/.test(line))
    .sort();

const variants: readonly string[][] = [
  [],
  ["-comp", "gzip", "-b", "4K"],
  ["-comp", "gzip", "-b", "1M", "-no-fragments"],
  ["-comp", "xz"],
  ["-comp", "xz", "-Xbcj", "x86,arm,powerpc", "-Xdict-size", "50%"],
  ["-comp", "lzo"],
  ["-comp", "lzo", "-Xalgorithm", "lzo1x_1", "-b", "16K"],
  ["-comp", "lz4", "-b", "1M"],
  ["-comp", "lz4", "-Xhc", "-always-use-fragments"],
  ["-comp", "zstd"],
  ["-comp", "zstd", "-Xcompression-level", "22", "-b", "256K", "-no-exports"],
  ["-noI", "-noD", "-noF", "-noX"],
  ["-no-sparse", "-no-duplicates", "-tailends"],
];

for (const options of variants) {
  test(`what mksquashfs ${options.join(" ")} packed reads as it was, and as unsquashfs lists it`, (t) => {
    if (!hasTools(t, packages, "mksquashfs", "unsquashfs")) return;
    const top = tree(scratchFolder(t));
    const pseudo = ["null c 666 0 0 1 3", "disk b 4640 1 6 260 7", "pipe i 1600 2 3 f", "plug i 2755 65534 100000 s"];
    const path = pack(t, top, ...options, ...pseudo.flatMap((definition) => ["-p", definition]));
    const fileSystem = open(t, path);
    const walked = walk(fileSystem);
    t.deepEqual([...walked.errors], []);
    const expected = new Map([...contentsOf(top)].sort());
    t.deepEqual(contents(walked), expected);
    t.deepEqual(lines(walked), theirLines(path));
    t.is(walked.files.get("/a/b/linked")!.id, walked.files.get("/words")!.id);
    t.is(walked.files.get("/words")!.attributes.links, 2);
    t.is(walked.files.get("/words")!.attributes.modified.seconds, 4_000_000_000);
    const told = run("unsquashfs", ["-s", path]);
    t.is(fileSystem.facts!.compressor, /Compression (\S+)/.exec(told)?.[1]);
    t.is(fileSystem.facts!.blockSize, Number(/Block size (\d+)/.exec(told)?.[1]));
    t.is(fileSystem.statistics.files, Number(/Number of inodes (\d+)/.exec(told)?.[1]));
  });
}

test("every read, wherever it begins and ends, gives the file's bytes, however small the cache is", (t) => {
  if (!hasTools(t, packages, "mksquashfs")) return;
  const top = tree(scratchFolder(t));
  const image = readFileSync(pack(t, top, "-b", "8K"));
  for (const cacheBytes of [0, 8192, 1 << 20]) {
    const fileSystem = squashfs.open(new MemorySource("image", image, 5000), testSurroundings("image", cacheBytes));
    for (const name of ["words", "noise", "holes", "zeros", "a/file 299"]) {
      const file = find(fileSystem, name);
      const whole = readFileSync(join(top, name));
      fc.assert(
        fc.property(fc.nat(whole.length + 10), fc.integer({ min: 1, max: 40_000 }), (position, length) => {
          const target = Buffer.alloc(length, 0xaa);
          let filled = 0;
          for (let count = 1; count > 0 && filled < length; filled += count)
            count = fileSystem.read(file, position + filled, target.subarray(filled));
          t.true(target.subarray(0, filled).equals(whole.subarray(position, position + length)));
        }),
        { numRuns: 60 },
      );
    }
  }
});

test("threads that share a cache share the blocks in it: the second reads without unpacking", (t) => {
  if (!hasTools(t, packages, "mksquashfs")) return;
  const top = tree(scratchFolder(t));
  const source = new MemorySource("image", readFileSync(pack(t, top, "-b", "16K")));
  const memory = createSharedCacheMemory({ bytes: 8 << 20, chunkSize: 16 << 10, workers: 2 });
  const [first, second] = [0, 1].map((worker) =>
    squashfs.open(source, { ...testSurroundings(), cache: new SharedChunkCache(memory, worker) }),
  );
  const walked = walk(first!);
  t.deepEqual([...walked.errors], []);
  const { unpacked } = SharedChunkCache.counters(memory);
  t.true(unpacked > 50);
  t.deepEqual(contents(walk(second!)), contents(walked));
  t.deepEqual(contents(walked), new Map([...contentsOf(top)].sort()));
  t.is(SharedChunkCache.counters(memory).unpacked, unpacked);
});

test("blocks are told apart in every window of the space that they have in the cache", (t) => {
  const bytes = noise(10_000);
  const unpack = (packed: Uint8Array, target: Uint8Array) => {
    target.set(packed);
    return packed.length;
  };
  // A window of four packed bytes, in place of gigabytes.
  const cache = new LocalChunkCache(1 << 20);
  const data = new DataBlocks(new MemorySource("image", bytes), unpack, 4096, bytes.length, cache, 4 * 4096);
  for (let round = 0; round < 2; round++)
    for (let position = 96; position < 140; position++) {
      const target = Buffer.alloc(500);
      t.is(data.read(position, 700, 700, 100, target), 500);
      t.deepEqual(target, bytes.subarray(position + 100, position + 600));
    }
  t.throws(() => data.read(9500, 700, 700, 0, Buffer.alloc(1)), { message: /byte 9500 goes beyond .* byte 10000/ });
  t.throws(() => data.read(96, 5000, 700, 0, Buffer.alloc(1)), {
    message: /takes 5000 bytes, more than a block's 4096/,
  });
  t.throws(() => data.read(200, 600, 700, 0, Buffer.alloc(1)), { message: /unpacks to 600 bytes, and 700 are needed/ });
});

test("blocks of zeros are holes, and a file of 150,000 blocks is read at any place", (t) => {
  if (!hasTools(t, packages, "mksquashfs")) return;
  const folder = scratchFolder(t);
  mkdirSync(join(folder, "tree"));
  const size = 150_000 * 4096 + 100;
  const fd = openSync(join(folder, "tree/sparse"), "w");
  ftruncateSync(fd, size);
  const written = [0, 1023, 1024, 77_777, 149_999].map((block) => {
    const bytes = noise(4096, block + 1);
    writeSync(fd, bytes, 0, 4096, block * 4096);
    return [block, bytes] as const;
  });
  closeSync(fd);
  const path = pack(t, join(folder, "tree"), "-b", "4K");
  const fileSystem = open(t, path);
  const file = find(fileSystem, "sparse");
  const block = Buffer.alloc(4096);
  for (const [index, bytes] of [...written, ...written].reverse()) {
    t.is(fileSystem.read(file, index * 4096, block), 4096);
    t.deepEqual(block, bytes);
    t.false(fileSystem.extentAt!(file, index * 4096 + 1).hole);
  }
  t.deepEqual(fileSystem.extentAt!(file, 0), { hole: false, length: 4096 });
  t.deepEqual(fileSystem.extentAt!(file, 5000), { hole: true, length: 1023 * 4096 - 5000 });
  t.deepEqual(fileSystem.extentAt!(file, 1023 * 4096), { hole: false, length: 2 * 4096 });
  t.is(fileSystem.read(file, 100_000 * 4096 + 5, block), 4096 - 5);
  t.true(block.subarray(0, 4091).every((byte) => byte === 0));
  // Every hole counts, but for the last hundred bytes, which are a fragment or a short block.
  t.true(fileSystem.attributes(file).allocated <= written.length * 4096 + 512);
  let position = 0;
  let data = 0;
  while (position < size) {
    const { hole, length } = fileSystem.extentAt!(file, position);
    if (!hole) data += length;
    position += length;
  }
  t.is(position, size);
  t.true(data <= written.length * 4096 + 100);
});

test("a directory of 50,000 entries is listed and searched in one pass", (t) => {
  if (!hasTools(t, packages, "mksquashfs")) return;
  const folder = scratchFolder(t);
  mkdirSync(join(folder, "tree/many"), { recursive: true });
  const names = Array.from({ length: 50_000 }, (_, index) => `a name with number ${index}`);
  for (const name of names) closeSync(openSync(join(folder, "tree/many", name), "w"));
  const fileSystem = open(t, pack(t, join(folder, "tree")));
  const many = find(fileSystem, "many");
  const listed = [...fileSystem.list(many)].map(({ name }) => Buffer.from(name).toString());
  t.deepEqual(listed, [...names].sort());
  const walked = walk(fileSystem);
  t.is(walked.files.size, 50_001);
  t.deepEqual([...walked.errors], []);
});

test("extended attributes, also those that many files share", (t) => {
  if (!hasTools(t, packages, "mksquashfs", "setfattr", "unsquashfs")) return;
  const folder = scratchFolder(t);
  const top = join(folder, "tree");
  mkdirSync(top);
  const long = noise(3000);
  for (let index = 0; index < 20; index++) {
    writeFileSync(join(top, `file ${index}`), "");
    try {
      run("setfattr", ["-n", "user.note", "-v", `note ${index % 3}`, join(top, `file ${index}`)]);
      run("setfattr", ["-n", "user.long", "-v", `0x${long.toString("hex")}`, join(top, `file ${index}`)]);
    } catch {
      t.log("skipped: the folder for temporary files keeps no user xattrs");
      t.pass();
      return;
    }
  }
  const fileSystem = open(t, pack(t, top));
  for (let index = 0; index < 20; index++) {
    const found = fileSystem.extendedAttributes!(find(fileSystem, `file ${index}`));
    t.deepEqual([...found].map(([name, value]) => [name, Buffer.from(value)]).sort(), [
      ["user.long", long],
      ["user.note", Buffer.from(`note ${index % 3}`)],
    ]);
  }
  t.is(fileSystem.extendedAttributes!(fileSystem.root).size, 0);
  const without = open(t, pack(t, top, "-no-xattrs"));
  t.is(without.extendedAttributes!(find(without, "file 1")).size, 0);
});

test("the shared images are as other readers list them", (t) => {
  for (const image of sharedImages(t, ({ fs, container }) => /^squashfs(?!3)/.test(fs) && container === "raw")) {
    const fileSystem = openRecognised(t, squashfs, openSharedImage(t, image));
    const walked = walk(fileSystem);
    for (const { reader, path } of image.manifests)
      t.deepEqual(compareManifest(walked, readManifest(path), { reader }), [], `${image.file} ${reader}`);
  }
});

test("versions before 4 and the lzma format are refused in words", (t) => {
  for (const image of sharedImages(t, ({ file }) => file.includes("squashfs3"))) {
    const source = openSharedImage(t, image);
    t.true(squashfs.recognises(source));
    t.throws(() => squashfs.open(source, testSurroundings()), {
      instanceOf: ImageError,
      code: "unsupported",
      message: /SquashFS 3\.\d.*only version 4/,
    });
  }
  if (!hasTools(t, packages, "mksquashfs")) return;
  const folder = scratchFolder(t);
  mkdirSync(join(folder, "tree"));
  const bytes = readFileSync(pack(t, join(folder, "tree")));
  bytes.writeUInt16LE(2, 20);
  t.throws(() => squashfs.open(new MemorySource("image", bytes), testSurroundings()), {
    code: "unsupported",
    message: /lzma format.*gzip, lzo, xz, lz4, zstd/,
  } as object);
  bytes.writeUInt16LE(9, 20);
  t.throws(() => squashfs.open(new MemorySource("image", bytes), testSurroundings()), {
    message: /compressor 9, which is unknown/,
  });
});

test("a damaged block is an error of its file only, and names its byte", (t) => {
  if (!hasTools(t, packages, "mksquashfs")) return;
  const folder = scratchFolder(t);
  mkdirSync(join(folder, "tree"));
  for (const name of ["a", "b", "c"])
    writeFileSync(join(folder, "tree", name), Buffer.from(`${name} ${"word ".repeat(9999)}`.slice(0, 40_000)));
  const image = readFileSync(pack(t, join(folder, "tree"), "-b", "4K", "-no-fragments", "-no-duplicates"));
  // The first block lies right behind the superblock: it is a's.
  image[96 + 20]! ^= 0xff;
  const walked = walk(squashfs.open(new MemorySource("image", image), testSurroundings()));
  t.deepEqual([...walked.errors.keys()], ["/a"]);
  t.regex(walked.errors.get("/a")!, /^image: a SquashFS data block at byte 96 is damaged: the zlib data/);
  const fileSystem = squashfs.open(new MemorySource("image", image), testSurroundings());
  t.is(fileSystem.read(find(fileSystem, "a"), 4096, Buffer.alloc(4096)), 4096);
});

test("a truncated image is said to be one, and its errors name bytes", (t) => {
  if (!hasTools(t, packages, "mksquashfs")) return;
  const whole = readFileSync(pack(t, tree(scratchFolder(t))));
  for (const size of [0, 3, 95, 96, 5000, whole.length - 5000, whole.length - 4096 - 20]) {
    const source = new MemorySource("cut", whole.subarray(0, size));
    t.is(squashfs.recognises(source), size >= 4);
    try {
      const fileSystem = squashfs.open(source, testSurroundings());
      t.regex(fileSystem.warnings!.join(), /truncated/);
      walk(fileSystem);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      t.regex(error.message, /byte/);
    }
  }
});
