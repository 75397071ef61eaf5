/** Damage to the tables of images without checksums: what Spindle finds, beside what `qemu-img check` finds. */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import test, { type ExecutionContext } from "ava";
import type { Damage } from "../layers/layer.js";
import { needsQemu, opened, qemuImg, qemuIo, shuffledWrites, testFolder } from "./qemu-test-tools.js";

const MiB = 1 << 20;
const size = 6 * MiB;

function damagesOf(path: string, format?: string): Damage[] {
  return opened({ path, format }, ({ layers }) => {
    const { integrity } = layers[0]!;
    const found: Damage[] = [];
    for (let piece = 0; piece < integrity!.pieces; ) {
      const report = integrity!.check(piece);
      found.push(...report.damages);
      piece += report.pieces ?? 1;
    }
    return found;
  });
}

/** Whether qemu-img finds the image damaged; what it calls leaks costs nothing but room. */
function qemuFindsDamage(path: string, format: string): boolean {
  const { status, stdout } = spawnSync("qemu-img", ["check", "-f", format, "--output=json", path], {
    encoding: "utf8",
  });
  if (status === 0 || status === 3) return false;
  if (status !== 2) return true;
  return ((JSON.parse(stdout) as { corruptions?: number }).corruptions ?? 0) > 0;
}

for (const [format, options] of [
  ["qcow2", ""],
  ["qcow2", "extended_l2=on"],
  ["qcow2", "cluster_size=512"],
  ["qcow2", "preallocation=metadata"],
  ["qcow", ""],
  ["qed", "cluster_size=4096"],
  ["vdi", ""],
  ["vdi", "static=on"],
  ["parallels", "cluster_size=64k"],
  ["vmdk", ""],
  ["vmdk", "subformat=twoGbMaxExtentSparse"],
  ["vhdx", "block_size=1M"],
  ["vhdx", "block_size=1M,subformat=fixed"],
  ["vpc", ""],
  ["vpc", "subformat=fixed"],
] as const)
  test(`the tables of a sound image are sound: ${format} ${options}`, (t) => {
    if (!needsQemu(t)) return;
    const path = testFolder(t)("a");
    qemuImg("create", "-q", "-f", format, ...(options ? ["-o", options] : []), path, `${size}`);
    qemuIo(path, format, shuffledWrites(5, size, 20));
    t.deepEqual(damagesOf(path), []);
  });

/** What is done to the image, what the damage tells, how it is done, and whether `qemu-img check` finds it too: it does unless told otherwise. */
type Case = readonly [what: string, message: RegExp, hurt: (file: Buffer) => unknown, qemu?: boolean];

/** Puts each damage into a copy of the image, and compares. */
function findsAll(t: ExecutionContext, path: string, format: string, cases: readonly Case[]): void {
  const whole = readFileSync(path);
  t.false(qemuFindsDamage(path, format));
  for (const [what, message, hurt, qemu = true] of cases) {
    const file = Buffer.from(whole);
    hurt(file);
    writeFileSync(`${path}.hurt`, file);
    const damages = damagesOf(`${path}.hurt`);
    const told = damages.map((damage) => damage.message).join("\n");
    t.regex(told, message, what);
    for (const { file: name, position, length } of damages) {
      t.is(name, `${path}.hurt`);
      t.true(position >= 0 && length > 0 && position + length <= size, `${what}: ${length} bytes at ${position}`);
    }
    t.is(qemuFindsDamage(`${path}.hurt`, format), qemu, `qemu-img: ${what}`);
  }
}

const place = (entry: bigint) => Number(entry & 0x00fffffffffffe00n);

