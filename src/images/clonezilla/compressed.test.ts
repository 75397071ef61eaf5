/** Folders whose pieces Clonezilla compressed, which it does unless it is told not to. */
import { execFileSync, spawnSync } from "node:child_process";
import { readdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import test, { type ExecutionContext } from "ava";
import { readFully } from "../../bytes/byte-source.js";
import { LocalChunkCache } from "../../bytes/local-cache.js";
import { openLayers, reopenLayers } from "../../chain.js";
import { ImageError } from "../../errors.js";
import { openFiles } from "../../open.js";
import "../../packed/packed-test-tools.js"; // piece tables go to the tests' own folder
import { isDisk, isRefused, opened, testFolder, wholeDisk } from "../qemu-test-tools.js";
import {
  gpt,
  type How,
  MiB,
  mbr,
  needsPackers,
  needsSfdisk,
  packers,
  pieces,
  save,
  sfdisk,
} from "./clonezilla-test-tools.js";
import { piecesOf } from "./pieces.js";

const needs = (t: ExecutionContext) => needsSfdisk(t) && needsPackers(t);

for (const packed of Object.keys(packers) as (keyof typeof packers)[])
  test(`${packed}: a disk in compressed pieces is what restoring it would give, by the names of all versions`, (t) => {
    if (!needs(t)) return;
    const compression = {
      ...{ gz: "gzip", bz2: "bzip2", xz: "xz", zst: "zstd", lz4: "lz4" },
      ...{ lzip: "lzip", lzma: "lzma" },
    }[packed];
    const ways: Omit<How, "script">[] = [
      { saved: { sda1: "partclone", sda2: "swap", sda3: "dd" }, piece: 70_001 },
      { saved: { sda1: "old partclone", sda2: "swap", sda3: "old dd" }, piece: 500_000, letters: 3 },
      { saved: { sda1: "partclone", sda3: "dd" } },
    ];
    // The names are the same for all: those of two compressions are enough.
    for (const how of packed === "gz" || packed === "zst" ? ways : ways.slice(0, 1)) {
      const path = testFolder(t);
      const { folder, disk } = save(path, { script: mbr, size: 12 * MiB, packed, ...how });
      isDisk(t, { path: folder }, disk, 4 * MiB);
      opened({ path: folder }, ({ layers: [layer], chunkSize }) => {
        t.is(chunkSize, 1 << 20);
        const told = layer!.facts.partitions as { name: string; image: string; compression?: string }[];
        t.deepEqual(
          told.map((one) => one.compression),
          [compression, undefined, compression],
        );
        const { integrity } = layer!;
        const reports = Array.from({ length: integrity!.pieces }, (_, piece) => integrity!.check(piece));
        t.deepEqual(
          reports.flatMap(({ damages }) => damages),
          [],
        );
        // .lzma has no checksums; what partclone saved has its own.
        const notes = integrity!.notes!.map((note) => /sda\d.*has no checksums/.exec(note)?.[0].slice(0, 5));
        t.deepEqual(notes, packed === "lzma" ? ["sda3."] : []);
      });
    }
  });

test("a partition alone, and each of several disks, come out of compressed pieces as well", (t) => {
  if (!needs(t)) return;
  const path = testFolder(t);
  const first = save(path, { script: mbr, saved: { sda1: "partclone", sda3: "dd" }, packed: "zst", piece: 90_000 });
  const second = save(path, { script: gpt, saved: { sdb1: "dd" }, packed: "gz", piece: 90_000 }, "sdb");
  writeFileSync(`${first.folder}/disk`, "sda sdb\n");
  isRefused(t, "usage", { path: first.folder }, "2 disks (sda, sdb)", "--disk");
  isDisk(t, { path: first.folder, disk: "sdb" }, second.disk, MiB);
  for (const name of ["sda1", "sda3"]) {
    const { position, size } = first.places.get(name)!;
    isDisk(t, { path: first.folder, disk: name }, first.disk.subarray(position, position + size), MiB);
    opened({ path: first.folder, disk: name }, ({ wrappings, layers }) => {
      t.is(wrappings[0]![0]!.format, "zstd");
      t.is(layers[0]!.format, name === "sda1" ? "partclone" : "raw");
    });
  }
});

test("what partclone and the compressors save is what partclone restores, and its files are read", (t) => {
  if (!needs(t)) return;
  if (spawnSync("partclone.restore", ["-v"]).error || process.getuid?.() !== 0) {
    t.pass(t.log("skipped: partclone is not installed, or this is not root, which it needs") as undefined);
    return;
  }
  for (const [type, make] of [
    ["ext4", ["mke2fs", "-q", "-F", "-t", "ext4"]],
    ["ntfs", ["mkfs.ntfs", "-q", "-F", "-Q"]],
    ["vfat", ["mkfs.vfat"]],
  ] as const) {
    if (spawnSync("bash", ["-c", `command -v ${make[0]} partclone.${type}`]).status !== 0) {
      t.log(`skipped: ${type}, whose programs are not installed`);
      continue;
    }
    const path = testFolder(t);
    const { folder, places, disk } = save(path, { script: gpt, saved: { sda1: "dd" }, packed: "gz" });
    const { position, size } = places.get("sda2")!;
    execFileSync("truncate", ["-s", `${size}`, path("fs")]);
    execFileSync(make[0], [...make.slice(1), path("fs")], { stdio: "pipe" });
    if (type === "ext4") {
      writeFileSync(path("hello"), "hello, world\n".repeat(9000));
      execFileSync("debugfs", ["-w", "-R", `write ${path("hello")} hello`, path("fs")], { stdio: "pipe" });
    }
    const quietly = ["-q", "-f", "0", "-L", path("log")];
    execFileSync(`partclone.${type}`, ["-c", "-s", path("fs"), "-O", path("image"), ...quietly], { stdio: "pipe" });
    execFileSync("partclone.restore", ["-s", path("image"), "-O", path("again"), "-W", ...quietly], { stdio: "pipe" });
    const expected = Buffer.from(disk);
    readFileSync(path("again")).copy(expected, position);
    const command = `zstd -q -3 -T0 < image > packed && split -a 2 -n 7 packed img/sda2.${type}-ptcl-img.zst.`;
    execFileSync("bash", ["-o", "pipefail", "-c", command], { cwd: path(".") });
    t.true(readdirSync(folder).filter((name) => name.startsWith("sda2.")).length > 1);
    isDisk(t, { path: folder }, expected, MiB);
    const files = openFiles({ path: folder });
    const { tree } = files.found.find(({ name }) => name === "p2")!;
    t.is(tree!.type.replace(/fat\d+/, "vfat"), type);
    if (type === "ext4") {
      const target = Buffer.alloc(200_000);
      const length = tree!.read(tree!.lookup(tree!.root, Buffer.from("hello"))!, 0, target);
      t.true(target.subarray(0, length).equals(readFileSync(path("hello")).subarray(0, length)) && length > 0);
    }
    files.close();
  }
});

/** What is wrong with the third partition, told in every thread; the rest of the disk is read all the same. */
function refusesThird(t: ExecutionContext, folder: string, disk: Buffer, at: number, words: readonly string[]): void {
  const image = openLayers({ path: folder });
  try {
    for (const one of [image, reopenLayers(image.data, new LocalChunkCache(0))]) {
      const error = t.throws(() => one.disk.read(at, Buffer.alloc(10)), { instanceOf: ImageError });
      for (const word of words) t.true(error?.message.includes(word), `${word} in ${error?.message}`);
      const before = Buffer.alloc(at);
      t.is(readFully(one.disk, 0, before), at);
      t.true(before.equals(disk.subarray(0, at)));
    }
    const { pieces: count, check, notes } = image.layers[0]!.integrity!;
    const damages = Array.from({ length: count }, (_, piece) => check(piece).damages).flat();
    // What can't be read without being damaged is noted instead.
    const told = [...damages.map(({ message }) => message), ...(notes ?? [])].join();
    for (const word of words) t.true(told.includes(word), told);
  } finally {
    image.close();
  }
}

test("a piece that is missing, cut off, changed or in another's place costs its partition, and is told by its name", (t) => {
  if (!needs(t)) return;
  for (const packed of ["gz", "zst"] as const) {
    const path = testFolder(t);
    const saved = { sda1: "dd", sda3: "partclone" } as const;
    const { folder, disk, places } = save(path, { script: mbr, saved, packed, piece: 5000 });
    const at = places.get("sda3")!.position;
    const own = readdirSync(folder).filter((name) => name.startsWith("sda3."));
    const [first, second, third] = own as [string, string, string];
    const kept = new Map(own.map((name) => [name, readFileSync(`${folder}/${name}`)]));
    const afresh = () => {
      for (const [name, bytes] of kept) writeFileSync(`${folder}/${name}`, bytes);
    };
    const refused = (...words: string[]) => refusesThird(t, folder, disk, at, words);
    rmSync(`${folder}/${second}`);
    refused(second);
    afresh();
    rmSync(`${folder}/${first}`);
    refused(first);
    afresh();
    rmSync(`${folder}/${own.at(-1)!}`);
    refused(`${own.length - 1} parts`, own.at(-2)!);
    afresh();
    truncateSync(`${folder}/${second}`, 1000);
    refused(`${second} has 1000 bytes, where others have 5000`);
    afresh();
    renameSync(`${folder}/${third}`, path("third"));
    renameSync(`${folder}/${second}`, `${folder}/${third}`);
    renameSync(path("third"), `${folder}/${second}`);
    refused(first, "damaged");
    afresh();
    isDisk(t, { path: folder }, disk, MiB);
  }
});

test("compressions that Spindle doesn't read are refused by name, and a name that promises another is damage", (t) => {
  if (!needs(t)) return;
  const path = testFolder(t);
  const { folder, disk, places } = save(path, { script: mbr, saved: { sda1: "dd" }, packed: "xz" });
  const at = places.get("sda3")!.position;
  for (const [end, ...words] of [
    ["lzo", "lzop", "lzop -dc"],
    ["lrz", "lrzip", "lrzip"],
  ] as const) {
    writeFileSync(`${folder}/sda3.ext4-ptcl-img.${end}.aa`, "packed");
    refusesThird(t, folder, disk, at, [`sda3.ext4-ptcl-img.${end}.*`, ...words]);
    rmSync(`${folder}/sda3.ext4-ptcl-img.${end}.aa`);
  }
  // Older versions tell the compression nowhere; its own bytes do.
  writeFileSync(`${folder}/sda3.dd-img.aa`, Buffer.concat([Buffer.of(0x02, 0x21, 0x4c, 0x18), Buffer.alloc(99)]));
  refusesThird(t, folder, disk, at, [`${folder}/sda3.dd-img.aa`, "compressed with lz4"]);
  rmSync(`${folder}/sda3.dd-img.aa`);
  writeFileSync(`${folder}/sda3.dd-ptcl-img.gz`, "not packed at all");
  refusesThird(t, folder, disk, at, ["sda3.dd-ptcl-img.gz", "gzip"]);
});

test("a partition that begins like a compressed file is left as it is where its name says that it isn't packed", (t) => {
  if (!needs(t)) return;
  const path = testFolder(t);
  const { folder, disk, places } = save(path, { script: mbr, saved: {} });
  const { position, size } = places.get("sda3")!;
  const bytes = Buffer.alloc(size, 3);
  execFileSync("gzip", { input: "hello" }).copy(bytes);
  pieces((name, part) => writeFileSync(`${folder}/${name}`, part), "sda3.dd-ptcl-img.uncomp", bytes, MiB);
  bytes.copy(disk, position);
  isDisk(t, { path: folder }, disk, MiB);
});

test("a partition that LVM had is refused in words, and its volumes are images of their own", (t) => {
  if (!needs(t)) return;
  const path = testFolder(t);
  const { folder, disk, places } = save(path, { script: mbr, saved: { sda1: "partclone", sda3: "dd" }, packed: "zst" });
  const { position, size } = places.get("sda3")!;
  const volume = disk.subarray(position, position + size);
  renameSync(`${folder}/sda3.dd-ptcl-img.zst`, `${folder}/vg_one-root.dd-ptcl-img.zst`);
  writeFileSync(`${folder}/lvm_vg_dev.list`, "vg_one /dev/sda3 qdlt6U-M4bo-xExy-XG9Q-U7pg-bOXN-n54i5Y\n");
  writeFileSync(`${folder}/lvm_logv.list`, "/dev/vg_one/root Linux rev 1.0 ext4 filesystem data\n");
  refusesThird(t, folder, disk, position, ["sda3", "vg_one", "--disk", "vg_one-root"]);
  isDisk(t, { path: folder, disk: "vg_one-root" }, volume, MiB);
  isRefused(t, "usage", { path: folder, disk: "root" }, "no disk or partition root", "vg_one-root");
  // The physical volume may be a whole disk.
  rmSync(`${folder}/sda-pt.sf`);
  writeFileSync(`${folder}/parts`, "sda\n");
  isRefused(t, "usage", { path: folder }, "vg_one-root with --disk NAME");
});

test("a partition that LUKS had is refused in words, and what was in it is an image of its own", (t) => {
  if (!needs(t)) return;
  const path = testFolder(t);
  const { folder, disk, places } = save(path, { script: mbr, saved: { sda1: "partclone", sda3: "dd" }, packed: "zst" });
  const { position, size } = places.get("sda3")!;
  const within = "luks-9f36038f-7cb9-4058-9811-923af5ec3b38";
  renameSync(`${folder}/sda3.dd-ptcl-img.zst`, `${folder}/${within}.dd-ptcl-img.zst`);
  writeFileSync(`${folder}/sda3-luksHeader.bin`, "LUKS");
  const list = `# <Block device> <UUID> <Device mapped name>\n/dev/sda3 9f36038f-7cb9-4058-9811-923af5ec3b38 ${within}\n`;
  writeFileSync(`${folder}/luks-dev.list`, list);
  refusesThird(t, folder, disk, position, ["sda3", "LUKS", "--disk", within]);
  isDisk(t, { path: folder, disk: within }, disk.subarray(position, position + size), 1 << 20);
});

test("pieces go on behind yz, and may have more letters from the start", (t) => {
  const two = [...Array(26 * 25).keys()].map((number) => letters(number, 2));
  for (const ends of [
    [...two, "zaaa", "zaab"],
    ["aaa", "aab", "aac"],
    ["aaaa", "aaab", "aaac"],
  ]) {
    const names = ends.map((end) => `sda1.ext4-ptcl-img.zst.${end}`);
    const others = ["parts", "sda1.info", "sda10.ext4-ptcl-img.gz.aa", "sda-pt.sf"];
    const found = piecesOf("/img", "sda1", [...others, ...names].sort())!;
    t.deepEqual(found, { files: names, name: "sda1.ext4-ptcl-img.zst", byPartclone: true, packing: "zstd" });
    const lacking = [...names];
    const [gone] = lacking.splice(1, 1);
    t.throws(() => piecesOf("/img", "sda1", lacking), { message: new RegExp(`not ${gone}`) });
  }
});

const letters = (number: number, width: number): string =>
  width === 0 ? "" : letters(Math.floor(number / 26), width - 1) + String.fromCharCode(97 + (number % 26));

test("a GPT that an old sfdisk didn't know is read from the disk's first sectors", (t) => {
  if (!needs(t)) return;
  const path = testFolder(t);
  const saved = { sda1: "partclone", sda2: "old partclone" } as const;
  const { folder, disk } = save(path, { script: gpt, saved, packed: "gz", piece: 400_000 });
  const dump = readFileSync(`${folder}/sda-pt.sf`, "utf8");
  const protective = `# partition table of /dev/sda
unit: sectors

/dev/sda1 : start=        1, size=4294967295, Id=ee
/dev/sda2 : start=        0, size=        0, Id= 0
/dev/sda3 : start=        0, size=        0, Id= 0
/dev/sda4 : start=        0, size=        0, Id= 0
`;
  writeFileSync(`${folder}/sda-pt.sf`, protective);
  isDisk(t, { path: folder }, disk, MiB);
  writeFileSync(path("again"), wholeDisk({ path: folder }));
  t.is(sfdisk(path("again")).replaceAll(path("again"), "/dev/sda"), dump);
  writeFileSync(`${folder}/sda-gpt-1st`, Buffer.alloc(17408));
  isRefused(t, "corrupt", { path: folder }, folder, "sda-gpt-1st", "--disk");
  rmSync(`${folder}/sda-gpt-1st`);
  isRefused(t, "missing", { path: folder }, folder, "sda-gpt-1st");
});

test("a folder that Clonezilla encrypted is refused in words", (t) => {
  const path = testFolder(t);
  for (const name of ["ecryptfs.info", "gocryptfs.info"]) {
    writeFileSync(path(name), 'disk_of_img="sda"\n');
    isRefused(t, "unsupported", { path: path(".") }, name, "encrypted", "ocs-decrypt-img");
    rmSync(path(name));
  }
});
