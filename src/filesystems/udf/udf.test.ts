import { execFileSync, type StdioOptions } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { FileSource } from "../../bytes/file.js";
import { MemorySource } from "../../bytes/memory.js";
import { ImageError } from "../../errors.js";
import type { FileSystem } from "../filesystem.js";
import { contentsOf, hasTools, noise, run, scratchFolder, sparseFile } from "../image-test-tools.js";
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
import { crc16 } from "./tag.js";
import { udf } from "./udf.js";
import {
  components,
  type Item,
  type Kind,
  sealTag,
  stampNanoseconds,
  stampSeconds,
  UdfWriter,
} from "./udf-test-tools.js";

const MiB = 1024 * 1024;

const openBytes = (bytes: Uint8Array, most?: number): FileSystem =>
  udf.open(new MemorySource("volume", bytes, most), testSurroundings());

function open(t: ExecutionContext, path: string): FileSystem {
  const source = FileSource.open(path);
  t.teardown(() => source.close());
  return openRecognised(t, udf, source);
}

function noErrors(t: ExecutionContext, walked: Walk): Walk {
  t.deepEqual([...walked.errors], []);
  return walked;
}

const contents = ({ files }: Walk) =>
  new Map(
    [...files]
      .map(([path, { attributes, hash }]): [string, string] => [
        path,
        attributes.kind === "directory" ? "directory" : `${attributes.size} ${hash}`,
      ])
      .sort(),
  );

test("the CRC is that of the example in ECMA-167, 1/7.2.6", (t) => {
  t.is(crc16(Uint8Array.of(0x70, 0x6a, 0x77), 0, 3), 0x3299);
});

test("a volume made by genisoimage reads as it was filled, and as 7-Zip lists it", (t) => {
  if (!hasTools(t, "genisoimage 7zip", "genisoimage", "7zz")) return;
  const folder = scratchFolder(t);
  const top = join(folder, "tree");
  mkdirSync(join(top, "a folder/目录 ж/deep/er"), { recursive: true });
  writeFileSync(join(top, "large"), noise(3 * MiB + 17, 5));
  writeFileSync(join(top, "empty"), "");
  writeFileSync(join(top, "äöü ß.text"), noise(2048, 6));
  writeFileSync(join(top, "a folder/目录 ж/файл"), noise(4097, 7));
  for (let index = 0; index < 300; index++)
    writeFileSync(join(top, "a folder", `number ${index}`), noise(index, index));
  chmodSync(join(top, "empty"), 0o751);
  const path = join(folder, "g.iso");
  run("genisoimage", ["-quiet", "-udf", "-R", "-input-charset", "utf-8", "-V", "A Label", "-o", path, top]);
  const fileSystem = open(t, path);
  const walked = noErrors(t, walk(fileSystem));
  t.deepEqual(contents(walked), new Map([...contentsOf(top)].sort()));
  t.is(fileSystem.label, "A Label");
  t.is(fileSystem.facts!.revision, "1.02");
  const listed = run("7zz", ["l", "-tudf", "-slt", "-ba", path])
    .split("\n\n")
    .map((block) => Object.fromEntries(block.split("\n").map((line) => line.split(/ = (.*)/s).slice(0, 2))))
    .filter(({ Path }) => Path !== undefined);
  t.is(listed.length, walked.files.size);
  for (const { Path, Modified } of listed) {
    const found = walked.files.get(`/${Path}`);
    t.is(
      found?.attributes.modified.seconds,
      Math.floor(Date.parse(`${Modified.replace(" ", "T").slice(0, 19)}Z`) / 1000),
    );
  }
  t.is(new Set([...walked.files.values()].map(({ attributes }) => attributes.inode)).size, walked.files.size);
});

