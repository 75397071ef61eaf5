import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import test, { type ExecutionContext } from "ava";
import type { ByteSource } from "../bytes/byte-source.js";
import { corrupt } from "../errors.js";
import { readVolumes } from "./index.js";
import { emptyDisk, has, ourRows, run, sfdiskRows, volumesIn, volumesOf } from "./table-test-tools.js";
import type { VolumeTable } from "./volume.js";

const MiB = 1024 * 1024;

/** Place, size and type of each entry as `mmls -t mac` lists them; it counts from 0. */
function mmlsRows(path: string, blockSize: number) {
  const listed = run("mmls", ["-t", "mac", "-b", String(blockSize), path]);
  return [...listed.matchAll(/^\d+: {2}(\d{3}) +(\d+) +\d+ +(\d+) +(\S+)$/gm)]
    .map(([, slot, start, length, type]) => ({
      number: Number(slot) + 1,
      start: Number(start) * blockSize,
      size: Number(length) * blockSize,
      type,
    }))
    .sort((a, b) => a.number - b.number);
}

const placed = (table: VolumeTable) =>
  ourRows(table).map(({ number, start, size, type }) => ({ number, start, size, type }));

/** An optical disc of one small file, with the arguments given. */
function disc(t: ExecutionContext, tool: "xorriso" | "genisoimage", ...given: string[]): string | undefined {
  if (!has(t, tool)) return undefined;
  const path = emptyDisk(t, 0);
  mkdirSync(`${path}.tree`);
  writeFileSync(`${path}.tree/file`, "content");
  writeFileSync(`${path}.part`, Buffer.alloc(100 * 1024));
  const words = given.map((word) => word.replace("PART", `${path}.part`));
  const start = tool === "xorriso" ? ["-as", "mkisofs"] : ["-quiet"];
  execFileSync(tool, [...start, ...words, "-o", path, `${path}.tree`], { stdio: "pipe" });
  return path;
}

test("partitions, names and free space: as parted and mmls list them", (t) => {
  if (!has(t, "parted") || !has(t, "mmls")) return;
  const path = emptyDisk(t, 8 * MiB);
  const words =
    "mklabel mac mkpart alpha ext2 100s 1999s mkpart beta hfs+ 2000s 2999s mkpart gamma ext2 9000s 9000s set 2 boot on";
  run("parted", ["-s", "-a", "none", path, ...words.split(" ")]);
  const table = volumesOf(path);
  t.deepEqual([table.scheme, table.sectorSize, table.id, table.warnings], ["apm", 512, "", []]);
  const theirs = mmlsRows(path, 512);
  t.true(theirs.length >= 6);
  t.deepEqual(placed(table), theirs);
  const told = [
    ...run("parted", ["-m", "-s", path, "unit", "B", "print"]).matchAll(/^(\d+):(\d+)B:\d+B:(\d+)B:[^:]*:([^:]*):/gm),
  ];
  t.deepEqual(
    told.map(([, number, start, size, name]) => [Number(number), Number(start), Number(size), name]),
    table.volumes
      .filter(({ typeCode }) => typeCode !== "Apple_Free")
      .map(({ number, position, size, label }) => [number, position, size, label]),
  );
  t.deepEqual(
    table.volumes.map(({ type }) => type),
    ["Partition map", "New World bootstrap", "Apple HFS / HFS+", "Unix (A/UX, Linux, BSD)"].concat(
      Array(table.volumes.length - 4).fill("Free space"),
    ),
  );
});

for (const blockSize of [512, 2048])
  test(`an optical disc with a map in blocks of ${blockSize} bytes: as mmls lists it`, (t) => {
    const path = disc(t, "xorriso", "-hfsplus", "-apm-block-size", String(blockSize));
    if (!path || !has(t, "mmls")) return;
    const table = volumesOf(path);
    t.deepEqual([table.scheme, table.sectorSize, table.warnings], ["apm", blockSize, []]);
    t.deepEqual(placed(table), mmlsRows(path, blockSize));
    t.deepEqual(
      table.volumes.map(({ label }) => label),
      ["Apple", "Gap0", "HFSPLUS_Hybrid", "Gap1"],
    );
  });

