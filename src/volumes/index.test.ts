import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import type { ByteSource } from "../bytes/byte-source.js";
import { corrupt } from "../errors.js";
import { readVolumes } from "./index.js";
import { emptyDisk, has, ourRows, partitioned, run, volumesIn, volumesOf } from "./table-test-tools.js";
import type { VolumeTable } from "./volume.js";

const MiB = 1024 * 1024;

test("a disk of zeros, an empty one and one shorter than a sector have no table", (t) => {
  for (const size of [0, 1, 511, 512, 1023, 1024, 1536, 70000]) {
    const table = volumesIn(Buffer.alloc(size));
    t.deepEqual(table, { scheme: "none", sectorSize: 512, id: "", volumes: [], warnings: [] });
  }
});

for (const [tool, given] of [
  ["mkfs.fat", ["-F", "12"]],
  ["mkfs.fat", ["-F", "16"]],
  ["mkfs.fat", ["-F", "32"]],
  ["mkfs.fat", ["--mbr=y"]],
  ["mkfs.ntfs", ["-F", "-q", "-f"]],
  ["mkfs.exfat", []],
  ["mkfs.ext4", ["-q", "-F"]],
] as const)
  test(`a filesystem over the whole disk isn't taken for a table: ${[tool, ...given].join(" ")}`, (t) => {
    if (!has(t, tool)) return;
    const path = emptyDisk(t, (given[1] === "16" || given[1] === "32" ? 40 : 8) * MiB);
    const made = spawnSync("sh", ["-c", `PATH=$PATH:/usr/sbin:/sbin ${tool} ${given.join(" ")} '${path}'`]);
    if (made.status !== 0) {
      t.log(`skipped: ${tool} says ${made.stderr}`);
      t.pass();
      return;
    }
    t.deepEqual([volumesOf(path).scheme, volumesOf(path).warnings], ["none", []]);
    // blkid 2.38 doesn't know exFAT's boot sector when it looks for a table, and finds an empty "dos" one in it.
    if (tool !== "mkfs.exfat" && has(t, "blkid"))
      t.is(run("blkid", ["-p", "-s", "PTTYPE", "-o", "value", path]).trim(), "");
  });

test("a sector that merely ends in 55 AA, with code where the entries would be, is no MBR", (t) => {
  const sector = Buffer.alloc(4096, 0x90);
  sector.writeUInt16LE(0xaa55, 510);
  t.is(volumesIn(sector).scheme, "none");
});

test("a sector size that can't be is told, not used", (t) => {
  for (const hint of [0, -512, 513, 1.5, Number.NaN, 2 ** 40]) {
    const table = volumesIn(Buffer.alloc(4096), hint);
    t.is(table.sectorSize, 512);
    t.is(table.warnings.length, 1);
  }
});

test("bytes that can't be read are a warning, and the rest of the table is found", (t) => {
  if (!has(t, "sfdisk")) return;
  const bytes = partitioned(t, 4 * MiB, "label: gpt\nstart=100,size=100\n");
  const damagedAt = (from: number, to: number): ByteSource => ({
    name: "a.spin",
    size: bytes.length,
    read(position, target) {
      if (position < to && position + target.length > from) throw corrupt("a.spin: chunk 0 is damaged");
      return bytes.copy(target, 0, position);
    },
  });
  t.deepEqual([readVolumes(damagedAt(0, 4 * MiB)).scheme], ["none"]);
  t.regex(readVolumes(damagedAt(0, 4 * MiB)).warnings.join(), /chunk 0 is damaged/);
  const first = readVolumes(damagedAt(0, 512));
  t.deepEqual([first.volumes.length, first.warnings.length], [1, 1]);
  const header = readVolumes(damagedAt(512, 1024));
  t.is(header.volumes.length, 1);
  t.regex(header.warnings.join("\n"), /backup .* is sound and used/);
});