const layouts: readonly (readonly [string, string, ...string[]])[] = [
  ["1.02", "physical", "--media-type=hd", "-b", "1024", "--udfrev=1.02"],
  ["2.01", "physical", "--media-type=hd", "-b", "512"],
  ["2.01", "physical", "--media-type=hd", "-b", "4096", "--ad=short", "--noefe"],
  ["2.01", "physical", "--media-type=hd", "-b", "8192", "--ad=long"],
  ["2.01", "physical", "--media-type=hd", "-b", "32768"],
  ["2.01", "physical", "--media-type=hd", "--strategy=4096"],
  ["2.01", "physical", "--media-type=dvdram"],
  ["2.01", "sparable", "--media-type=cdrw"],
  ["2.01", "sparable", "--media-type=dvdrw"],
  ["1.50", "physical,virtual", "--media-type=cdr", "--udfrev=1.50"],
  ["2.01", "physical,virtual", "--media-type=cdr"],
  ["2.01", "physical,virtual", "--media-type=dvdr"],
  ["2.60", "physical,virtual", "--media-type=bdr", "--udfrev=2.60"],
];

for (const [revision, partitions, ...options] of layouts) {
  test(`an empty volume by mkudffs ${options.join(" ")} opens, and tells its label and UUID`, (t) => {
    if (!hasTools(t, "udftools", "mkudffs", "udfinfo")) return;
    const path = sparseFile(scratchFolder(t), "udf.img", 48 * MiB);
    run("mkudffs", [...options, "--label=Größe ж", "--uuid=0011223344556677", path]);
    const fileSystem = open(t, path);
    t.is(fileSystem.label, "Größe ж");
    t.is(fileSystem.facts!.uuid, "0011223344556677");
    t.is(fileSystem.facts!.revision, revision);
    t.deepEqual(fileSystem.facts!.partitions, partitions.split(","));
    t.deepEqual(fileSystem.warnings, []);
    t.is(noErrors(t, walk(fileSystem)).files.size, 0);
    t.is(fileSystem.attributes(fileSystem.root).mode, 0o755);
    const blockSize = /blocksize=(\d+)/.exec(run("udfinfo", [path]))?.[1];
    t.is(fileSystem.statistics.blockSize, Number(blockSize));
  });
}

/** Names, pieces and kinds of all sorts; `pieces` in blocks of `blockSize`. */
function oddTree(blockSize: number, extended: boolean): { root: Item; files: Map<string, Buffer> } {
  const piece = (blocks: number, seed: number) => noise(blocks * blockSize, seed);
  const zeros = (blocks: number) => Buffer.alloc(blocks * blockSize);
  const parts = [piece(1, 1), piece(3, 2), piece(2, 3), piece(1, 4), piece(1, 5), noise(blockSize / 2 + 3, 6)];
  const many = Object.fromEntries(
    Array.from({ length: 25 }, (_, index): [string, Item] => [
      `${"long name ".repeat(8)}${index}`,
      { type: "file", pieces: [Buffer.from(`number ${index}`)], form: "inline" },
    ]),
  );
  const root: Item = {
    type: "directory",
    links: 3,
    children: {
      inline: { type: "file", pieces: [Buffer.from("in the ICB")], form: "inline" },
      "in pieces": { type: "file", pieces: parts, form: "long", also: "a second name", links: 2 },
      chained: { type: "file", pieces: parts, form: "long", chained: 2 },
      holes: {
        type: "file",
        pieces: [
          { hole: 2 * blockSize },
          parts[0]!,
          { hole: blockSize, allocated: true },
          { hole: 4 * blockSize },
          parts[5]!,
        ],
        form: "long",
      },
      empty: { type: "file", pieces: [], form: "long", permissions: 0x7fff, flags: 0xc0 },
      "目录 😀": { type: "directory", children: many, permissions: 0x1ce0, flags: 0x100 },
      rewritten: { type: "file", pieces: [Buffer.from("the new content")], form: "inline", rewritten: true },
      relative: { type: "symlink", pieces: [components("../目录/./файл")], form: "inline" },
      absolute: { type: "symlink", pieces: [components("/a/b c")], form: "inline" },
      root: { type: "symlink", pieces: [components("/")], form: "inline" },
      "hidden, and listed": { type: "file", pieces: [], characteristics: 1 },
      deleted: { type: "file", pieces: [], characteristics: 4 },
      "a/slash": { type: "file", pieces: [] },
      "..": { type: "file", pieces: [] },
      "a NUL\0": { type: "file", pieces: [] },
      fifo: { type: "fifo" },
      socket: { type: "socket" },
      character: { type: "character", device: [259, 70_000] },
      block: { type: "block", device: [8, 1] },
      ...(extended
        ? {
            streams: {
              type: "file",
              pieces: [parts[0]!],
              form: "long",
              streams: { "Zone.Identifier": Buffer.from("3"), ж: parts[1]! },
            },
          }
        : {}),
    } satisfies Record<string, Item>,
  };
  const files = new Map<string, Buffer>([
    ["/inline", Buffer.from("in the ICB")],
    ["/in pieces", Buffer.concat(parts)],
    ["/a second name", Buffer.concat(parts)],
    ["/chained", Buffer.concat(parts)],
    ["/holes", Buffer.concat([zeros(2), parts[0]!, zeros(5), parts[5]!])],
    ["/empty", Buffer.alloc(0)],
    ["/rewritten", Buffer.from("the new content")],
    ["/hidden, and listed", Buffer.alloc(0)],
    ...Object.entries(many).map(([name, { pieces }]): [string, Buffer] => [`/目录 😀/${name}`, pieces![0] as Buffer]),
    ...(extended ? ([["/streams", parts[0]!]] as const) : []),
  ]);
  return { root, files };
}

