/** Parallels' expanding disks as QEMU and Parallels make them. */
import { readFileSync, renameSync, truncateSync, writeFileSync } from "node:fs";
import test from "ava";
import {
  isDisk,
  isMap,
  isRefused,
  needsQemu,
  opened,
  patched,
  qemuImg,
  qemuIo,
  qemuRaw,
  readSome,
  shuffledWrites,
  survivesDamage,
  testFolder,
  wholeDisk,
} from "../qemu-test-tools.js";
import { register } from "../shared-test-images.js";
import { parallels } from "./index.js";

register(parallels);

const MiB = 1 << 20;

for (const [options, size] of [
  ["", 10 * MiB],
  ["cluster_size=64k", 10 * MiB],
  ["cluster_size=512", 2 * MiB],
] as const)
  test(`clusters written in no order: ${options || "defaults"}`, (t) => {
    if (!needsQemu(t)) return;
    const path = testFolder(t);
    qemuImg("create", "-q", "-f", "parallels", ...(options ? ["-o", options] : []), path("a"), `${size}`);
    qemuIo(path("a"), "parallels", shuffledWrites(3, size, 12));
    isDisk(t, { path: path("a") }, qemuRaw(path("a"), "parallels", path("raw")));
    isMap(t, { path: path("a") }, "parallels");
  });

test("the older kind, with clusters of 63 sectors at any sector, in no order", (t) => {
  const path = testFolder(t);
  const cluster = 63 * 512;
  const order = [3, 0, 5, 1]; // which cluster of the disk is kept where
  const header = Buffer.alloc(2048);
  header.write("WithoutFreeSpace", "latin1");
  for (const [at, value] of [
    [16, 2],
    [28, 63],
    [32, 7],
    [36, 6 * 63 + 5],
    [40, 0xdeadbeef], // the older kind doesn't have these bytes
  ] as const)
    header.writeUInt32LE(value, at);
  const expected = Buffer.alloc((6 * 63 + 5) * 512);
  const kept = order.map((number, index) => {
    header.writeUInt32LE(4 + index * 63, 64 + number * 4);
    expected.fill(number + 1, number * cluster, (number + 1) * cluster);
    return Buffer.alloc(cluster, number + 1);
  });
  writeFileSync(path("a"), Buffer.concat([header, ...kept]));
  isDisk(t, { path: path("a") }, expected, cluster);
  if (needsQemu(t)) t.true(qemuRaw(path("a"), "parallels", path("raw")).equals(expected));
});

test("versions, sizes and maps that can't be are refused in words; an unclosed image is told", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  qemuImg("create", "-q", "-f", "parallels", path("a"), `${4 * MiB}`);
  qemuIo(path("a"), "parallels", ["write -P 1 0 4M"]);
  isRefused(t, "unsupported", { path: patched(path("a"), { 16: [3] }) }, "version 3");
  isRefused(t, "corrupt", { path: patched(path("a"), { 28: [0, 0] }) }, "byte 28");
  isRefused(t, "corrupt", { path: patched(path("a"), { 32: [1] }) }, "map of 1 entries");
  isRefused(t, "corrupt", { path: patched(path("a"), { 43: [9] }) }, "too short");
  isRefused(t, "corrupt", { path: patched(path("a"), { 64: [0, 0, 9] }) }, "cluster 0", "truncated");
  const unclosed = patched(path("a"), { 44: [0x59, 0x6e, 0x6f, 0x74] });
  t.true(wholeDisk({ path: unclosed }).equals(Buffer.alloc(4 * MiB, 1)));
  opened({ path: unclosed }, ({ layers }) => t.is(typeof layers[0]!.facts.dirty, "string"));
  const image = readFileSync(path("a"));
  for (const cut of [20, 63, 64, 66, MiB, image.length - 1]) {
    writeFileSync(path("cut"), image.subarray(0, cut));
    isRefused(t, "corrupt", { path: path("cut"), format: "parallels" }, path("cut"));
  }
});

const guids = ["1111", "2222", "3333"].map((end) => `00000000-0000-0000-0000-00000000${end}`);
const root = "00000000-0000-0000-0000-000000000000";

interface Making {
  /** Of the disk's parts, in bytes; a file for each snapshot each. */
  sizes: readonly number[];
  /** How many snapshots follow each other, the newest being the present state. */
  snapshots: number;
  plainRoot?: boolean;
  /** Where the descriptor says that the files are. */
  folder?: string;
  change?: (xml: string) => string;
}