test("a map in a first sector that ends as an MBR, without an entry, counts", (t) => {
  const path = disc(t, "genisoimage", "-hfs", "-part");
  if (!path || !has(t, "mmls")) return;
  t.is(readFileSync(path).readUInt16BE(510), 0x55aa);
  const table = volumesOf(path);
  t.is(table.scheme, "apm");
  t.deepEqual(placed(table), mmlsRows(path, 512));
});

for (const options of ["-part_like_isohybrid -append_partition 2 0xef PART", "--protective-msdos-label"])
  test(`the MBR of a hybrid disc counts, as with sfdisk: ${options}`, (t) => {
    const path = disc(t, "xorriso", "-hfsplus", ...options.split(" "));
    if (!path || !has(t, "sfdisk")) return;
    t.is(readFileSync(path).toString("latin1", 512, 514), "PM");
    const table = volumesOf(path);
    t.is(table.scheme, "mbr");
    t.deepEqual(ourRows(table), sfdiskRows(path).rows);
  });

interface Entry {
  readonly first: number;
  readonly count: number;
  readonly type: string;
  readonly name?: string;
  /** Of the whole map, as this entry tells; otherwise as there are. */
  readonly entries?: number;
  readonly status?: number;
}

/** A disk of 4 MiB with a map that is written here; `step` is from entry to entry, `described` is the driver descriptor's. */
function disk(entries: readonly Entry[], step = 512, described: number | undefined = step): Buffer {
  const bytes = Buffer.alloc(4 * MiB);
  if (described !== undefined) {
    bytes.write("ER");
    bytes.writeUInt16BE(described, 2);
  }
  for (const [
    index,
    { first, count, type, name = "", entries: told = entries.length, status = 0x33 },
  ] of entries.entries()) {
    const at = (index + 1) * step;
    bytes.write("PM", at);
    bytes.writeUInt32BE(told, at + 4);
    bytes.writeUInt32BE(first, at + 8);
    bytes.writeUInt32BE(count, at + 12);
    bytes.write(name, at + 16, 32, "latin1");
    bytes.write(type, at + 48, 32, "latin1");
    bytes.writeUInt32BE(status, at + 88);
  }
  return bytes;
}

const entry = (first: number, count: number, type = "Apple_HFS"): Entry => ({ first, count, type });
const map: Entry = { ...entry(1, 63, "Apple_partition_map"), name: "Apple" };
const hfs: Entry = { ...entry(64, 100), name: "caf\x8e" };
const listed = ({ volumes }: VolumeTable) =>
  volumes.map(({ number, position, size }) => [number, position / 512, size / 512]);

test("a name is Mac OS Roman, a type may fill its place, and one that has no word is shown as it is", (t) => {
  const long = "X".repeat(32);
  const { volumes, warnings } = volumesIn(
    disk([map, hfs, { ...entry(200, 1, long), name: "n".repeat(32), status: 0x3b }]),
  );
  t.deepEqual(warnings, []);
  t.deepEqual(
    volumes.map(({ label, type, bootable }) => [label, type, bootable]),
    [
      ["Apple", "Partition map", false],
      ["café", "Apple HFS / HFS+", false],
      ["n".repeat(32), long, true],
    ],
  );
});

/** Expectation: the comment in Apple's IOApplePartitionScheme.cpp. */
test("an old school disc counts in blocks of 512, but in 2048 in a driver's entry on a multiple of 2048", (t) => {
  const entries = [map, hfs, entry(200, 4, "Apple_Driver43"), entry(100, 4, "Apple_Driver43")];
  const table = volumesIn(disk(entries, 512, 2048));
  t.deepEqual([table.sectorSize, table.warnings], [512, []]);
  t.deepEqual(listed(table), [
    [1, 1, 63],
    [2, 64, 100],
    [3, 200, 4],
    [4, 400, 16],
  ]);
  t.deepEqual(listed(volumesIn(disk(entries)))[3], [4, 100, 4]);
});