function readAll(fileSystem: FileSystem, path: string, position = 0, length = MiB): Buffer {
  let file = fileSystem.root;
  for (const name of path.split("/").slice(1)) file = fileSystem.lookup(file, Buffer.from(name))!;
  const target = Buffer.alloc(length, 0xaa);
  let filled = 0;
  for (let count = 1; count > 0 && filled < length; filled += count)
    count = fileSystem.read(file, position + filled, target.subarray(filled));
  return target.subarray(0, filled);
}

const kinds: readonly (readonly [Kind, number, boolean])[] = [
  ["physical", 2048, false],
  ["physical", 512, true],
  ["physical", 4096, true],
  ["sparable", 2048, true],
  ["virtual 1.50", 2048, false],
  ["virtual 2.00", 2048, true],
  ["metadata", 2048, true],
  ["metadata", 4096, true],
];

for (const [kind, blockSize, extended] of kinds) {
  const made = `a ${kind} partition with blocks of ${blockSize} bytes and ${extended ? "extended " : ""}file entries`;
  test(`${made} reads as it was written, across every edge`, (t) => {
    const { root, files } = oddTree(blockSize, extended);
    const image = new UdfWriter(kind, blockSize, extended).write(root, "handmade");
    const fileSystem = openRecognised(t, udf, new MemorySource("volume", image, 1000));
    t.deepEqual(fileSystem.warnings, []);
    const walked = noErrors(t, walk(fileSystem));
    const expected = new Set([
      ...files.keys(),
      "/目录 😀",
      "/relative",
      "/absolute",
      "/root",
      "/fifo",
      "/socket",
      "/character",
      "/block",
    ]);
    t.deepEqual([...walked.files.keys()].sort(), [...expected].sort());
    for (const [path, bytes] of files)
      for (const position of [
        0,
        1,
        blockSize - 1,
        blockSize,
        3 * blockSize + 5,
        6 * blockSize,
        bytes.length - 1,
        bytes.length,
      ])
        if (position >= 0)
          t.deepEqual(readAll(fileSystem, path, position), bytes.subarray(position), `${path} at ${position}`);
    const of = (path: string) => walked.files.get(path)!;
    t.is(of("/relative").link, "../目录/./файл");
    t.is(of("/absolute").link, "/a/b c");
    t.is(of("/root").link, "/");
    t.is(of("/root").attributes.size, 1);
    t.deepEqual(of("/character").attributes.device, { major: 259, minor: 70_000 });
    t.deepEqual(of("/block").attributes.device, { major: 8, minor: 1 });
    t.is(of("/in pieces").id, of("/a second name").id);
    t.is(of("/in pieces").attributes.links, 2);
    t.is(of("/empty").attributes.mode, 0o6777);
    t.is(of("/目录 😀").attributes.mode, 0o1770);
    const { owner, group, modified, born } = of("/inline").attributes;
    t.deepEqual([owner, group], [1000, 65534]);
    t.deepEqual(modified, { seconds: stampSeconds, nanoseconds: stampNanoseconds });
    t.deepEqual(born, extended ? modified : undefined);
    const holes = of("/holes");
    t.is(holes.attributes.allocated, 3 * blockSize);
    t.deepEqual(fileSystem.extentAt!(holes.id, 0), { hole: true, length: 2 * blockSize });
    t.deepEqual(fileSystem.extentAt!(holes.id, 2 * blockSize + 1), { hole: false, length: blockSize - 1 });
    t.deepEqual(fileSystem.extentAt!(holes.id, 3 * blockSize), { hole: true, length: 5 * blockSize });
    const xattrs = extended
      ? [
          ["user.Zone.Identifier", Buffer.from("3")],
          ["user.ж", noise(3 * blockSize, 2)],
        ]
      : [];
    if (extended)
      t.deepEqual(
        [...of("/streams").xattrs].map(([name, bytes]) => [name, Buffer.from(bytes)]),
        xattrs,
      );
    t.is(fileSystem.facts!.uuid, "0123456789abcdef");
    t.is(fileSystem.statistics.freeBlocks, 12);
  });
}