/** A bundle of files that QEMU makes, and the disk of each snapshot as QEMU reads its files. */
function bundle(
  path: (name: string) => string,
  { sizes, snapshots, plainRoot, folder = "", change }: Making,
): Buffer[] {
  const cluster = 65536;
  const disks = Array.from({ length: snapshots }, () => Buffer.alloc(sizes.reduce((sum, size) => sum + size, 0)));
  let start = 0;
  const storages = sizes.map((size, part) => {
    let before = Buffer.alloc(size);
    const images = disks.map((disk, nth) => {
      const [name, plain] = [`part ${part} & ${nth}.hds`, nth === 0 && plainRoot === true];
      const format = plain ? "raw" : "parallels";
      qemuImg("create", "-q", "-f", format, ...(plain ? [] : ["-o", "cluster_size=64k"]), path(name), `${size}`);
      qemuIo(path(name), format, shuffledWrites(part * 10 + nth + 1, size, nth === 0 ? 12 : 4, 90_000));
      const own = qemuRaw(path(name), format, path("raw"));
      const file = readFileSync(path(name));
      for (let at = 0; at < size; at += cluster)
        if (plain || file.readUInt32LE(64 + (at / cluster) * 4) !== 0) own.copy(before, at, at, at + cluster);
      before = Buffer.from(before);
      before.copy(disk, start);
      const escaped = name.replace("&", "&amp;");
      return `<Image>\n<GUID>{${guids[nth]!.toUpperCase()}}</GUID><Type>${plain ? "Plain" : "Compressed"}</Type><File> ${folder}${escaped} </File></Image>`;
    });
    start += size;
    return `<Storage><Start>${(start - size) / 512}</Start><End>${start / 512}</End><Blocksize>128</Blocksize>${images.reverse().join("")}</Storage>`;
  });
  const shots = disks.map(
    (_, nth) =>
      `<Shot><GUID>{${guids[nth]}}</GUID><ParentGUID>{${nth === 0 ? root : guids[nth - 1]}}</ParentGUID></Shot>`,
  );
  const xml = `<?xml version="1.0"?>\n<Parallels_disk_image Version="1.0"><Disk_Parameters><Disk_size>${start / 512}</Disk_size><Padding>0</Padding><Encryption><Engine>{${root}}</Engine></Encryption></Disk_Parameters><!-- <TopGUID>x</TopGUID> --><StorageData>${storages.reverse().join("")}</StorageData><Snapshots><TopGUID>{${guids[snapshots - 1]}}</TopGUID>${shots.join("")}</Snapshots></Parallels_disk_image>`;
  writeFileSync(path("DiskDescriptor.xml"), change?.(xml) ?? xml);
  return disks;
}

for (const [what, making] of [
  ["of one file", { sizes: [3 * MiB], snapshots: 1 }],
  ["with snapshots", { sizes: [4 * MiB], snapshots: 3 }],
  ["with snapshots over a plain file", { sizes: [4 * MiB], snapshots: 2, plainRoot: true }],
  ["that is split", { sizes: [2 * MiB, MiB, 3 * MiB], snapshots: 1 }],
  ["that is split and has snapshots", { sizes: [2 * MiB, 3 * MiB], snapshots: 3 }],
  ["from elsewhere", { sizes: [2 * MiB], snapshots: 2, folder: "/Users/ann/vm.pvm/disk.hdd/" }],
] as const)
  test(`a bundle ${what} is the disk of its snapshots' files`, (t) => {
    if (!needsQemu(t)) return;
    const path = testFolder(t);
    const disks = bundle(path, making);
    const image = path("DiskDescriptor.xml");
    isDisk(t, { path: image }, disks.at(-1)!);
    // The folder is what people see as the disk.
    t.true(wholeDisk({ path: path(".") }).equals(disks.at(-1)!));
    t.true(wholeDisk({ path: path("."), snapshot: guids[0] }).equals(disks[0]!));
    for (const [nth, disk] of disks.entries()) isDisk(t, { path: image, snapshot: guids[nth] }, disk);
    opened({ path: image }, ({ layers }) => {
      const { integrity } = layers[0]!;
      t.is(
        integrity!.pieces,
        making.sizes.length * making.snapshots - ("plainRoot" in making ? making.sizes.length : 0),
      );
      for (let piece = 0; piece < integrity!.pieces; piece++) t.deepEqual(integrity!.check(piece).damages, []);
    });
  });

