/** Disks packed by other programs, read at any position. */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import test from "ava";
import { readFully } from "../bytes/byte-source.js";
import { type OpenedLayers, openLayers } from "../chain.js";
import { ImageError } from "../errors.js";
import { expectedDisk, partcloneImage } from "../images/partclone/writer-test-tools.js";
import { isDisk, isRefused, needsQemu, opened, qemuImg, qemuIo, shuffledWrites } from "../images/qemu-test-tools.js";
import { openFiles } from "../open.js";
import { disk, noise, packingFolder, packs, words } from "./packed-test-tools.js";

const MiB = 1 << 20;

/** What the packed file is called, and how it is made from `disk`. */
const variants: readonly (readonly [string, string])[] = [
  ["gzip", "gzip -c disk > packed"],
  ["gzip -1, with a comment and a name", "gzip -1 < disk > packed"],
  ["pigz", "pigz -c disk > packed"],
  ["pigz -i: independent blocks", "pigz -ic disk > packed"],
  ["7-Zip's gzip, whose blocks are long", "7zz a -tgzip -mx=7 -bd packed.gz disk && mv packed.gz packed"],
  [
    "gzip of no level: stored blocks",
    'python3 -c \'import gzip; open("packed","wb").write(gzip.compress(open("disk","rb").read(), 0))\'',
  ],
  [
    "gzip of three members, cut within the zeros",
    "(head -c 1000001 disk | gzip; tail -c +1000002 disk | head -c 1500000 | gzip -9; tail -c +2500002 disk | gzip -1) > packed",
  ],
  ["gzip with zeros behind it", "(gzip -c disk; head -c 70000 /dev/zero) > packed"],
  ["gzip with an empty member in front and at the end", "(gzip < /dev/null; gzip -c disk; gzip < /dev/null) > packed"],
  ["BGZF", "bgzip -c disk > packed"],
  ["BGZF, then gzip", "(head -c 3000000 disk | bgzip -c; tail -c +3000001 disk | gzip) > packed"],
  ["bzip2", "bzip2 -c disk > packed"],
  ["bzip2 -1: small blocks", "bzip2 -1 -c disk > packed"],
  ["lbzip2: a stream a block", "lbzip2 -c disk > packed"],
  ["bzip2 of two streams", "(head -c 2000003 disk | bzip2 -2; tail -c +2000004 disk | bzip2 -9) > packed"],
  ["xz of one block", "xz -1 -c disk > packed"],
  ["xz of many blocks", "xz -1 -T2 --block-size=700000 -c disk > packed"],
  ["xz with SHA-256 and a filter", "xz --x86 --lzma2=preset=1 --check=sha256 --block-size=2MiB -c disk > packed"],
  ["xz without check", "xz -1 --check=none --block-size=2MiB -c disk > packed"],
  [
    "xz of two streams with padding",
    "(head -c 3000000 disk | xz -1; head -c 8 /dev/zero; tail -c +3000001 disk | xz -1 --check=crc32; head -c 4 /dev/zero) > packed",
  ],
  ["zstd of a file", "zstd -qc disk > packed"],
  ["zstd of a pipe: no size is told", "cat disk | zstd -qc > packed"],
  ["zstd without checksum", "zstd --no-check -qc disk > packed"],
  [
    "zstd of three frames",
    "(head -c 1000000 disk | zstd -qc; tail -c +1000001 disk | head -c 2200000 | zstd -qc; tail -c +3200001 disk > rest; zstd -qc rest) > packed",
  ],
  [
    "zstd that tells the size of the data, and not that of the zeros behind it",
    "head -c 1300000 disk > a; tail -c +3600001 disk > b; (zstd -qc a; head -c 2300000 /dev/zero | zstd -qc; zstd -qc b) > packed",
  ],
  ["pzstd: frames without sizes", "pzstd -q -1 -c disk > packed"],
  ["lz4", "lz4 -qc disk > packed"],
  ["lz4 -9 of a pipe, in blocks of 64 KiB with checksums", "cat disk | lz4 -9 -qc -B4 -BX > packed"],
  ["lz4 of blocks that refer to each other", "lz4 -qc -BD -B5 disk > packed"],
  ["lz4 that tells its size, without check", "lz4 -qc -B6 --content-size --no-frame-crc disk > packed"],
  [
    "lz4 of two frames and one to skip",
    "(head -c 1500001 disk | lz4 -qc; printf '\\x50\\x2a\\x4d\\x18\\x03\\0\\0\\0abc'; tail -c +1500002 disk | lz4 -qc -BD) > packed",
  ],
  ["zip", "zip -q packed.zip disk && mv packed.zip packed"],
  ["zip from a pipe, with its sizes behind the content", "cat disk | zip -q packed.zip - && mv packed.zip packed"],
  ["zip that isn't packed", "zip -q -0 packed.zip disk && mv packed.zip packed"],
  ["zip with bzip2", "7zz a -tzip -mm=bzip2 -bd packed.zip disk && mv packed.zip packed"],
  ["zip with xz", "7zz a -tzip -mm=xz -mx=1 -bd packed.zip disk && mv packed.zip packed"],
  [
    "zip in zip64",
    'python3 -c \'import zipfile; f = zipfile.ZipFile("packed", "w", zipfile.ZIP_DEFLATED); f.open(zipfile.ZipInfo("disk"), "w", force_zip64=True).write(open("disk","rb").read()); f.close()\'',
  ],
  [
    "zip with a folder and two small texts beside the disk",
    "mkdir -p d; cp disk d; echo hello > d/README; echo 1 > d/sum; zip -qr packed.zip d && mv packed.zip packed",
  ],
];