/** The tree without what another reader doesn't know. */
function without(names: RegExp, { root, files }: { root: Item; files: Map<string, Buffer> }) {
  const children = Object.fromEntries(Object.entries(root.children!).filter(([name]) => !names.test(name)));
  const rest = [...files].filter(([path]) => !names.test(path.slice(1)));
  return { root: { ...root, children }, files: new Map(rest) };
}

/** Names and kinds that only we can be expected to read. */
const ours = /^(deleted|\.\.|a\/slash|a NUL.|rewritten|fifo|socket|character|block|relative|absolute|root)$/s;

test("7-Zip reads what the tests' writer writes, so that they don't share a mistake with the reader", (t) => {
  if (!hasTools(t, "7zip", "7zz")) return;
  const folder = scratchFolder(t);
  for (const [kind, blockSize, extended] of kinds.filter(([one, size]) => one === "physical" && size < 4096)) {
    const { root, files } = without(/^(chained|holes)$/, without(ours, oddTree(blockSize, extended)));
    const path = join(folder, `${kind}-${blockSize}.udf`);
    writeFileSync(path, new UdfWriter(kind, blockSize, extended).write(root, "handmade"));
    const out = join(folder, `${kind}-${blockSize}`);
    run("7zz", ["x", "-tudf", `-o${out}`, path]);
    for (const [name, bytes] of files) t.deepEqual(readFileSync(join(out, name)), bytes, `${blockSize} ${name}`);
  }
});

for (const kind of ["physical", "sparable", "virtual 1.50", "virtual 2.00", "metadata"] as const)
  test(`udfclient reads a ${kind} partition by the tests' writer, with chained descriptors and holes`, (t) => {
    if (!hasTools(t, "udfclient", "udfclient")) return;
    const folder = scratchFolder(t);
    // It takes a file for a medium with sectors of 512 bytes, and asks for ASCII names.
    const { root, files } = without(/[^ -~]/, without(ours, oddTree(512, kind !== "virtual 1.50")));
    const writer = new UdfWriter(kind, 512, kind !== "virtual 1.50");
    writer.outdated = false; // it takes the first sparing table for the newest
    const path = join(folder, "volume");
    writeFileSync(path, writer.write(root, "hand"));
    const gets = [...files.keys()].map((name) => `get "${name.slice(1)}"`);
    const commands = ['cd "0123456789abcdefHandmade:hand:hand:files"', ...gets, "quit", ""].join("\n");
    execFileSync("udfclient", [path], { cwd: folder, input: commands, stdio: ["pipe", "ignore", "ignore"] });
    for (const [name, bytes] of files) t.deepEqual(readFileSync(join(folder, name)), bytes, name);
  });

test("a volume written by udfclient reads as it was filled", (t) => {
  if (!hasTools(t, "udfclient", "udfclient", "newfs_udf")) return;
  const folder = scratchFolder(t);
  const path = sparseFile(folder, "disc", 4 * MiB);
  run("newfs_udf", ["-P", "primary", "-L", "A Volume", "-S", "set", path]);
  writeFileSync(join(folder, "data"), noise(70_001, 3));
  writeFileSync(join(folder, "small"), "small");
  const commands = [
    'cd "set:primary:A Volume:fileset"',
    "mkdir folder",
    "put data",
    "put small",
    "sync",
    "quit",
    "",
  ].join("\n");
  execFileSync("udfclient", ["-W", path], { cwd: folder, input: commands, stdio: ["pipe", "ignore", "ignore"] });
  const fileSystem = open(t, path);
  t.is(fileSystem.label, "A Volume");
  t.deepEqual(
    contents(noErrors(t, walk(fileSystem))),
    new Map(
      [...contentsOf(folder)]
        .filter(([name]) => name !== "/disc")
        .concat([["/folder", "directory"]])
        .sort(),
    ),
  );
});