function isSound(table: VolumeTable, size: number): boolean {
  const numbers = new Set(table.volumes.map((volume) => volume.number));
  return (
    numbers.size === table.volumes.length &&
    table.warnings.length <= 51 &&
    table.volumes.every(
      (volume) =>
        Number.isSafeInteger(volume.number) &&
        volume.number > 0 &&
        volume.position >= 0 &&
        volume.size > 0 &&
        volume.position + volume.size <= size,
    )
  );
}

/** A disk with an Apple partition map of four partitions: of itself, and three of 100 sectors. */
function appleMap(size: number): Buffer {
  const disk = Buffer.alloc(size);
  disk.write("ER\x02\x00", "latin1");
  for (let number = 1; number <= 4; number++) {
    const at = number * 512;
    disk.write("PM", at);
    disk.writeUInt32BE(4, at + 4);
    disk.writeUInt32BE(number === 1 ? 1 : number * 100, at + 8);
    disk.writeUInt32BE(number === 1 ? 63 : 100, at + 12);
    disk.write(number === 1 ? "Apple_partition_map" : "Apple_HFS", at + 48);
  }
  return disk;
}

test("any bytes changed in a table: no exception, no hang, every volume within the disk", (t) => {
  if (!has(t, "sfdisk")) return;
  const disks = [
    partitioned(
      t,
      MiB,
      "label: dos\n1:start=10,size=50\n2:start=100,size=900,type=5\n5:start=120,size=10\n6:start=200,size=10\n",
    ),
    partitioned(t, MiB, 'label: gpt\nfirst-lba: 34\n1:start=100,size=100,name="a"\n3:start=300,size=50\n'),
    appleMap(MiB),
  ];
  const places = [
    [0, 8],
    [446, 66],
    [512, 92],
    [1024, 384],
    [100 * 512 + 446, 66],
    [MiB - 512, 92],
  ] as const;
  const change = fc.record({
    place: fc.constantFrom(...places),
    at: fc.double({ min: 0, max: 0.999, noNaN: true }),
    value: fc.oneof(fc.constantFrom(0, 1, 5, 0x7f, 0x80, 0xee, 0xff), fc.nat(255)),
  });
  for (const disk of disks)
    fc.assert(
      fc.property(
        fc.array(change, { minLength: 1, maxLength: 12 }),
        fc.nat(disk.length),
        fc.boolean(),
        (changes, end, cut) => {
          const undo = changes.map(({ place: [from, length], at, value }) => {
            const position = from + Math.floor(at * length);
            const old = disk[position]!;
            disk[position] = value;
            return [position, old] as const;
          });
          const seen = cut ? disk.subarray(0, end) : disk;
          const sound = [undefined, 4096].every((hint) => isSound(volumesIn(seen, hint), seen.length));
          for (const [position, old] of undo.reverse()) disk[position] = old;
          return sound;
        },
      ),
      { numRuns: 1000 },
    );
  t.pass();
});

test("random records behind one another: no exception, no hang", (t) => {
  const entry = fc.tuple(
    fc.constantFrom(0x83, 5, 0x0f, 0xee),
    fc.nat(70),
    fc.oneof(fc.nat(70), fc.constant(0xffffffff)),
  );
  fc.assert(
    fc.property(fc.array(fc.array(entry, { maxLength: 4 }), { minLength: 1, maxLength: 64 }), (records) => {
      const disk = Buffer.alloc(64 * 512);
      for (const [index, entries] of records.entries()) {
        disk.writeUInt16LE(0xaa55, index * 512 + 510);
        for (const [slot, [type, first, count]] of entries.entries()) {
          const at = index * 512 + 446 + slot * 16;
          disk[at + 4] = type;
          disk.writeUInt32LE(first, at + 8);
          disk.writeUInt32LE(count, at + 12);
        }
      }
      return isSound(volumesIn(disk), disk.length);
    }),
    { numRuns: 500 },
  );
  t.pass();
});

const shared = join(repository(), "..", "shared", "images");

/** The folder of package.json, above wherever this was compiled to. */
function repository(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json"))) folder = dirname(folder);
  return folder;
}

interface SharedImage {
  /** Path below the folder, as it is stored. */
  readonly stored: string;
  readonly container: string;
  readonly partition: string;
  readonly size: number;
}