test("a map without its driver descriptor, or with one that tells another block size, is used and it is said", (t) => {
  for (const [bytes, words] of [
    [disk([map, hfs], 512, 0), /is all zeros/],
    [disk([map, hfs], 512, 4096), /in blocks of 4096 bytes, the partition map in 512/],
    [disk([map, hfs], 2048, 513), /in blocks of 513 bytes, the partition map in 2048/],
  ] as const) {
    if (words.source.includes("zeros")) bytes.fill(0, 0, 512);
    const { scheme, volumes, warnings } = volumesIn(bytes);
    t.deepEqual([scheme, volumes.length, warnings.length], ["apm", 2, 1]);
    t.regex(warnings[0]!, words);
  }
  const leftover = disk([map, hfs]);
  leftover.write("some other content");
  t.is(volumesIn(leftover).scheme, "none");
  const noMap = disk([hfs, hfs]);
  noMap.fill(0, 0, 512);
  t.is(volumesIn(noMap).scheme, "none");
  t.is(volumesIn(disk([])).scheme, "none");
});

test("absurd counts, entries beyond the disk, overlaps and a missing entry: what is sound is shown, the rest is told", (t) => {
  const warned = (entries: readonly Entry[]) => {
    const table = volumesIn(disk(entries));
    return [listed(table).map(([number]) => number), table.warnings.join("\n")] as const;
  };
  const many = { ...map, entries: 0xffffffff };
  t.deepEqual(warned([many, hfs])[0], [1, 2]);
  t.regex(warned([many, hfs])[1], /there is no entry 3 of 4294967295 at byte 1536/);
  const [numbers, words] = warned(
    Array.from({ length: 300 }, (_, index) => (index === 0 ? map : entry(400 + index, 1))),
  );
  t.is(numbers.length, 255);
  t.regex(words, /tells of 300 entries, which is too many; 255 were looked at/);
  t.deepEqual(warned([map, entry(9000, 5), hfs])[0], [1, 3]);
  t.regex(warned([map, entry(9000, 5), hfs])[1], /Partition 2 is left out/);
  t.regex(warned([map, entry(8000, 500)])[1], /Partition 2 is cut to 192 of its 500/);
  t.regex(warned([map, entry(0xffffffff, 0xffffffff)])[1], /Partition 2 is left out/);
  t.regex(warned([map, hfs, entry(100, 10)])[1], /Partitions 2 and 3 overlap/);
  t.deepEqual(warned([map, entry(64, 0), hfs]), [[1, 3], ""]);
  // The map's own entry knows best how many there are.
  t.deepEqual(warned([{ ...hfs, entries: 2 }, { ...map, entries: 3 }, entry(300, 1)])[0], [1, 2, 3]);
});

test("an entry that can't be read costs no other", (t) => {
  const bytes = disk([map, hfs, entry(300, 5, "Apple_UFS")]);
  const source: ByteSource = {
    name: "a.spin",
    size: bytes.length,
    read(position, target) {
      if (position < 1536 && position + target.length > 1024) throw corrupt("a.spin: chunk 2 is damaged");
      return bytes.copy(target, 0, position);
    },
  };
  const table = readVolumes(source);
  t.deepEqual(listed(table), [
    [1, 1, 63],
    [3, 300, 5],
  ]);
  t.regex(table.warnings.join(), /Entry 2 of the partition map can't be read: .*chunk 2/);
});

test("a disk that ends within the map or within a partition is no exception", (t) => {
  const path = emptyDisk(t, 0);
  writeFileSync(path, disk([map, hfs]));
  for (const [size, count] of [
    [100 * 512, 2],
    [1536, 1],
    [1535, 1],
    [1024, 1],
    [1023, 0],
    [513, 0],
    [512, 0],
    [3, 0],
  ] as const) {
    truncateSync(path, size);
    t.is(volumesOf(path).volumes.length, count, `${size} bytes`);
  }
});