test("files that udfclient writes to the sparable partition of mkudffs's CD-RW read as they were", (t) => {
  if (!hasTools(t, "udfclient, udftools", "udfclient", "mkudffs")) return;
  const folder = scratchFolder(t);
  const path = sparseFile(folder, "disc", 40 * MiB);
  run("mkudffs", ["-b", "2048", "--media-type=cdrw", "--uuid=0123456789abcdef", path]);
  writeFileSync(join(folder, "data"), noise(70_001, 3));
  const fileset = "0123456789abcdefLinuxUDF:LinuxUDF:LinuxUDF:LinuxUDF";
  const commands = [`cd "${fileset}"`, "mkdir folder", "put data", "sync", "quit", ""].join("\n");
  const stdio: StdioOptions = ["pipe", "ignore", "ignore"];
  execFileSync("udfclient", ["-b", "2048", "-W", path], { cwd: folder, input: commands, stdio });
  const fileSystem = open(t, path);
  t.deepEqual(fileSystem.facts!.partitions, ["sparable"]);
  const found = contents(noErrors(t, walk(fileSystem)));
  t.is(found.get("/data"), contentsOf(folder).get("/data"));
  t.is(found.get("/folder"), "directory");
});

test("what is left without its main descriptors, its anchor, its metadata file or a mirrored ICB is read from the copies", (t) => {
  const { root, files } = oddTree(2048, true);
  const writer = new UdfWriter("metadata", 2048, true);
  const image = writer.write(root, "handmade");
  const damaged = (change: (bytes: Buffer) => void) => {
    const bytes = Buffer.from(image);
    change(bytes);
    return openBytes(bytes);
  };
  const check = (fileSystem: FileSystem, warning: RegExp | undefined) => {
    const walked = noErrors(t, walk(fileSystem));
    for (const [path, bytes] of files) t.is(walked.files.get(path)!.attributes.size, bytes.length);
    if (warning) t.regex(fileSystem.warnings!.join("\n"), warning);
    else t.deepEqual(fileSystem.warnings, []);
  };
  check(
    damaged((bytes) => bytes.fill(0, 262 * 2048, 263 * 2048)),
    /the main sequence at byte 532480 is incomplete.*reserve copy is used/,
  );
  check(
    damaged((bytes) => bytes.fill(0x55, 262 * 2048, 263 * 2048)),
    /volume descriptor at byte 536576 is damaged.*reserve copy/,
  );
  check(
    damaged((bytes) => bytes.fill(0, 256 * 2048, 257 * 2048)),
    undefined,
  );
  check(
    damaged((bytes) => bytes.fill(0, 300 * 2048, 301 * 2048)),
    /metadata file of the UDF volume can't be read; the other copy/,
  );
  check(
    damaged((bytes) => bytes.fill(0, 301 * 2048, 302 * 2048)),
    /metadata mirror file of the UDF volume can't be read/,
  );
  // All descriptors in the metadata file's first piece: the blocks' mirror has them too.
  check(
    damaged((bytes) => bytes.writeUInt8(1, 360 * 2048 + 30)),
    undefined,
  );
});

test("a volume without any of its anchors is refused in words", (t) => {
  const image = new UdfWriter("physical", 2048, false).write({ type: "directory", children: {} }, "x");
  image.fill(0, 256 * 2048, 257 * 2048);
  image.fill(0, image.length - 2048);
  t.true(udf.recognises(new MemorySource("volume", image)));
  const error = t.throws(() => openBytes(image), { instanceOf: ImageError });
  t.regex(error!.message, /no anchor is at block 256, at the end, or 256 blocks before it/);
});