test("a part of a bundle is not shown by itself, but for the root of one that isn't split", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  const [first] = bundle(path, { sizes: [2 * MiB], snapshots: 2 });
  isDisk(t, { path: path("part 0 & 0.hds") }, first!);
  isRefused(
    t,
    "unsupported",
    { path: path("part 0 & 1.hds") },
    "since a Parallels snapshot",
    path("DiskDescriptor.xml"),
  );
  isRefused(t, "usage", { path: path("part 0 & 0.hds"), snapshot: guids[0] }, "open the DiskDescriptor.xml");
  isRefused(t, "usage", { path: path("DiskDescriptor.xml"), snapshot: "7" }, "no snapshot 7", guids[1]!);
  renameSync(path("part 0 & 0.hds"), path("gone"));
  isRefused(t, "missing", { path: path("DiskDescriptor.xml") }, path("DiskDescriptor.xml"), path("part 0 & 0.hds"));
  bundle(path, { sizes: [MiB, MiB], snapshots: 1 });
  isRefused(t, "unsupported", { path: path("part 1 & 0.hds") }, "one part of a split", path("DiskDescriptor.xml"));
});

test("descriptors that can't be are refused in words", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  const image = path("DiskDescriptor.xml");
  const lies: [(xml: string) => string, "corrupt" | "unsupported" | "missing", string | RegExp][] = [
    [(xml) => xml.replace("<Padding>0", "<Padding>1"), "unsupported", "padding"],
    [(xml) => xml.replace(/<Engine>\{0/, "<Engine>{1"), "unsupported", "encrypted"],
    [(xml) => xml.replace(/<Type>Compressed/, "<Type>Sparse"), "unsupported", "type Sparse"],
    [(xml) => xml.replace(/<Disk_size>\d+/, "<Disk_size>5"), "corrupt", "storages hold"],
    [(xml) => xml.replace(/<Disk_size>\d+/, "<Disk_size>-5"), "corrupt", "Disk_size is -5"],
    [(xml) => xml.replace(/<Disk_size>\d+/, "<Disk_size>99999999999999999999"), "corrupt", "Disk_size"],
    [(xml) => xml.replace(/<End>\d+/, "<End>1"), "corrupt", /storages? /],
    [(xml) => xml.replaceAll(/<Storage>.*<\/Storage>/gs, ""), "corrupt", "storages hold 0"],
    [(xml) => xml.replace(/<File>[^<]*/, "<File>  "), "missing", "without a usable name"],
    [(xml) => xml.replaceAll(/<File>[^<]*/g, "<File>/etc/passwd"), "unsupported", "not in its folder"],
    [(xml) => xml.replace(/<File>[^<]*<\/File>/, ""), "corrupt", "no File"],
    [(xml) => xml.replace(new RegExp(`<ParentGUID>\\{${root}`), `<ParentGUID>{${guids[1]}`), "corrupt", "loop"],
    [(xml) => xml.replace(/<TopGUID>\{0/g, "<TopGUID>{9"), "corrupt", "doesn't describe it"],
    [(xml) => xml.replace(/<Type>Compressed/, "<Type>Plain"), "corrupt", "plain file of changes"],
    [
      (xml) => xml.replace(/<Image>(?:(?!<Image>).)*<\/Image>(?=<\/Storage>)/s, ""),
      "corrupt",
      /more snapshots than files|names no file/,
    ],
    [(xml) => `${xml}${" ".repeat(1 << 20)}`, "corrupt", "too long"],
    // What would take for ever, were it looked through in another way.
    [(xml) => xml.replace(/<Start>0/, `<Start>${" ".repeat(900_000)}`), "corrupt", "Start"],
    [(xml) => `${"<!-- ".repeat(150_000)}${xml.slice(0, 1000)}`, "corrupt", /./],
  ];
  for (const [change, code, word] of lies) {
    bundle(path, { sizes: [MiB], snapshots: 2, change });
    isRefused(t, code, { path: image, format: "parallels" }, word);
  }
  bundle(path, { sizes: [MiB], snapshots: 2 });
  truncateSync(path("part 0 & 1.hds"), 70_000);
  isRefused(t, "corrupt", { path: path(".") }, "part 0 & 1.hds", "truncated");
  writeFileSync(path("DiskDescriptor.xml"), "<?xml?><another>".padEnd(2000));
  isRefused(t, "corrupt", { path: path(".") }, path("DiskDescriptor.xml"), "no Disk_size");
  bundle(path, { sizes: [MiB], snapshots: 2 });
  truncateSync(path("part 0 & 1.hds"), 70_000);
  isRefused(t, "corrupt", { path: image }, "part 0 & 1.hds", "truncated");
});

test("changed bytes and cut files give refusals or other bytes, nothing else", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  qemuImg("create", "-q", "-f", "parallels", "-o", "cluster_size=64k", path("a"), `${3 * MiB}`);
  qemuIo(path("a"), "parallels", shuffledWrites(3, 3 * MiB, 4));
  survivesDamage(t, readFileSync(path("a")), (bytes) => readSome(parallels, bytes));
});
