import { truncateSync } from "node:fs";
import test from "ava";
import { mbrTypes } from "./mbr-types.js";
import {
  emptyDisk,
  has,
  ourRows,
  partition,
  partitioned,
  run,
  sfdiskRows,
  volumesIn,
  volumesOf,
} from "./table-test-tools.js";

const MiB = 1024 * 1024;

const logicals = `label: dos
label-id: 0x1234abcd
1 : start=2048, size=4096, type=83, bootable
3 : start=8192, size=2048, type=82
4 : start=16384, size=40000, type=f
5 : start=18432, size=2000, type=83
6 : start=22528, size=3000, type=7
7 : start=28672, size=100, type=fd
`;

test("primary and logical partitions, gaps in the numbers: as sfdisk reads them", (t) => {
  if (!has(t, "sfdisk")) return;
  const path = emptyDisk(t, 64 * MiB);
  partition(path, logicals);
  const table = volumesOf(path);
  const expected = sfdiskRows(path);
  t.is(expected.rows.length, 6);
  t.deepEqual(ourRows(table), expected.rows);
  t.is(`0x${table.id}`, expected.id);
  t.is(table.scheme, "mbr");
  t.is(table.sectorSize, 512);
  t.deepEqual(table.warnings, []);
});

test("partition ids are what blkid gives as PARTUUID and PTUUID", (t) => {
  if (!has(t, "blkid") || !has(t, "partx")) return;
  const path = emptyDisk(t, 64 * MiB);
  partition(path, logicals);
  const table = volumesOf(path);
  const listed = run("partx", ["--show", "--noheadings", "--output", "NR,UUID", path]).trim().split("\n");
  t.deepEqual(
    table.volumes.map((volume) => `${volume.number} ${volume.id}`),
    listed.map((line) => line.trim().replace(/\s+/, " ")),
  );
  t.is(table.id, run("blkid", ["-p", "-s", "PTUUID", "-o", "value", path]).trim());
});

test("a table without a disk signature has no ids", (t) => {
  if (!has(t, "sfdisk")) return;
  const bytes = partitioned(t, 2 * MiB, "label: dos\nstart=1,size=10,type=83\n");
  bytes.writeUInt32LE(0, 440);
  const table = volumesIn(bytes);
  t.is(table.id, "");
  t.is(table.volumes[0]?.id, "");
});

test("entries out of order keep their numbers", (t) => {
  if (!has(t, "sfdisk")) return;
  const path = emptyDisk(t, 32 * MiB);
  partition(
    path,
    "label: dos\n1 : start=30000,size=100,type=83\n2 : start=2048,size=100,type=c\n4 : start=9000,size=5,type=83\n",
  );
  const table = volumesOf(path);
  t.deepEqual(ourRows(table), sfdiskRows(path).rows);
  t.deepEqual(
    table.volumes.map((volume) => volume.number),
    [1, 2, 4],
  );
});

test("logical partitions out of disk order are numbered along the chain", (t) => {
  if (!has(t, "sfdisk")) return;
  const path = emptyDisk(t, 64 * MiB);
  partition(
    path,
    "label: dos\n1 : start=2048,size=100000,type=5\n5 : start=60000,size=1000\n6 : start=8192,size=1000\n",
  );
  const table = volumesOf(path);
  t.deepEqual(ourRows(table), sfdiskRows(path).rows);
  t.deepEqual(table.warnings, []);
});

test("a table with no entries is a table", (t) => {
  if (!has(t, "sfdisk")) return;
  const path = emptyDisk(t, MiB);
  partition(path, "label: dos\n");
  t.deepEqual([volumesOf(path).scheme, volumesOf(path).volumes.length], ["mbr", 0]);
});