test("damage of one ICB stays with its file, and extents beyond the end with their reading", (t) => {
  const { root } = oddTree(2048, false);
  const image = new UdfWriter("physical", 2048, false).write(root, "x");
  const whole = walk(openBytes(image));
  const { inode } = whole.files.get("/in pieces")!.attributes;
  const bad = Buffer.from(image);
  bad[inode * 2048 + 60] ^= 1;
  const walked = walk(openBytes(bad));
  t.deepEqual([...walked.errors.keys()], ["/in pieces", "/a second name"]);
  t.regex(walked.errors.get("/in pieces")!, new RegExp(`^volume: byte ${inode * 2048}: a file entry has a wrong CRC`));
  t.is(walked.files.size, whole.files.size - 2);

  const cut = walk(openBytes(image.subarray(0, (inode + 6) * 2048)));
  t.truthy(cut.errors.size);
  for (const [path, { hash }] of cut.files) if (hash !== undefined) t.is(hash, whole.files.get(path)!.hash!);
});

test("sizes of 2^63, descriptors in a circle and directories in themselves end in errors", (t) => {
  const { root } = oddTree(2048, false);
  const image = new UdfWriter("physical", 2048, false).write(root, "x");
  const inodes = new Map([...walk(openBytes(image)).files].map(([path, { attributes }]) => [path, attributes.inode]));
  const changed = (path: string, change: (entry: Buffer) => void) => {
    const bytes = Buffer.from(image);
    const at = inodes.get(path)! * 2048;
    const entry = bytes.subarray(at, at + 16 + bytes.readUInt16LE(at + 10));
    change(entry);
    sealTag(entry, 261, inodes.get(path)! - 300);
    return walk(openBytes(bytes));
  };
  t.regex(
    changed("/in pieces", (entry) => entry.writeBigUInt64LE(2n ** 63n, 56)).errors.get("/in pieces")!,
    /impossible size of 9223372036854\d+ bytes/,
  );
  t.regex(changed("/in pieces", (entry) => entry.writeUInt32LE(1e8, 56)).errors.get("/in pieces")!, /extents for/);
  t.regex(changed("/inline", (entry) => entry.writeUInt32LE(4000, 172)).errors.get("/inline")!, /exceed its block/);
  const circle = changed("/chained", (entry) => {
    // The third descriptor leads to the next ones; two more lead there again.
    entry.writeUInt32LE(0x7fffffff, 56);
    const block = entry.readUInt32LE(176 + 32 + 4);
    const extent = (300 + block) * 2048;
    const bytes = Buffer.from(entry.buffer, entry.byteOffset - inodes.get("/chained")! * 2048, image.length);
    const own = bytes.subarray(extent, extent + 16 + bytes.readUInt16LE(extent + 10));
    own.writeUInt32LE(block, 24 + 32 + 4);
    sealTag(own, 258, block);
  });
  t.regex(circle.errors.get("/chained")!, /go in a circle/);
  const loop = Buffer.from(image);
  const at = inodes.get("/目录 😀")! * 2048;
  loop.copy(
    loop,
    at,
    openBytes(image).attributes(openBytes(image).root).inode * 2048,
    openBytes(image).attributes(openBytes(image).root).inode * 2048 + 2048,
  );
  const entry = loop.subarray(at, at + 16 + loop.readUInt16LE(at + 10));
  sealTag(entry, 261, at / 2048 - 300);
  const looped = walk(openBytes(loop), { depth: 30, entries: 5000 });
  t.true(looped.cut || looped.files.size < 5000);
});

test("the shared images read as 7-Zip and GRUB read them, with blkid's labels and UUIDs", (t) => {
  for (const image of sharedImages(t, ({ blkid, columns }) => /TYPE=udf/.test(blkid) && columns.pack === "zst")) {
    const fileSystem = openRecognised(t, udf, openSharedImage(t, image));
    const walked = noErrors(t, walk(fileSystem));
    for (const { reader, path } of image.manifests) {
      // Directory times by GRUB are those of other records.
      const differences = compareManifest(walked, readManifest(path), {
        reader: reader.replace("-udf", ""),
        owners: false,
      });
      t.deepEqual(differences, [], `${image.file} by ${reader}`);
    }
    const label = /LABEL=((?:\\ |\S)+)/.exec(image.blkid)?.[1]?.replace(/\\ /g, " ");
    if (!label?.includes("M-")) t.is(fileSystem.label, label!, image.file);
    t.is(fileSystem.facts!.uuid, /UUID=(\S+)/.exec(image.blkid)?.[1], image.file);
  }
});
