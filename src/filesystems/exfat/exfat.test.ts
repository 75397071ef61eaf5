import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { MemorySource } from "../../bytes/memory.js";
import { ImageError } from "../../errors.js";
import type { FileSystem } from "../filesystem.js";
import { hasTools, noise, run, scratchFolder, sparseFile } from "../image-test-tools.js";
import {
  compareManifest,
  openRecognised,
  openSharedImage,
  readManifest,
  sharedImages,
  testSurroundings,
  walk,
} from "../shared-test-images.js";
import { exfat } from "./exfat.js";
import { ExfatWriter, withChecksum } from "./writer-test-tools.js";

const packages = "exfatprogs sleuthkit";
const MiB = 1024 * 1024;

function made(t: ExecutionContext, size: number, ...options: string[]): Buffer {
  const path = sparseFile(scratchFolder(t), "exfat.img", size);
  run("mkfs.exfat", [...options, path]);
  return readFileSync(path);
}

const open = (bytes: Uint8Array, most?: number): FileSystem =>
  exfat.open(new MemorySource("image", bytes, most), testSurroundings());

const find = (fileSystem: FileSystem, path: string) =>
  path
    .split("/")
    .filter((part) => part !== "")
    .reduce((directory, name) => fileSystem.lookup(directory, Buffer.from(name))!, fileSystem.root);

/** Trees with both kinds of directories and files, whose sets of entries go over the ends of clusters. */
function filled(bytes: Buffer): { readonly expected: Map<string, Buffer> } {
  const writer = new ExfatWriter(bytes);
  const expected = new Map<string, Buffer>();
  const directories = [true, false].map((isContiguous) => {
    const folder = isContiguous ? "side by side" : "scattered";
    const entries: Buffer[] = [];
    for (let index = 0; index < 60; index++) {
      const name = `${"a name of its own ".repeat(index % 14)}${index}.txt`.slice(-255);
      const content = noise((index * index * 7) % 9001, index);
      expected.set(`/${folder}/${name}`, content);
      entries.push(writer.file({ name, content, isContiguous: index % 2 === 0 }));
    }
    return writer.directory(folder, entries, isContiguous);
  });
  expected.set("/lazy", Buffer.concat([noise(5000), Buffer.alloc(15_000)]));
  expected.set("/ünï 🎈", Buffer.alloc(0));
  writer.finish([
    ...directories,
    writer.file({ name: "lazy", content: noise(20_000), valid: 5000, isContiguous: true }),
    writer.file({ name: "ünï 🎈", content: Buffer.alloc(0), isContiguous: false, attributes: 0x21 }),
  ]);
  return { expected };
}

for (const options of [
  ["-c", "512"],
  ["-c", "4096", "-L", "Ünï 🎈"],
  ["-c", "32K", "--pack-bitmap"],
]) {
  test(`files side by side and in pieces, with mkfs.exfat ${options.join(" ")}: as fsck.exfat and sleuthkit have them`, (t) => {
    if (!hasTools(t, packages, "mkfs.exfat", "fsck.exfat", "dump.exfat", "fls", "icat")) return;
    if (options.includes("--pack-bitmap") && !run("sh", ["-c", "mkfs.exfat -h 2>&1 || true"]).includes("pack-bitmap")) {
      t.log("skipped: this mkfs.exfat doesn't know --pack-bitmap");
      t.pass();
      return;
    }
    const bytes = made(t, 16 * MiB, ...options);
    const path = join(scratchFolder(t), "filled.img");
    const { expected } = options.includes("--pack-bitmap") ? { expected: new Map<string, Buffer>() } : filled(bytes);
    writeFileSync(path, bytes);
    t.regex(run("fsck.exfat", ["-n", path]), /clean/);
    const fileSystem = openRecognised(t, exfat, new MemorySource("image", bytes, 1000));
    t.deepEqual(fileSystem.warnings, []);
    t.is(fileSystem.label, options[3] ?? "");
    const walked = walk(fileSystem);
    t.deepEqual([...walked.errors], []);
    const files = [...walked.files].filter(([, { attributes }]) => attributes.kind === "file");
    t.deepEqual(
      new Map(files.map(([name, { hash }]) => [name, hash])),
      new Map([...expected].map(([name, content]) => [name, createHash("sha256").update(content).digest("hex")])),
    );
    t.is(new Set([...walked.files.values()].map(({ id }) => id)).size, walked.files.size);
    t.is(fileSystem.statistics.freeBlocks, Number(/Free Clusters:\s+(\d+)/.exec(run("dump.exfat", [path]))?.[1]));

    // Names and contents once more as sleuthkit has them; it knows nothing of a valid length.
    const listed = run("fls", ["-r", "-p", "-F", path])
      .split("\n")
      .filter((line) => line !== "" && !/\$|Volume Label Entry/.test(line));
    const theirs = listed.map((line) => /^r\/r (\d+):\t(.*)$/.exec(line)!.slice(1));
    t.deepEqual(theirs.map(([, name]) => `/${name}`).sort(), files.map(([name]) => name).sort());
    for (const [inode, name] of theirs.slice(0, 20)) {
      const size = walked.files.get(`/${name}`)!.attributes.size;
      if (name === "lazy") continue;
      const sum = run("sh", ["-c", `icat '${path}' ${inode} | sha256sum`]).slice(0, 64);
      t.is(walked.files.get(`/${name}`)!.hash, sum, `${name} of ${size} bytes`);
    }
  });
}

