/** Parallels' expanding disks as QEMU and Parallels make them. */
import { readFileSync, writeFileSync } from "node:fs";
import test from "ava";
import { parallels } from "./parallels.js";
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
} from "./qemu-test-tools.js";
import { register, sha256OfDisk, sharedContainers, unpackShared } from "./shared-test-images.js";

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

test("a snapshot's file is not shown by itself; the root of a bundle is", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  for (const name of ["root.hds", "child.hds"]) qemuImg("create", "-q", "-f", "parallels", path(name), `${4 * MiB}`);
  const [root, child, none] = ["1111", "2222", "0000"].map((end) => `{00000000-0000-0000-0000-00000000${end}}`);
  const image = (guid: string, file: string) =>
    `<Image><GUID>${guid}</GUID><Type>Compressed</Type><File>${file}</File></Image>`;
  const shot = (guid: string, parent: string) => `<Shot><GUID>${guid}</GUID><ParentGUID>${parent}</ParentGUID></Shot>`;
  writeFileSync(
    path("DiskDescriptor.xml"),
    `<Parallels_disk_image><StorageData><Storage>${image(child!, "child.hds")}${image(root!, "root.hds")}</Storage></StorageData><Snapshots>${shot(root!, none!)}${shot(child!, root!)}</Snapshots></Parallels_disk_image>`,
  );
  t.is(wholeDisk({ path: path("root.hds") }).length, 4 * MiB);
  isRefused(t, "unsupported", { path: path("child.hds") }, "child.hds", root!, "snapshot");
});

test("changed bytes and cut files give refusals or other bytes, nothing else", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  qemuImg("create", "-q", "-f", "parallels", "-o", "cluster_size=64k", path("a"), `${3 * MiB}`);
  qemuIo(path("a"), "parallels", shuffledWrites(3, 3 * MiB, 4));
  survivesDamage(t, readFileSync(path("a")), (bytes) => readSome(parallels, bytes));
});

test("shared Parallels images have the recorded sha256", (t) => {
  for (const row of sharedContainers(t, "parallels"))
    opened({ path: unpackShared(t, row) }, ({ disk, layers }) => {
      t.is(layers[0]!.format, "parallels");
      t.is(disk.size, Number(row.raw_size));
      t.is(sha256OfDisk(disk), row.raw_sha256);
    });
});
