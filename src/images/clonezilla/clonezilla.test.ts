/** Folders as Clonezilla saves them: a disk that sfdisk partitioned, cut up by what Clonezilla runs, put together again. */
import { execFileSync } from "node:child_process";
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import test from "ava";
import { readFully } from "../../bytes/byte-source.js";
import { LocalChunkCache } from "../../bytes/local-cache.js";
import { openLayers, reopenLayers } from "../../chain.js";
import { ImageError } from "../../errors.js";
import { openFiles } from "../../open.js";
import { partcloneImage } from "../partclone/writer-test-tools.js";
import { isDisk, isRefused, opened, testFolder, wholeDisk } from "../qemu-test-tools.js";
import { gpt, MiB, mbr, needsSfdisk, pieces, save, sfdisk } from "./clonezilla-test-tools.js";

test("a disk with an MBR is what restoring it would give, in pieces and whole", (t) => {
  if (!needsSfdisk(t)) return;
  const saved = { sda1: "partclone", sda2: "swap", sda3: "dd" } as const;
  for (const piece of [undefined, 300_000]) {
    const path = testFolder(t);
    const { folder, disk } = save(path, { script: mbr, saved, piece });
    isDisk(t, { path: folder }, disk, 4096);
    opened({ path: folder }, ({ layers: [layer] }) => {
      t.is(layer!.name, `${folder} > sda`);
      t.like(layer!.facts, { disk: "sda", scheme: "dos" });
      t.deepEqual(
        (layer!.facts.partitions as { name: string; image: string }[]).map(({ name, image }) => [name, image]),
        [
          ["sda1", "sda1.ext4-ptcl-img.uncomp"],
          ["sda2", "swap space"],
          ["sda3", "sda3.dd-ptcl-img.uncomp"],
        ],
      );
    });
  }
});

test("logical partitions have their records again: sfdisk finds them where they were", (t) => {
  if (!needsSfdisk(t)) return;
  const path = testFolder(t);
  const script = `label: dos
label-id: 0x12345678
start=2048, size=4096, type=83
start=8192, size=24576, type=5
start=10240, size=4096, type=83
start=16384, size=6144, type=83, bootable
start=24576, size=2048, type=82
start=28672, size=2048, type=83
`;
  const { folder, places } = save(path, {
    script,
    saved: { sda1: "partclone", sda5: "dd", sda6: "partclone" },
    piece: MiB,
  });
  t.true(places.has("sda8"));
  writeFileSync(path("again"), wholeDisk({ path: folder }));
  t.is(sfdisk(path("again")).replaceAll(path("again"), "/dev/sda"), readFileSync(`${folder}/sda-pt.sf`, "utf8"));
  rmSync(`${folder}/sda2-ebr`);
  writeFileSync(path("again"), wholeDisk({ path: folder }));
  t.is(sfdisk(path("again")).replaceAll(path("again"), "/dev/sda"), readFileSync(`${folder}/sda-pt.sf`, "utf8"));
});

test("records of logical partitions find their place where partitions are close to each other, and in any order", (t) => {
  if (!needsSfdisk(t)) return;
  const path = testFolder(t);
  const { folder } = save(path, { script: mbr, saved: {} });
  const dump = `label: dos
label-id: 0x12345678
device: /dev/sda
unit: sectors
sector-size: 512

/dev/sda1 : start=        2048, size=        2048, type=83
/dev/sda2 : start=        8192, size=       16384, type=f
/dev/sda5 : start=        8255, size=        1000, type=83
/dev/sda6 : start=       12000, size=        1000, type=82, bootable
/dev/sda7 : start=        9300, size=        2699, type=7
/dev/sda8 : start=       13001, size=           1, type=83
/dev/sda9 : start=       13003, size=       11573, type=83
`;
  writeFileSync(`${folder}/sda-pt.sf`, dump);
  const record = readFileSync(`${folder}/sda-mbr`);
  record.fill(0, 446, 510);
  for (const [nth, type, start, size] of [
    [0, 0x83, 2048, 2048],
    [1, 0x0f, 8192, 16384],
  ] as const) {
    record[446 + nth * 16 + 4] = type;
    record.writeUInt32LE(start, 446 + nth * 16 + 8);
    record.writeUInt32LE(size, 446 + nth * 16 + 12);
  }
  writeFileSync(`${folder}/sda-mbr`, record);
  writeFileSync(path("again"), wholeDisk({ path: folder }));
  t.is(sfdisk(path("again")).replaceAll(path("again"), "/dev/sda"), dump);
});

test("a disk with a GPT has both copies of it, as far as Clonezilla saved them", (t) => {
  if (!needsSfdisk(t)) return;
  const path = testFolder(t);
  const { folder, disk } = save(path, { script: gpt, saved: { sda1: "old partclone", sda2: "partclone" }, piece: MiB });
  isDisk(t, { path: folder }, disk, 4096);
  writeFileSync(path("again"), wholeDisk({ path: folder }));
  t.is(sfdisk(path("again")).replaceAll(path("again"), "/dev/sda"), readFileSync(`${folder}/sda-pt.sf`, "utf8"));
  // The size is in the table as well.
  rmSync(`${folder}/sda-pt.parted`);
  isDisk(t, { path: folder }, disk, 4096);
});