test("what was never written is a hole, also where the disk has old bytes", (t) => {
  if (!hasTools(t, packages, "mkfs.exfat")) return;
  const bytes = made(t, 8 * MiB, "-c", "4096");
  filled(bytes);
  const fileSystem = open(bytes);
  const file = find(fileSystem, "lazy");
  t.deepEqual(fileSystem.extentAt!(file, 0), { hole: false, length: 5000 });
  t.deepEqual(fileSystem.extentAt!(file, 4999), { hole: false, length: 1 });
  t.deepEqual(fileSystem.extentAt!(file, 5000), { hole: true, length: 15_000 });
  t.is(fileSystem.attributes(file).allocated, 20_480);
  const target = Buffer.alloc(20, 0xaa);
  t.is(fileSystem.read(file, 19_990, target), 10);
  t.deepEqual(target.subarray(0, 10), Buffer.alloc(10));
  t.is(fileSystem.read(file, 20_000, target), 0);
});

test("names are found in any case by the volume's own table", (t) => {
  if (!hasTools(t, packages, "mkfs.exfat")) return;
  const bytes = made(t, 8 * MiB, "-c", "4096");
  const { expected } = filled(bytes);
  const fileSystem = open(bytes);
  for (const path of expected.keys()) t.is(find(fileSystem, path.toUpperCase()), find(fileSystem, path));
  t.is(fileSystem.lookup(fileSystem.root, Buffer.from("LAZY2")), undefined);
  t.is(fileSystem.attributes(find(fileSystem, "ÜNÏ 🎈")).mode, 0o444);
  // A damaged table: said, and Unicode's case instead.
  const broken = Buffer.from(bytes);
  broken[broken.indexOf(Buffer.from("00004100", "hex"), 2 * MiB)]! ^= 0;
  const table = bytes.indexOf(Buffer.from("00000100020003000400", "hex"));
  broken[table + 100]! ^= 1;
  const without = open(broken);
  t.regex(without.warnings!.join(), /up-case table at cluster 3 has a wrong checksum/);
  t.is(find(without, "LAZY"), find(fileSystem, "lazy"));
});