test("qcow2: entries that lead nowhere, and places that are used twice", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t)("a");
  qemuImg("create", "-q", "-f", "qcow2", path, `${size}`);
  qemuIo(path, "qcow2", ["write -P 1 0 64k", "write -P 2 1M 128k", "write -P 3 3M 64k"]);
  const whole = readFileSync(path);
  const at = (position: number) => place(whole.readBigUInt64BE(position));
  const [l1, counts] = [at(40), at(48)];
  const l2 = at(l1);
  const cluster = at(l2);
  const entry = (file: Buffer, number: number, to: number, flags = 1n << 63n) =>
    file.writeBigUInt64BE(BigInt(to) | flags, l2 + number * 8);
  const table = (file: Buffer, to: number) => file.writeBigUInt64BE(BigInt(to) | (1n << 63n), l1);
  findsAll(t, path, "qcow2", [
    ["beyond the end", /cluster 16 .* should be at byte/, (file) => entry(file, 16, 1 << 30)],
    ["between clusters", /cluster 16 .*no multiple/, (file) => entry(file, 16, cluster + 512)],
    [
      "two in one place",
      /disk bytes 0 to 65535 and disk bytes 1048576 to 1114111 are kept in the same place, byte/,
      (file) => entry(file, 16, cluster),
    ],
    [
      "where the first table is",
      /the first-level table and disk bytes 1114112 to 1179647 are kept/,
      (file) => entry(file, 17, l1),
    ],
    [
      "where its table is",
      /the table of disk bytes 0 to \d+ and disk bytes 1114112 to 1179647 are kept/,
      (file) => entry(file, 17, l2),
    ],
    ["where the counts' table is", /the table of reference counts and disk bytes/, (file) => entry(file, 17, counts)],
    ["where counts are", /: reference counts and disk bytes/, (file) => entry(file, 17, at(counts))],
    ["a table beyond the end", /second-level table should take/, (file) => table(file, 1 << 30)],
    ["a table between clusters", /its table should be at byte .*no multiple/, (file) => table(file, l2 + 512)],
    ["a packed one that is none", /cluster 17 .*deflate/, (file) => entry(file, 17, cluster, 1n << 62n)],
    ["its own mark", /is marked as damaged/, (file) => file.writeUInt8(2, 79), false],
  ]);
  // What only writers need is no damage to a reader.
  const counted = Buffer.from(whole);
  counted.writeUInt16BE(7, at(counts) + 2 * (cluster / 65536));
  writeFileSync(`${path}.counted`, counted);
  t.deepEqual(damagesOf(`${path}.counted`), []);
});

test("qcow2: packed clusters that don't unpack are told, each with its range", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  for (const type of ["zlib", "zstd"]) {
    qemuImg("create", "-q", "-f", "raw", path("raw"), `${size}`);
    qemuIo(path("raw"), "raw", shuffledWrites(5, size, 20));
    qemuImg(
      "convert",
      "-q",
      "-c",
      "-f",
      "raw",
      "-O",
      "qcow2",
      "-o",
      `compression_type=${type}`,
      path("raw"),
      path("a"),
    );
    t.deepEqual(damagesOf(path("a")), []);
    const file = readFileSync(path("a"));
    const l2 = Number(file.readBigUInt64BE(Number(file.readBigUInt64BE(40))) & 0x00fffffffffffe00n);
    const first = [...Array(96).keys()].find((cluster) => (file[l2 + cluster * 8]! & 0x40) !== 0)!;
    const place = Number(file.readBigUInt64BE(l2 + first * 8) & ((1n << 54n) - 1n));
    file.fill(0xff, place, place + 20);
    writeFileSync(path("a"), file);
    const [damage, ...others] = damagesOf(path("a"));
    t.deepEqual([damage!.position, damage!.length, others.length], [first * 65536, 65536, 0]);
    t.regex(damage!.message, new RegExp(`cluster ${first} .*${type === "zlib" ? "deflate" : "zstd"}`));
  }
});

test("qed: entries that lead nowhere, and places that are used twice", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t)("a");
  qemuImg("create", "-q", "-f", "qed", path, `${size}`);
  qemuIo(path, "qed", ["write -P 1 0 64k", "write -P 2 1M 128k"]);
  const whole = readFileSync(path);
  const at = (position: number) => Number(whole.readBigUInt64LE(position));
  const l1 = at(40);
  const l2 = at(l1);
  const entry = (file: Buffer, number: number, to: number) => file.writeBigUInt64LE(BigInt(to), l2 + number * 8);
  findsAll(t, path, "qed", [
    ["beyond the end", /cluster 16 .* should be at byte/, (file) => entry(file, 16, 1 << 30)],
    ["between clusters", /cluster 16 .*no multiple/, (file) => entry(file, 16, at(l2) + 512)],
    ["two in one place", /kept in the same place/, (file) => entry(file, 16, at(l2))],
    ["where its table is", /the table of disk bytes 0 to 6291455 and disk bytes/, (file) => entry(file, 17, l2)],
    ["a table beyond the end", /second-level table should take/, (file) => file.writeBigUInt64LE(1n << 30n, l1)],
  ]);
});

test("VDI: blocks beyond the end and blocks in one place", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t)("a");
  qemuImg("create", "-q", "-f", "vdi", path, `${size}`);
  qemuIo(path, "vdi", ["write -P 1 0 64k", "write -P 2 2M 2M"]);
  const map = readFileSync(path).readUInt32LE(0x154);
  findsAll(t, path, "vdi", [
    ["beyond the end", /block 0 .*should be at byte/, (file) => file.writeUInt32LE(9, map)],
    ["two in one place", /disk bytes .* and disk bytes .* are kept/, (file) => file.writeUInt32LE(1, map)],
  ]);
});