test("the checksums of all partitions are verified, and damage is told by its place on the disk", (t) => {
  if (!needsSfdisk(t)) return;
  const path = testFolder(t);
  const { folder, places } = save(path, { script: gpt, saved: { sda1: "partclone", sda2: "partclone" } });
  const file = `${folder}/sda2.ext4-ptcl-img.uncomp`;
  const bytes = readFileSync(file);
  bytes[bytes.length - 3000]! ^= 1;
  writeFileSync(file, bytes);
  opened({ path: folder }, ({ layers: [layer] }) => {
    const integrity = layer!.integrity!;
    const damages = Array.from({ length: integrity.pieces }, (_, piece) => integrity.check(piece).damages).flat();
    t.is(damages.length, 1);
    const { position, size } = places.get("sda2")!;
    t.true(damages[0]!.position > position && damages[0]!.position + damages[0]!.length <= position + size);
    t.true(damages[0]!.message.includes(file));
  });
  // A partition that isn't there is damage; one that only can't be read is told.
  const whole = `${folder}/sda1.ext4-ptcl-img.uncomp`;
  renameSync(whole, `${whole}.ab`);
  writeFileSync(`${whole}.ac`, "");
  opened({ path: folder }, ({ layers: [layer] }) => {
    const integrity = layer!.integrity!;
    const damages = Array.from({ length: integrity.pieces }, (_, piece) => integrity.check(piece).damages).flat();
    const { position, size: length } = places.get("sda1")!;
    t.like(damages[0], { position, length });
    t.true(damages[0]!.message.includes(`${whole}.aa`.slice(folder.length + 1)), damages[0]!.message);
  });
  renameSync(`${whole}.ab`, `${folder}/sda1.ntfs-img`);
  rmSync(`${whole}.ac`);
  opened({ path: folder }, ({ layers: [layer] }) => t.regex(layer!.integrity!.notes!.join(), /ntfsclone/));
});

test("files are read out of a folder: ext4 in pieces", (t) => {
  if (!needsSfdisk(t)) return;
  const path = testFolder(t);
  const { folder, places } = save(path, { script: gpt, saved: {} });
  writeFileSync(path("hello"), "hello, world\n");
  const { size } = places.get("sda2")!;
  execFileSync("mke2fs", ["-q", "-F", "-t", "ext4", "-L", "rescued", path("fs"), `${size / 1024}`]);
  execFileSync("debugfs", ["-w", "-R", `write ${path("hello")} hello`, path("fs")], { stdio: "pipe" });
  const disk = readFileSync(path("fs"));
  const used = Array.from({ length: size / 1024 }, (_, n) => !disk.subarray(n * 1024, (n + 1) * 1024).every((b) => !b));
  const write = (name: string, bytes: Buffer) => writeFileSync(`${folder}/${name}`, bytes);
  pieces(write, "sda2.ext4-ptcl-img.uncomp", partcloneImage({ version: 2, blockSize: 1024, used, disk }), 100_000);
  const files = openFiles({ path: folder });
  t.teardown(() => files.close());
  const found = files.found.find(({ name }) => name === "p2")!.tree!;
  t.is(found.label, "rescued");
  const target = Buffer.alloc(100);
  const length = found.read(found.lookup(found.root, Buffer.from("hello"))!, 0, target);
  t.is(target.toString("latin1", 0, length), "hello, world\n");
});

test("of several disks and other images one is chosen", (t) => {
  if (!needsSfdisk(t)) return;
  const path = testFolder(t);
  const first = save(path, { script: mbr, saved: { sda1: "partclone" } });
  const second = save(path, { script: gpt, saved: { sdb1: "dd" } }, "sdb");
  writeFileSync(`${first.folder}/disk`, "sda sdb\n");
  const volume = { version: 1, blockSize: 512, used: [true, false, true], disk: Buffer.alloc(1536, 6) } as const;
  writeFileSync(`${first.folder}/centos-root.xfs-ptcl-img.uncomp.aa`, partcloneImage(volume));
  isRefused(t, "usage", { path: first.folder }, "2 disks (sda, sdb)", "--disk");
  isRefused(t, "usage", { path: first.folder, disk: "sdc" }, "no disk or partition sdc", "sda, sdb");
  isDisk(t, { path: first.folder, disk: "sda" }, first.disk, 4096);
  isDisk(t, { path: first.folder, disk: "sdb" }, second.disk, 4096);
  const { position, size } = first.places.get("sda1")!;
  isDisk(t, { path: first.folder, disk: "sda1" }, first.disk.subarray(position, position + size), 4096);
  isDisk(
    t,
    { path: first.folder, disk: "centos-root" },
    Buffer.concat([Buffer.alloc(512, 6), Buffer.alloc(512), Buffer.alloc(512, 6)]),
  );
  opened({ path: first.folder, disk: "sda" }, ({ layers }) =>
    t.deepEqual(layers[0]!.facts.otherImages, ["centos-root", "sdb1"]),
  );
});