function sharedImages(t: ExecutionContext): SharedImage[] {
  if (!existsSync(join(shared, "INDEX.tsv"))) {
    t.log(`skipped: there is no folder of shared images (${shared})`);
    t.pass();
    return [];
  }
  const [head, ...rows] = readFileSync(join(shared, "INDEX.tsv"), "utf8").trimEnd().split("\n");
  const columns = head!.split("\t");
  const column = (row: string[], name: string) => row[columns.indexOf(name)] ?? "";
  return rows
    .map((line) => line.split("\t"))
    .map((row) => ({
      stored: column(row, "file"),
      container: column(row, "container"),
      partition: column(row, "partition"),
      size: Number(column(row, "raw_size")),
    }))
    .filter(({ container }) => container === "raw" || container === "raw-in-.dmg");
}

/** The first `size` bytes of a stored image. */
function unpacked(stored: string, size: number): Buffer {
  const path = join(shared, stored);
  if (!stored.endsWith(".zst")) return readFileSync(path).subarray(0, size);
  const command = 'zstd --long=27 -dc -- "$1" 2>/dev/null | head -c "$2"';
  return spawnSync("sh", ["-c", command, "sh", path, String(size)], { maxBuffer: 2 ** 30 }).stdout;
}

/** A list's type as a volume has it: an MBR's two digits, a GUID, or Apple's name. */
const typeCode = (type: string) =>
  type.length <= 2 ? `0x${type.padStart(2, "0")}` : /^[0-9A-F-]{36}$/.test(type) ? type.toLowerCase() : type;

/** Where the shared lists and this program differ, and why. */
const exceptions: Record<string, string> = {
  "qemu-iotests/grub_mbr.raw":
    "is 512 bytes long: sfdisk lists what starts beyond the disk's end, Linux and we leave it out",
};

test("the partitions of other people's raw images are those that sfdisk and mmls list", (t) => {
  const images = sharedImages(t);
  if (images.length === 0 || !has(t, "zstd")) return;
  let compared = 0;
  for (const { stored, size } of images) {
    const plain = stored.replace(/\.zst$/, "");
    const list = join(shared, `${plain}.parts.json`);
    if (!existsSync(list)) continue;
    if (size > 2 ** 30) {
      t.log(`skipped: ${plain} is over 1 GiB`);
      continue;
    }
    const parts = JSON.parse(readFileSync(list, "utf8")) as {
      start: number;
      size: number;
      type: string;
      name: string;
    }[];
    const table = volumesIn(unpacked(stored, size));
    // The lists have no names of Apple's partition map: they come from mmls, which tells none.
    const named = table.scheme !== "apm";
    const ours = ourRows(table).map(({ start, size, type, name }) => ({ start, size, type, name: named ? name : "" }));
    const theirs = parts.map((part) => ({
      start: part.start,
      size: part.size,
      type: typeCode(part.type),
      name: part.name,
    }));
    const exception = exceptions[plain];
    if (exception) {
      t.log(`${plain} differs, as expected: it ${exception}`);
      t.deepEqual(ours, [], plain);
    } else {
      t.deepEqual(ours, theirs, plain);
      compared++;
    }
  }
  t.log(`${compared} images agree`);
  t.true(compared >= 8);
});

test("other people's unpartitioned images have no table", (t) => {
  const images = sharedImages(t).filter(({ partition }) => partition === "none");
  if (images.length === 0 || !has(t, "zstd")) return;
  // LILO's boot code and an empty table before an ext2: sfdisk and blkid too call it a table without entries.
  const emptyTables = ["e2fsprogs/f_dup_de.img.zst"];
  for (const { stored } of images) {
    const table = volumesIn(unpacked(stored, 131072));
    t.deepEqual([table.scheme, table.volumes.length], [emptyTables.includes(stored) ? "mbr" : "none", 0], stored);
  }
  t.log(`${images.length} images agree`);
});

test("the folder of shared images is where this looks for it, or isn't there", (t) => {
  t.true(!existsSync(shared) || readdirSync(shared).includes("INDEX.tsv"));
});