test("times: hundredths, and the zone that they were written in", (t) => {
  if (!hasTools(t, packages, "mkfs.exfat", "fsck.exfat")) return;
  const bytes = made(t, 8 * MiB, "-c", "4096");
  const writer = new ExfatWriter(bytes);
  const stamp = (year: number, month: number, day: number, hour: number, minute: number, second: number) => {
    const low = (hour << 11) | (minute << 5) | (second >> 1);
    const high = ((year - 1980) << 9) | (month << 5) | day;
    return [low & 255, low >> 8, high & 255, high >> 8];
  };
  writer.finish([
    writer.file({
      name: "clock",
      content: noise(1),
      isContiguous: true,
      times: [
        { at: 8, bytes: stamp(2024, 2, 29, 23, 59, 58) },
        { at: 12, bytes: stamp(1980, 1, 1, 0, 0, 0) },
        { at: 16, bytes: stamp(2107, 12, 31, 12, 0, 2) },
        // 1.5 s more; none; UTC+5:45, UTC-8:00, no zone known.
        { at: 20, bytes: [150, 0, 0x80 | 23, 0x80 | (128 - 32), 0] },
      ],
    }),
  ]);
  const fileSystem = open(bytes);
  const { born, modified, accessed } = fileSystem.attributes(find(fileSystem, "clock"));
  const text = ({ seconds, nanoseconds }: { seconds: number; nanoseconds: number }) =>
    `${new Date(seconds * 1000).toISOString()} ${nanoseconds}`;
  t.is(text(born!), "2024-02-29T18:14:59.000Z 500000000");
  t.is(text(modified), "1980-01-01T08:00:00.000Z 0");
  t.is(text(accessed), "2107-12-31T12:00:02.000Z 0");
});