for (const [name, command] of variants)
  test(`${name}: all of the disk, and any part of it, is as it was; the second time too`, (t) => {
    const path = packingFolder(t);
    if (!packs(t, path, command)) return;
    isDisk(t, { path: path("packed") }, disk, MiB);
    // What was found out then is there now.
    opened({ path: path("packed") }, (image) => {
      const bytes = Buffer.alloc(disk.length);
      t.is(readFully(image.disk, 0, bytes), disk.length);
      t.true(bytes.equals(disk));
      const { integrity } = image.wrappings[0]![0]!;
      t.is(image.layers[0]!.format, "raw");
      t.is(integrity !== undefined, !/without check/.test(name));
      for (let piece = 0; piece < (integrity?.pieces ?? 0); piece++)
        t.deepEqual(integrity!.check(piece).damages, [], `piece ${piece}`);
    });
  });

test("zeros on both sides of where lz4 frames meet don't make sound frames damaged ones", (t) => {
  // Of each frame one block of 64 KiB isn't zeros: who begins there goes on to the frame's end.
  const part = Buffer.concat([Buffer.alloc(270_000), noise(50_000), Buffer.alloc(300_000)]);
  const path = packingFolder(t, part);
  if (!packs(t, path, "lz4 -qc -B4 -BI disk > one; cat one one one > packed; lz4 -tq packed")) return;
  opened({ path: path("packed") }, ({ disk: found, wrappings }) => {
    t.is(found.size, 3 * part.length);
    const { pieces, check } = wrappings[0]![0]!.integrity!;
    for (let piece = 0; piece < pieces; piece++) t.deepEqual(check(piece).damages, [], `piece ${piece}`);
  });
});

test("a run of zeros in a gzip disk is a hole, and takes no room where it is restored", (t) => {
  const path = packingFolder(t);
  if (!packs(t, path, "gzip -k disk")) return;
  opened({ path: path("disk.gz") }, ({ disk: found }) => {
    const middle = 1_300_000 + 1_000_000;
    const extent = found.extentAt(middle);
    t.true(extent.hole);
    t.true(extent.length > 500_000);
    t.false(found.extentAt(1000).hole);
    t.true(found.dataBytes(0, disk.length) < disk.length - 900_000);
  });
});