test("VHD, VHDX, VMDK, qcow and Parallels: entries that lead nowhere, and places that are used twice", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  const made = (name: string, format: string, ...options: string[]) => {
    qemuImg("create", "-q", "-f", format, ...options, path(name), `${size}`);
    qemuIo(path(name), format, ["write -P 1 0 64k", "write -P 2 2M 64k", "write -P 3 4M 64k"]);
    return readFileSync(path(name));
  };
  const expect = (name: string, file: Buffer, what: string, change: (copy: Buffer) => void, message: RegExp) => {
    const copy = Buffer.from(file);
    change(copy);
    writeFileSync(path(`${name}.hurt`), copy);
    const damages = damagesOf(path(`${name}.hurt`));
    t.true(
      damages.some((damage) => message.test(damage.message)),
      `${name}, ${what}: ${JSON.stringify(damages)}`,
    );
  };
  const vhd = made("a.vhd", "vpc");
  const vhdTable = Number(vhd.readBigUInt64BE(512 + 16));
  expect("a.vhd", vhd, "beyond", (copy) => copy.writeUInt32BE(1 << 24, vhdTable), /block .*should be at byte/);
  expect(
    "a.vhd",
    vhd,
    "twice",
    (copy) => copy.copyWithin(vhdTable, vhdTable + 4, vhdTable + 8),
    /kept in the same place/,
  );
  expect("a.vhd", vhd, "the table", (copy) => copy.writeUInt32BE(0, vhdTable), /same place/);
  const vhdx = made("a.vhdx", "vhdx", "-o", "block_size=1M");
  const region = vhdx.indexOf(Buffer.from("6677c22d23f600429d64115e9bfd4a08", "hex"), 192 * 1024);
  const bat = Number(vhdx.readBigUInt64LE(region + 16));
  expect("a.vhdx", vhdx, "beyond", (copy) => copy.writeUInt16LE(99, bat + 3), /block 0 .*should be at byte/);
  expect("a.vhdx", vhdx, "twice", (copy) => copy.copyWithin(bat, bat + 16, bat + 24), /kept in the same place/);
  expect(
    "a.vhdx",
    vhdx,
    "the metadata",
    (copy) => copy.writeBigUInt64LE(BigInt(bat) + 6n, bat),
    /the block allocation table and disk bytes/,
  );
  expect("a.vhdx", vhdx, "unknown", (copy) => copy.writeUInt8(4, bat), /unknown state 4/);
  const vmdk = made("a.vmdk", "vmdk");
  const directory = Number(vmdk.readBigUInt64LE(56)) * 512;
  const table = vmdk.readUInt32LE(directory) * 512;
  expect("a.vmdk", vmdk, "beyond", (copy) => copy.writeUInt32LE(0xfffff0, table), /grain 0 .*should be at byte/);
  expect(
    "a.vmdk",
    vmdk,
    "twice",
    (copy) => copy.copyWithin(table, table + 32 * 4, table + 33 * 4),
    /kept in the same place/,
  );
  expect("a.vmdk", vmdk, "copies", (copy) => copy.writeUInt32LE(0, table), /its copy at byte \d+ differ/);
  const qcow = made("a.qcow", "qcow");
  const second = Number(qcow.readBigUInt64BE(Number(qcow.readBigUInt64BE(40))));
  expect("a.qcow", qcow, "beyond", (copy) => copy.writeUInt8(0x10, second + 1), /cluster 0 .*should be at byte/);
  expect("a.qcow", qcow, "twice", (copy) => copy.copyWithin(second, second + 8, second + 16), /kept in the same place/);
  expect(
    "a.qcow",
    qcow,
    "table",
    (copy) => copy.writeUInt8(9, Number(qcow.readBigUInt64BE(40)) + 4),
    /its table should be at byte/,
  );
  const hds = made("a.hds", "parallels", "-o", "cluster_size=64k");
  expect("a.hds", hds, "beyond", (copy) => copy.writeUInt32LE(0xffff, 64), /cluster 0 .*should be at byte/);
  expect("a.hds", hds, "twice", (copy) => copy.copyWithin(64, 64 + 32 * 4, 64 + 33 * 4), /kept in the same place/);
});

test("very many damages are listed up to a number and then summed up", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t)("a");
  qemuImg("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k,preallocation=metadata", path, `${size}`);
  const file = readFileSync(path);
  const l1 = Number(file.readBigUInt64BE(40));
  for (const table of [0, 1, 2])
    for (let nth = 0; nth < 512; nth++) {
      const l2 = Number(file.readBigUInt64BE(l1 + table * 8) & 0x00fffffffffffe00n);
      file.writeBigUInt64BE((1n << 63n) | (BigInt(nth + 1) << 40n), l2 + nth * 8);
    }
  writeFileSync(path, file);
  const damages = damagesOf(path);
  t.is(damages.length, 101);
  t.regex(damages[100]!.message, /1436 more places are damaged/);
  t.is(damages[100]!.position + damages[100]!.length, size);
});