test("a damaged boot region is replaced by its backup, which is said; with both damaged it's refused", (t) => {
  if (!hasTools(t, packages, "mkfs.exfat")) return;
  const bytes = made(t, 8 * MiB, "-c", "4096");
  const { expected } = filled(bytes);
  bytes[92]! ^= 0x40;
  const fileSystem = open(bytes);
  t.regex(fileSystem.warnings!.join(), /boot region at byte 0 has checksum .* The backup at byte 6144 is in order/);
  t.is(walk(fileSystem).files.size, expected.size + 2);
  bytes[6144 + 300]! ^= 1;
  t.throws(() => open(bytes), { instanceOf: ImageError, message: /at byte 0 has checksum .*backup isn't in order/ });
  // Flags and the percentage in use don't count in the checksum.
  bytes[92]! ^= 0x40;
  bytes[106] = 2;
  bytes[112] = 55;
  t.deepEqual(open(bytes).warnings, ["The exFAT filesystem was not unmounted: it may be inconsistent."]);
});

test("a damaged entry is listed, and an error only when it is looked at; the others are sound", (t) => {
  if (!hasTools(t, packages, "mkfs.exfat")) return;
  const bytes = made(t, 8 * MiB, "-c", "4096");
  const { expected } = filled(bytes);
  const at = bytes.indexOf(Buffer.from("lazy", "utf16le"));
  bytes[at - 2 - 32 + 24]! ^= 1;
  const walked = walk(open(bytes));
  t.deepEqual([...walked.errors.keys()], ["/lazy"]);
  t.regex(walked.errors.get("/lazy")!, /directory entry at byte \d+ has checksum \w+, and \w+ is recorded/);
  t.is(walked.files.size, expected.size + 2 - 1);
});

test("lies that have a right checksum: sizes and clusters that can't be, a directory in itself", (t) => {
  if (!hasTools(t, packages, "mkfs.exfat")) return;
  const bytes = made(t, 8 * MiB, "-c", "4096");
  const writer = new ExfatWriter(bytes);
  const lie = (name: string, isContiguous: boolean, change: (set: Buffer) => void, attributes = 0x20) => {
    const set = writer.file({ name, content: noise(10_000), isContiguous, attributes });
    change(set);
    return withChecksum(set);
  };
  const root = bytes.readUInt32LE(96);
  writer.finish([
    lie("huge", true, (set) => set.writeBigUInt64LE(2n ** 63n, 56)),
    lie("large", true, (set) => set.writeBigUInt64LE(2n ** 40n, 56).valueOf() && set.writeBigUInt64LE(2n ** 40n, 40)),
    lie("nowhere", false, (set) => set.writeUInt32LE(0xfffffff0, 52)),
    lie("zero", false, (set) => set.writeUInt32LE(0, 52)),
    lie("long", false, (set) => set.writeBigUInt64LE(40_000n, 56).valueOf() && set.writeBigUInt64LE(40_000n, 40)),
    lie("vast", true, (set) => set.writeBigUInt64LE(2n ** 40n, 56), 0x10),
    lie("self", false, (set) => set.writeUInt32LE(root, 52), 0x10),
    lie("a/b", true, () => undefined),
    lie("..", true, () => undefined),
  ]);
  const fileSystem = open(bytes);
  const walked = walk(fileSystem, { fileBytes: 2 ** 50, totalBytes: 2 ** 50 });
  t.regex(walked.errors.get("/huge")!, /of a file of 9223372036854776000 bytes, which can't be/);
  t.regex(walked.errors.get("/large")!, /has only \d+ bytes: the volume has no more clusters side by side/);
  t.regex(walked.errors.get("/nowhere")!, /doesn't have: cluster 4294967280/);
  t.regex(walked.errors.get("/zero")!, /doesn't have: cluster 0/);
  t.regex(walked.errors.get("/long")!, /a file of 40000 bytes, has only 12288 bytes: its cluster chain ends/);
  t.regex(walked.errors.get("/vast")!, /of a directory of 1099511627776 bytes, which can't be/);
  t.true(walked.files.has("/self/self"));
  t.false(walked.files.has("/self/self/self"));
  t.deepEqual([...walked.files.keys()].filter((path) => !path.startsWith("/self/")).sort(), [
    "/large",
    "/long",
    "/nowhere",
    "/self",
    "/zero",
  ]);
});

test("a directory of 200,000 entries is listed and searched in one pass; a larger one keeps nothing", (t) => {
  if (!hasTools(t, packages, "mkfs.exfat")) return;
  for (const count of [200_000, 270_000]) {
    const bytes = made(t, 64 * MiB, "-c", "32K");
    const writer = new ExfatWriter(bytes);
    const entries: Buffer[] = [];
    for (let index = 0; index < count; index++)
      entries.push(writer.file({ name: `f${index}`, content: Buffer.alloc(0), isContiguous: false }));
    writer.finish([writer.directory("many", entries, false)]);
    const fileSystem = open(bytes);
    const many = find(fileSystem, "many");
    let listed = 0;
    for (const { name, file } of fileSystem.list(many)) {
      if (count === 200_000 && fileSystem.lookup(many, name) !== file) t.fail();
      listed++;
    }
    t.is(listed, count);
    t.truthy(fileSystem.lookup(many, Buffer.from(`F${count - 1}`)));
    t.is(fileSystem.lookup(many, Buffer.from(`F${count}`)), undefined);
  }
});

test("the shared images are as other readers list them", (t) => {
  for (const image of sharedImages(t, ({ fs, container }) => /exfat/.test(fs) && container === "raw")) {
    const source = openSharedImage(t, image);
    const fileSystem = openRecognised(t, exfat, source);
    const walked = walk(fileSystem);
    for (const { reader, path } of image.manifests) {
      const differences = compareManifest(walked, readManifest(path), {
        reader,
        // sleuthkit shows what no directory lists.
        skip: ({ path, type }) => type === "v" || path.startsWith("/$"),
        // sleuthkit and grub leave out the zone, which is UTC+4 here.
        times: false,
      });
      t.deepEqual(differences, [], `${image.file} ${reader}`);
    }
    t.is(fileSystem.facts!.uuid, /UUID=(\S+)/.exec(image.blkid)?.[1]);
    t.is(walked.files.get("/test.00")!.attributes.modified.seconds, 1274301262 - 4 * 3600);
    t.is(fileSystem.label, "Новый том");
  }
});

test("what isn't exFAT is not taken for it, and a truncated image is an error where it ends", (t) => {
  t.false(exfat.recognises(new MemorySource("empty", new Uint8Array(0))));
  t.false(exfat.recognises(new MemorySource("noise", noise(4096))));
  if (!hasTools(t, packages, "mkfs.exfat")) return;
  const bytes = made(t, 8 * MiB, "-c", "4096");
  filled(bytes);
  for (const size of [512, 6000, 6200, 2 * MiB, 3 * MiB]) {
    const cut = bytes.subarray(0, size);
    t.true(exfat.recognises(new MemorySource("cut", cut)));
    try {
      const fileSystem = open(cut);
      t.regex(fileSystem.warnings!.join(), /its volume only/);
      walk(fileSystem);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      t.regex(error.message, /byte/);
    }
  }
});