for (const format of ["qcow2", "vpc", "vmdk", "vdi"])
  test(`an image within a packed file is opened as what it is: ${format}`, (t) => {
    if (!needsQemu(t)) return;
    const path = packingFolder(t, Buffer.alloc(0));
    const subformat = format === "vpc" ? ["-o", "subformat=fixed"] : [];
    qemuImg("create", "-q", "-f", format, ...subformat, path("image"), `${6 * MiB}`);
    qemuIo(path("image"), format, shuffledWrites(5, 6 * MiB, 20));
    qemuImg("convert", "-f", format, "-O", "raw", path("image"), path("raw"));
    for (const command of [
      "gzip -c image > packed",
      "bzip2 -c image > packed",
      "zstd -qc image > packed",
      "zip -q packed.zip image && mv packed.zip packed",
    ]) {
      if (!packs(t, path, command)) return;
      isDisk(t, { path: path("packed") }, readFileSync(path("raw")));
      opened({ path: path("packed") }, ({ layers, wrappings }) => {
        t.is(layers[0]!.format, format === "vpc" ? "vhd" : format);
        t.is(typeof wrappings[0]![0]!.facts.compression, "string");
      });
    }
  });

test("a packed parent serves its child", (t) => {
  if (!needsQemu(t)) return;
  const path = packingFolder(t, words(3 * MiB));
  qemuImg("convert", "-f", "raw", "-O", "qcow2", path("disk"), path("base"));
  qemuImg("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", path("top"));
  qemuIo(path("top"), "qcow2", ["write -P 5 1M 100k"]);
  if (!packs(t, path, "gzip base && mv base.gz base")) return;
  const expected = Buffer.from(readFileSync(path("disk")));
  expected.fill(5, MiB, MiB + 100 * 1024);
  isDisk(t, { path: path("top") }, expected);
});

test("the disk in a packed archive is found", (t) => {
  const path = packingFolder(t);
  if (packs(t, path, "tar czf disk.tar.gz disk")) isDisk(t, { path: path("disk.tar.gz") }, disk);
});

test("a file that is packed twice and a zip of several files are refused by name", (t) => {
  const path = packingFolder(t);
  if (packs(t, path, "gzip -c disk | bzip2 -c > twice"))
    isRefused(t, "unsupported", { path: path("twice") }, path("twice"), "once more", "gzip");
  if (
    !packs(
      t,
      path,
      "cp disk other; zip -q two.zip disk other; zip -q -e -P secret locked.zip disk; zip -q none.zip -r . -i nothing || true",
    )
  )
    return;
  isRefused(t, "unsupported", { path: path("two.zip") }, path("two.zip"), "2 files", "other");
  isRefused(t, "unsupported", { path: path("locked.zip") }, path("locked.zip"), "encrypted");
});

test("what is named as raw is taken as it is, and so is a packed file's own content", (t) => {
  const path = packingFolder(t);
  if (!packs(t, path, "gzip -k disk")) return;
  isDisk(t, { path: path("disk.gz"), format: "raw" }, readFileSync(path("disk.gz")));
});

test("an empty file and the shortest ones are packed disks too", (t) => {
  for (const length of [0, 1, 511]) {
    const path = packingFolder(t, words(1000).subarray(0, length));
    for (const command of [
      "gzip -c disk > packed",
      "bzip2 -c disk > packed",
      "xz -c disk > packed",
      "zstd -qc disk > packed",
      "zip -q packed.zip disk && mv packed.zip packed",
    ])
      if (packs(t, path, command))
        opened({ path: path("packed") }, ({ disk: found }) => {
          const bytes = Buffer.alloc(1000);
          t.is(readFully(found, 0, bytes), length);
          t.true(bytes.subarray(0, length).equals(words(1000).subarray(0, length)));
        });
  }
});

test("files of a packed disk are read while it is still gone through, also where its size isn't known yet", (t) => {
  const path = packingFolder(t, Buffer.alloc(0));
  writeFileSync(path("tree-file"), words(5 * MiB, 3));
  if (!packs(t, path, "mkdir tree; mv tree-file tree/file; mke2fs -q -t ext4 -d tree image 16m")) return;
  if (!packs(t, path, "bzip2 -1 image")) return;
  const files = openFiles({ path: path("image.bz2") });
  t.teardown(() => files.close());
  const file = files.tree.lookup(files.tree.root, Buffer.from("file"))!;
  const bytes = Buffer.alloc(5 * MiB);
  const source = {
    name: "file",
    size: bytes.length,
    read: (at: number, to: Uint8Array) => files.tree.read(file, at, to),
  };
  readFully(source, 0, bytes);
  t.true(bytes.equals(words(5 * MiB, 3)));
});