test("a partition that can't be read costs no other: reading there says why, in every thread", (t) => {
  if (!needsSfdisk(t)) return;
  const path = testFolder(t);
  const saved = { sda1: "partclone", sda3: "partclone" } as const;
  const { folder, disk, places } = save(path, { script: mbr, saved, piece: 300_000 });
  const { position, size } = places.get("sda3")!;
  const refused = (...words: string[]) => {
    const image = openLayers({ path: folder });
    try {
      for (const one of [image, reopenLayers(image.data, new LocalChunkCache(0))]) {
        const error = t.throws(() => one.disk.read(position, Buffer.alloc(10)), { instanceOf: ImageError });
        for (const word of words) t.true(error?.message.includes(word), error?.message);
        const target = Buffer.alloc(position);
        t.is(readFully(one.disk, 0, target), position);
        t.true(target.equals(disk.subarray(0, position)));
        t.is(one.disk.read(position + size, Buffer.alloc(1)), 1);
      }
    } finally {
      image.close();
    }
  };
  const own = (name: string) => `${folder}/sda3.ext4-ptcl-img.uncomp.${name}`;
  renameSync(own("ab"), path("kept"));
  refused("sda3.ext4-ptcl-img.uncomp.ab");
  renameSync(path("kept"), own("ab"));
  renameSync(own("aa"), path("kept"));
  refused("sda3.ext4-ptcl-img.uncomp.aa");
  // Bytes of a compression that Spindle doesn't know must not pass for the partition.
  writeFileSync(own("aa"), Buffer.alloc(300_000, 0x5d));
  refused(own("aa"), "partclone");
  for (const name of ["aa", "ab", "ac", "ad", "ae", "af", "ag", "ah", "ai", "aj"]) rmSync(own(name), { force: true });
  writeFileSync(`${folder}/sda3.ntfs-img.aa`, "\0ntfsclone-image");
  refused("ntfsclone");
  rmSync(`${folder}/sda3.ntfs-img.aa`);
  writeFileSync(`${folder}/sda3.000`, "PaRtImAgE-VoLuMe");
  refused("partimage");
});

test("a folder that lacks its table or tells nonsense is refused in words, and one that is no image as a folder", (t) => {
  if (!needsSfdisk(t)) return;
  const path = testFolder(t);
  const { folder } = save(path, { script: mbr, saved: { sda1: "partclone" } });
  const changed = (name: string, content: string, act: () => void) => {
    const before = readFileSync(`${folder}/${name}`);
    writeFileSync(`${folder}/${name}`, content);
    act();
    writeFileSync(`${folder}/${name}`, before);
  };
  const line = "/dev/sda1 : start=2048, size=8192, type=83\n";
  changed("sda-pt.sf", `${line}/dev/sda2 : start=4096, size=9, type=83\n`, () => {
    writeFileSync(`${folder}/sda2.dd-img`, Buffer.alloc(5));
    isRefused(t, "corrupt", { path: folder }, folder, "overlap");
    rmSync(`${folder}/sda2.dd-img`);
  });
  changed("sda-pt.sf", "/dev/sda1 : start=9007199254740992, size=8192, type=83\n", () =>
    isRefused(t, "corrupt", { path: folder }, "sda-pt.sf", "no disk has"),
  );
  changed("sda-pt.sf", `sector-size: 77\n${line}`, () => isRefused(t, "corrupt", { path: folder }, "77 bytes"));
  changed("sda-pt.sf", `label: gpt\n${line}`, () => isRefused(t, "missing", { path: folder }, folder, "sda-gpt-1st"));
  changed("sda-pt.sf", `/dev/sda1 : start=2048, size=${"9".repeat(2 << 20)}\n`, () =>
    isRefused(t, "corrupt", { path: folder }, "far more"),
  );
  const many = Array.from({ length: 2000 }, (_, n) => `/dev/sda${n + 1} : start=${2048 + n}, size=1, type=83\n`);
  changed("sda-pt.sf", many.join(""), () => isRefused(t, "corrupt", { path: folder }, "1024 partitions"));
  changed("sda-pt.sf", `/dev/sda${"1".repeat(900_000)}x : start=1\n`, () =>
    isRefused(t, "corrupt", { path: folder }, "no disk has"),
  );
  rmSync(`${folder}/sda-mbr`);
  isRefused(t, "missing", { path: folder }, folder, "sda-mbr");
  rmSync(`${folder}/sda-pt.sf`);
  isRefused(t, "usage", { path: folder }, folder, "no partition table", "sda1");
  rmSync(`${folder}/parts`);
  isRefused(t, "usage", { path: folder }, "is a folder");
});