test("an empty extended partition is one volume", (t) => {
  if (!has(t, "sfdisk")) return;
  const path = emptyDisk(t, 8 * MiB);
  partition(path, "label: dos\n2 : start=2048,size=8000,type=5\n");
  const table = volumesOf(path);
  t.deepEqual(ourRows(table), sfdiskRows(path).rows);
  t.deepEqual(table.warnings, []);
});

test("an MBR of a disk with 4096-byte sectors counts in those, along the chain too", (t) => {
  if (!has(t, "fdisk")) return;
  const path = emptyDisk(t, 64 * MiB);
  const script =
    "label: dos\n1 : start=256,size=1000,type=83\n2 : start=2000,size=9000,type=5\n5 : start=2300,size=700\n6 : start=4000,size=50\n";
  partition(path, script, 4096);
  const table = volumesOf(path, 4096);
  const listed = run("fdisk", ["-b", "4096", "-l", "-o", "Device,Start,Sectors", path]);
  const expected = [...listed.matchAll(/^\S+disk(\d+)\s+(\d+)\s+(\d+)$/gm)].map((row) => row.slice(1).map(Number));
  t.is(expected.length, 4);
  t.deepEqual(
    table.volumes.map(({ number, position, size }) => [number, position / 4096, size / 4096]),
    expected,
  );
  t.is(table.sectorSize, 4096);
});

test("names of types are sfdisk's", (t) => {
  if (!has(t, "sfdisk")) return;
  const lines = run("sfdisk", ["--label", "dos", "--list-types"]).split("\n");
  let known = 0;
  for (const line of lines) {
    const [, code, name] = /^\s*([0-9a-f]{1,2})\s\s+(.+)$/.exec(line) ?? [];
    if (!code || !mbrTypes.has(Number.parseInt(code, 16))) continue;
    known++;
    t.is(mbrTypes.get(Number.parseInt(code, 16)), name, code);
  }
  t.true(known > 80);
});