test("two processes at one packed file share what they find out, and both are right", async (t) => {
  const path = packingFolder(t);
  if (!packs(t, path, "bzip2 -1 -k disk")) return;
  const program = `
    import { openLayers } from ${JSON.stringify(new URL("../chain.js", import.meta.url).href)};
    import { readFully } from ${JSON.stringify(new URL("../bytes/byte-source.js", import.meta.url).href)};
    import { createHash } from "node:crypto";
    const image = openLayers({ path: ${JSON.stringify(path("disk.bz2"))} });
    const bytes = Buffer.alloc(image.disk.size);
    readFully(image.disk, 0, bytes);
    console.log(createHash("sha256").update(bytes).digest("hex"));
    image.close();`;
  writeFileSync(path("read.mjs"), program);
  const command = `node read.mjs & node read.mjs; wait`;
  const out = execFileSync("bash", ["-c", command], { cwd: path("."), encoding: "utf8" });
  const right = execFileSync("sha256sum", [path("disk")], { encoding: "utf8" }).split(" ")[0];
  t.deepEqual(out.trim().split("\n"), [right, right]);
});

test("what follows a gzip or bzip2 file and isn't one is left alone, and told", (t) => {
  const path = packingFolder(t);
  for (const tool of ["gzip", "bzip2"]) {
    if (!packs(t, path, `(${tool} -c disk; echo something else) > packed`)) return;
    const notes: string[] = [];
    const waiting = { note: (line: string) => notes.push(line), progress: () => ({ update() {}, stop() {} }) };
    const image = openLayers({ path: path("packed") }, undefined, { waiting });
    t.is(image.disk.size, disk.length);
    t.regex(String(image.wrappings[0]![0]!.facts.remark), /15 bytes/);
    t.true(notes.some((line) => line.includes("15 bytes")));
    image.close();
  }
});

test("an image that tells its length at its start is shown before it is unpacked to its end", (t) => {
  const blocks = 2600;
  const content = noise(blocks * 4096);
  const used = Array.from({ length: blocks }, (_, block) => block % 3 > 0);
  const spec = { version: 2, blockSize: 4096, used, disk: content } as const;
  const image = partcloneImage(spec);
  const expected = expectedDisk(spec);
  const path = packingFolder(t, image);
  const cut = "head -c 4000000 disk | bzip2 > cut; tail -c +4000001 disk | bzip2 | cat cut - > whole";
  if (!packs(t, path, `${cut}; (cat whole; echo more | bzip2) > longer`)) return;
  let early = 0;
  const within = (name: string, check: (found: OpenedLayers) => void) => {
    const found = openLayers({ path: path(name) }, undefined, { trust: "disk" });
    try {
      t.is(found.layers[0]!.format, "partclone");
      if (found.passes()[0]!.state === "under way") early++;
      const bytes = Buffer.alloc(1_000_000);
      t.is(readFully(found.disk, 0, bytes), bytes.length);
      t.true(bytes.equals(expected.subarray(0, bytes.length)), name);
      check(found);
    } finally {
      found.close();
    }
  };
  const last = Buffer.alloc(5000);
  const readLast = ({ disk: found }: OpenedLayers) => readFully(found, expected.length - last.length, last);
  within("whole", (found) => {
    t.is(readLast(found), last.length);
    t.true(last.equals(expected.subarray(-last.length)));
  });
  // Which of the two is right isn't known, and nothing but words is wrong with what was shown.
  within("longer", (found) => {
    t.is(readLast(found), last.length);
    while (found.passes()[0]!.state === "under way") execFileSync("sleep", ["0.05"]);
    t.regex(found.passes()[0]!.problem ?? "", new RegExp(`has ${image.length + 5} bytes, and not the ${image.length}`));
  });
  within("cut", (found) => {
    t.throws(() => readLast(found), {
      instanceOf: ImageError,
      code: "corrupt",
      message: /ends at byte 4000000|is cut off/,
    });
  });
  // The pass of a short one may have come to its end while it was looked at.
  t.true(early > 0);
});
