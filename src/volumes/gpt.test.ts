import { readFileSync, statSync, truncateSync } from "node:fs";
import { crc32 } from "node:zlib";
import test from "ava";
import { gptTypes } from "./gpt-types.js";
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
  writeAt,
} from "./table-test-tools.js";

const MiB = 1024 * 1024;

const script = `label: gpt
1 : start=2048, size=4096, type=U, name="EFI system"
3 : start=40000, size=1, name="čšž 🎈", attrs="LegacyBIOSBootable"
7 : start=8192, size=2000, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F
`;

test("gaps, disorder, names and attributes: as sfdisk reads them", (t) => {
  if (!has(t, "sfdisk")) return;
  const path = emptyDisk(t, 64 * MiB);
  partition(path, script);
  const table = volumesOf(path);
  const expected = sfdiskRows(path);
  t.is(expected.rows.length, 3);
  t.deepEqual(ourRows(table), expected.rows);
  t.is(table.id, expected.id);
  t.is(table.scheme, "gpt");
  t.deepEqual(table.warnings, []);
  t.deepEqual(
    table.volumes.map((volume) => volume.type),
    ["EFI System", "Linux filesystem", "Linux swap"],
  );
});

test("a table made by sgdisk reads as sgdisk tells", (t) => {
  if (!has(t, "sgdisk")) return;
  const path = emptyDisk(t, 64 * MiB);
  run("sgdisk", [
    "--resize-table=256",
    "-n",
    "200:5000:5999",
    "-c",
    "200:last",
    "-n",
    "2:9000:+1M",
    "-t",
    "2:8e00",
    path,
  ]);
  const table = volumesOf(path);
  t.deepEqual(
    table.volumes.map(({ number }) => number),
    [2, 200],
  );
  for (const { number, position, size, id, typeCode, label } of table.volumes) {
    const told = run("sgdisk", ["-i", String(number), path]);
    const value = (name: string) => new RegExp(`${name}: '?([^\\s']*)`).exec(told)?.[1] ?? "";
    t.is(position / 512, Number(value("First sector")));
    t.is(size / 512, Number(value("Partition size")));
    t.is(id, value("Partition unique GUID").toLowerCase());
    t.is(typeCode, value("Partition GUID code").toLowerCase());
    t.is(label, value("Partition name"));
  }
  t.deepEqual(table.warnings, []);
});

test("4096-byte sectors are found with and without a hint, by primary and by backup", (t) => {
  if (!has(t, "fdisk")) return;
  const path = emptyDisk(t, 64 * MiB);
  partition(path, 'label: gpt\n1 : start=256,size=512,name="one"\n4 : start=1024,size=999,name="four"\n', 4096);
  const listed = run("fdisk", ["-b", "4096", "-l", "-o", "Device,Start,Sectors,UUID,Name", path]);
  const expected = [...listed.matchAll(/^\S+disk(\d+)\s+(\d+)\s+(\d+)\s+(\S+)\s+(\S+)$/gm)].map((row) => row.slice(1));
  t.is(expected.length, 2);
  const rows = () =>
    [undefined, 512, 4096].map((hint) =>
      volumesOf(path, hint).volumes.map((volume) => [
        String(volume.number),
        String(volume.position / 4096),
        String(volume.size / 4096),
        volume.id.toUpperCase(),
        volume.label,
      ]),
    );
  t.deepEqual(rows(), [expected, expected, expected]);
  t.deepEqual(volumesOf(path).warnings, []);
  t.is(volumesOf(path).sectorSize, 4096);
  t.regex(volumesOf(path, 512).warnings.join(), /counts in sectors of 4096 bytes/);
  writeAt(path, 4096, Buffer.alloc(512));
  t.deepEqual(rows(), [expected, expected, expected]);
  t.regex(volumesOf(path).warnings.join(), /the backup at sector 16383 .* is sound and used/);
});

test("the backup is used, with a warning, when the primary's header or entries are damaged", (t) => {
  if (!has(t, "sfdisk")) return;
  const path = emptyDisk(t, 64 * MiB);
  partition(path, script);
  const { rows } = sfdiskRows(path);
  const damages: [number, RegExp][] = [
    [512, /primary GPT at sector 1 \(byte 512\) has no signature/],
    [512 + 57, /primary GPT .* has a wrong header checksum/],
    [1024 + 40, /primary GPT has entries at sector 2 \(byte 1024\) whose checksum is wrong/],
  ];
  for (const [position, said] of damages) {
    const before = readFileSync(path).subarray(position, position + 1);
    writeAt(path, position, Buffer.from([before[0]! ^ 0xff]));
    const table = volumesOf(path);
    t.deepEqual(ourRows(table), rows);
    t.regex(table.warnings.join("\n"), said);
    t.regex(table.warnings.join("\n"), /the backup at sector 131071 \(byte 67108352\) is sound and used/);
    // An independent reader falls back to it too.
    t.deepEqual(sfdiskRows(path).rows, rows);
    writeAt(path, position, before);
  }
});