test("a partition beyond the end is cut, one that starts there is left out, and both are told", (t) => {
  if (!has(t, "sfdisk")) return;
  const path = emptyDisk(t, 64 * MiB);
  partition(path, logicals);
  truncateSync(path, 23000 * 512);
  const table = volumesOf(path);
  t.deepEqual(
    table.volumes.map(({ number, position, size }) => [number, position / 512, size / 512]),
    [
      [1, 2048, 4096],
      [3, 8192, 2048],
      [4, 16384, 23000 - 16384],
      [5, 18432, 2000],
      [6, 22528, 23000 - 22528],
    ],
  );
  t.is(table.warnings.length, 3, table.warnings.join("\n"));
  t.regex(table.warnings[0]!, /^Partition 4 is cut to 6616 of its 40000 sectors/);
  t.regex(table.warnings[1]!, /^Partition 6 is cut to 472 of its 3000 sectors/);
  t.regex(table.warnings[2]!, /chain of logical partitions in partition 4 ends early.*beyond the disk's end/);

  truncateSync(path, 8192 * 512);
  const shorter = volumesOf(path);
  t.deepEqual(
    shorter.volumes.map((volume) => volume.number),
    [1],
  );
  t.regex(
    shorter.warnings[0]!,
    /^Partition 3 is left out: it starts at sector 8192, but the disk ends after 8192 sectors/,
  );
});

/** A record: entries as [type, first, count], and 55 AA. */
function record(...entries: [number, number, number][]): Buffer {
  const sector = Buffer.alloc(512);
  for (const [index, [type, first, count]] of entries.entries()) {
    sector[446 + index * 16 + 4] = type;
    sector.writeUInt32LE(first, 446 + index * 16 + 8);
    sector.writeUInt32LE(count, 446 + index * 16 + 12);
  }
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}

/** A disk of `sectors` sectors with records at their sectors. */
function diskOf(sectors: number, records: Record<number, Buffer>): Buffer {
  const disk = Buffer.alloc(sectors * 512);
  for (const [sector, bytes] of Object.entries(records)) bytes.copy(disk, Number(sector) * 512);
  return disk;
}

test("a chain that comes back to itself ends there", (t) => {
  const disk = diskOf(1000, {
    0: record([5, 100, 800]),
    100: record([0x83, 1, 10], [5, 50, 100]),
    150: record([0x83, 1, 10], [5, 0, 100]),
  });
  const table = volumesIn(disk);
  t.deepEqual(
    table.volumes.map(({ number }) => number),
    [1, 5, 6],
  );
  t.regex(table.warnings.join("\n"), /loop/);
});

test("an extended partition that starts at the MBR itself is a loop", (t) => {
  const table = volumesIn(diskOf(1000, { 0: record([0x0f, 0, 800], [0x83, 10, 10]) }));
  t.deepEqual(
    table.volumes.map(({ number }) => number),
    [1, 2],
  );
  t.regex(table.warnings.join("\n"), /loop/);
});

test("a chain without partitions ends after a hundred records, one with too many at number 255", (t) => {
  const empty: Record<number, Buffer> = { 0: record([5, 1, 900]) };
  const full: Record<number, Buffer> = { 0: record([5, 1, 1900]) };
  for (let index = 0; index < 400; index++) {
    empty[1 + index] = record([5, index + 1, 1]);
    full[1 + index * 2] = record([0x83, 1, 1], [5, (index + 1) * 2, 2]);
  }
  t.is(volumesIn(diskOf(1000, empty)).volumes.length, 1);
  t.regex(volumesIn(diskOf(1000, empty)).warnings.join(), /100 records in a row/);
  const table = volumesIn(diskOf(2000, full));
  t.is(table.volumes.at(-1)?.number, 255);
  t.regex(table.warnings.join(), /more than 255 partitions/);
});

test("a damaged record keeps the partitions before it", (t) => {
  const disk = diskOf(1000, { 0: record([0x83, 2, 5], [5, 100, 800]), 100: record([0x83, 1, 10], [5, 50, 100]) });
  const table = volumesIn(disk);
  t.deepEqual(
    table.volumes.map(({ number }) => number),
    [1, 2, 5],
  );
  t.regex(table.warnings.join(), /record at sector 150 \(byte 76800\) doesn't end in 55 AA/);
});

test("DR-DOS's link in the first entry, OS/2's four entries and garbage in the last two are read as Linux does", (t) => {
  const disk = diskOf(1000, {
    0: record([5, 100, 800]),
    100: record([5, 50, 100], [0x83, 1, 10], [0x83, 20, 10], [0x83, 700, 900]),
    150: record([0x83, 1, 10]),
  });
  const table = volumesIn(disk);
  t.deepEqual(
    table.volumes.map(({ number, position, size }) => [number, position / 512, size / 512]),
    [
      [1, 100, 800],
      [5, 101, 10],
      [6, 120, 10],
      [7, 151, 10],
    ],
  );
});

test("two extended partitions are both followed, with numbers that go on", (t) => {
  const disk = diskOf(1000, {
    0: record([5, 100, 100], [0x85, 300, 100]),
    100: record([0x83, 1, 10]),
    300: record([0x83, 1, 10]),
  });
  t.deepEqual(
    volumesIn(disk).volumes.map(({ number, position }) => [number, position / 512]),
    [
      [1, 100],
      [2, 300],
      [5, 101],
      [6, 301],
    ],
  );
});

test("overlaps and partitions outside of their extended one are told", (t) => {
  const disk = diskOf(1000, {
    0: record([0x83, 10, 50], [0x83, 40, 10], [5, 100, 100]),
    100: record([0x83, 90, 30]),
  });
  const table = volumesIn(disk);
  t.deepEqual(
    table.volumes.map(({ number }) => number),
    [1, 2, 3, 5],
  );
  t.regex(table.warnings.join("\n"), /Partition 5 goes beyond the end of partition 3/);
  t.regex(table.warnings.join("\n"), /Partitions 1 and 2 overlap/);
});