test("a damaged backup is told, and the primary used", (t) => {
  if (!has(t, "sfdisk")) return;
  const path = emptyDisk(t, 4 * MiB);
  partition(path, "label: gpt\nstart=100,size=100\n");
  const { rows } = sfdiskRows(path);
  writeAt(path, 4 * MiB - 512 + 60, Buffer.from([1, 2, 3]));
  const table = volumesOf(path);
  t.deepEqual(ourRows(table), rows);
  t.regex(table.warnings.join(), /The backup GPT at sector 8191 .* wrong header checksum; the primary one is sound/);
});

test("a disk that has grown keeps its table, and its backup is found where the primary says", (t) => {
  if (!has(t, "sfdisk")) return;
  const path = emptyDisk(t, 4 * MiB);
  partition(path, "label: gpt\nstart=100,size=100\n");
  const { rows } = sfdiskRows(path);
  truncateSync(path, 9 * MiB);
  t.deepEqual(ourRows(volumesOf(path)), rows);
  t.regex(volumesOf(path).warnings.join(), /made for a disk of 8192 sectors of 512 bytes, this one has 18432/);
  writeAt(path, 1024, Buffer.from([1]));
  const table = volumesOf(path);
  t.deepEqual(ourRows(table), rows);
  t.regex(table.warnings.join(), /the backup at sector 8191 /);
});

test("a truncated disk: what starts beyond its end is left out, what goes beyond is cut", (t) => {
  if (!has(t, "sfdisk")) return;
  const path = emptyDisk(t, 64 * MiB);
  partition(path, script);
  truncateSync(path, 9000 * 512);
  const table = volumesOf(path);
  t.deepEqual(
    table.volumes.map(({ number, position, size }) => [number, position / 512, size / 512]),
    [
      [1, 2048, 4096],
      [7, 8192, 808],
    ],
  );
  t.regex(table.warnings.join("\n"), /Partition 3 is left out: it starts at sector 40000/);
  t.regex(table.warnings.join("\n"), /Partition 7 is cut to 808 of its 2000 sectors/);
});

test("both copies damaged: entries that can be right are shown, or none, and it is said", (t) => {
  if (!has(t, "sfdisk")) return;
  const bytes = partitioned(t, 4 * MiB, "label: gpt\n1 : start=100,size=100\n2 : start=300,size=100\n");
  bytes.fill(0, bytes.length - 512);
  bytes[1024 + 128 + 60] = 0x41; // the name of partition 2
  bytes[1024 + 32 + 5] = 0x7f; // the first sector of partition 1
  const table = volumesIn(bytes);
  t.is(table.scheme, "gpt");
  t.deepEqual(
    table.volumes.map(({ number, position }) => [number, position]),
    [[2, 300 * 512]],
  );
  t.regex(table.warnings.join("\n"), /some of them may be wrong/);

  bytes.fill(0, 512, 1024);
  const none = volumesIn(bytes);
  t.deepEqual([none.scheme, none.volumes.length], ["gpt", 0]);
  t.regex(none.warnings.join("\n"), /The disk's partitions can't be told/);
});

test("a hybrid MBR is read by its GPT", (t) => {
  if (!has(t, "sgdisk")) return;
  const path = emptyDisk(t, 64 * MiB);
  run("sgdisk", ["-n", "1:2048:+4M", "-n", "2:20480:+4M", path]);
  const plain = volumesOf(path);
  run("sgdisk", ["--hybrid", "2", path]);
  const hybrid = volumesOf(path);
  t.deepEqual(hybrid.volumes, plain.volumes);
  t.is(hybrid.scheme, "gpt");
  t.deepEqual(hybrid.warnings, ["The MBR is a hybrid: its other entry is left out, the GPT counts."]);
});

test("a GPT behind an MBR that doesn't announce it is left alone, as Linux does", (t) => {
  if (!has(t, "sfdisk")) return;
  const bytes = partitioned(t, 4 * MiB, "label: gpt\nstart=100,size=100\n");
  bytes[446 + 4] = 0x83;
  t.is(volumesIn(bytes).scheme, "mbr");
});

test("a first sector of zeros before a sound primary GPT is told; the backup alone is not believed", (t) => {
  if (!has(t, "sfdisk")) return;
  const bytes = partitioned(t, 4 * MiB, "label: gpt\nstart=100,size=100\n");
  bytes.fill(0, 0, 512);
  const table = volumesIn(bytes);
  t.is(table.volumes.length, 1);
  t.regex(table.warnings.join(), /protective MBR is missing/);
  bytes.fill(0, 512, 1024);
  t.is(volumesIn(bytes).scheme, "none");
});

test("names of types are sfdisk's", (t) => {
  if (!has(t, "sfdisk")) return;
  const lines = run("sfdisk", ["--label", "gpt", "--list-types"]).split("\n");
  let known = 0;
  for (const line of lines) {
    const [, code, name] = /^\s*([0-9A-F-]{36})\s+(.+)$/.exec(line) ?? [];
    if (!code || !gptTypes.has(code.toLowerCase())) continue;
    known++;
    t.is(gptTypes.get(code.toLowerCase()), name, code);
  }
  t.true(known > 150);
});

/** Changes the primary header by `change`, makes its checksum right again, and takes the backup away. */
function rewritten(bytes: Buffer, change: (header: Buffer) => void): Buffer {
  const copy = Buffer.from(bytes);
  copy.fill(0, copy.length - 512);
  const header = copy.subarray(512, 1024);
  change(header);
  header.writeUInt32LE(0, 16);
  header.writeUInt32LE(crc32(header.subarray(0, Math.min(512, header.readUInt32LE(12)))), 16);
  return copy;
}

test("entries of 256 bytes are read, those of other sizes and too many are refused in words", (t) => {
  if (!has(t, "sfdisk")) return;
  const bytes = partitioned(
    t,
    4 * MiB,
    'label: gpt\n1 : start=100,size=100,name="a"\n2 : start=300,size=100,name="b"\n',
  );
  const wide = rewritten(bytes, (header) => {
    // Entry 2 moves to where an entry of 256 bytes is.
    const entries = Buffer.alloc(64 * 256);
    bytes.copy(entries, 0, 1024, 1024 + 128);
    bytes.copy(entries, 256, 1024 + 128, 1024 + 256);
    header.writeUInt32LE(64, 80);
    header.writeUInt32LE(256, 84);
    header.writeUInt32LE(crc32(entries), 88);
  });
  bytes.copy(wide, 1024 + 256, 1024 + 128, 1024 + 256);
  wide.fill(0, 1024 + 128, 1024 + 256);
  t.deepEqual(
    volumesIn(wide).volumes.map(({ number, label }) => [number, label]),
    [
      [1, "a"],
      [2, "b"],
    ],
  );

  const bad: [number, number, RegExp][] = [
    [84, 0, /entries of 0 bytes/],
    [84, 100, /entries of 100 bytes/],
    [80, 0xffffffff, /4294967295 entries of 128 bytes, which is too many/],
    [84, 0xffffff80, /128 entries of 4294967168 bytes, which is too many/],
    [12, 0xffffffff, /a header of 4294967295 bytes/],
    [12, 91, /a header of 91 bytes/],
    [24, 2, /was made for sector 2/],
    [76, 1, /has its entries at sector 4294967298, beyond the disk's end/],
  ];
  for (const [field, value, said] of bad) {
    const table = volumesIn(rewritten(bytes, (header) => header.writeUInt32LE(value, field)));
    t.deepEqual([table.scheme, table.volumes.length], ["gpt", 0], String(said));
    t.regex(table.warnings.join("\n"), said);
  }
});

test("thousands of bad entries give a few warnings", (t) => {
  if (!has(t, "sfdisk")) return;
  const bytes = partitioned(t, 8 * MiB, "label: gpt\nstart=4096,size=100\n");
  const entries = Buffer.alloc(4 * MiB, 0xff);
  entries.copy(bytes, 1024);
  const table = volumesIn(
    rewritten(bytes, (header) => {
      header.writeUInt32LE(32768, 80);
      header.writeUInt32LE(crc32(entries), 88);
    }),
  );
  t.is(table.volumes.length, 0);
  t.is(table.warnings.length, 51);
});

test("a GPT on the largest disks keeps its positions exact", (t) => {
  if (!has(t, "sgdisk")) return;
  const path = emptyDisk(t, 8 * 2 ** 40);
  run("sgdisk", ["-n", "1:2048:+1T", "-n", "2:9999998976:0", path]);
  const [, second] = volumesOf(path).volumes;
  t.is(second?.position, 9999998976 * 512);
  t.is(second!.position + second!.size, statSync(path).size - 33 * 512);
});
