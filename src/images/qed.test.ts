/** QED images as QEMU makes them. */
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import test from "ava";
import { readFully } from "../bytes/byte-source.js";
import { qed } from "./qed.js";
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
import { register } from "./shared-test-images.js";

register(qed);

const MiB = 1 << 20;
const odd = 10 * MiB + 1536;

for (const options of ["", "cluster_size=4096,table_size=2", "cluster_size=1M,table_size=16"])
  test(`clusters written in no order, some zeroed: ${options || "defaults"}`, (t) => {
    if (!needsQemu(t)) return;
    const path = testFolder(t);
    qemuImg("create", "-q", "-f", "qed", ...(options ? ["-o", options] : []), path("a"), `${odd}`);
    qemuIo(path("a"), "qed", [...shuffledWrites(3, odd, 25), "write -z 1M 2M", ...shuffledWrites(4, odd, 5)]);
    isDisk(t, { path: path("a") }, qemuRaw(path("a"), "qed", path("raw")));
    isMap(t, { path: path("a") }, "qed");
  });

for (const base of ["raw", "qed"])
  test(`a chain of three with a resize in the middle, over ${base}; its base missing, then named`, (t) => {
    if (!needsQemu(t)) return;
    const path = testFolder(t);
    qemuImg("create", "-q", "-f", base, path("base"), `${4 * MiB}`);
    // A raw base that begins like a qed image must stay raw.
    qemuIo(path("base"), base, shuffledWrites(1, 4 * MiB, 20));
    if (base === "raw") {
      const bytes = readFileSync(path("base"));
      bytes.write("QED\0", 0, "latin1");
      writeFileSync(path("base"), bytes);
    }
    qemuImg("create", "-q", "-f", "qed", "-b", "base", "-F", base, path("middle"));
    qemuIo(path("middle"), "qed", [...shuffledWrites(2, 4 * MiB, 8), "write -z 1M 128k"]);
    qemuImg("resize", "-q", "-f", "qed", path("middle"), `${9 * MiB}`);
    qemuIo(path("middle"), "qed", shuffledWrites(4, 9 * MiB, 8));
    qemuImg("create", "-q", "-f", "qed", "-b", "middle", "-F", "qed", path("top"), `${7 * MiB}`);
    qemuIo(path("top"), "qed", shuffledWrites(6, 7 * MiB, 8));
    const expected = qemuRaw(path("top"), "qed", path("raw"));
    isDisk(t, { path: path("top") }, expected);
    isMap(t, { path: path("top") }, "qed");
    renameSync(path("base"), path("renamed"));
    isRefused(t, "missing", { path: path("top") }, path("middle"), path("base"), "--parent");
    t.true(wholeDisk({ path: path("top"), parent: path("renamed") }).equals(expected));
  });

test("features, sizes and tables that can't be are refused in words; an unclosed image is told", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  qemuImg("create", "-q", "-f", "qed", path("a"), `${4 * MiB}`);
  qemuIo(path("a"), "qed", ["write -P 1 0 64k", "write -P 2 1M 64k"]);
  const expected = wholeDisk({ path: path("a") });
  isRefused(t, "unsupported", { path: patched(path("a"), { 16: [8] }) }, "features");
  isRefused(t, "unsupported", { path: patched(path("a"), { 23: [1] }) }, "features");
  isRefused(t, "corrupt", { path: patched(path("a"), { 4: [1] }) }, "byte 4");
  isRefused(t, "corrupt", { path: patched(path("a"), { 8: [3] }) }, "byte 8");
  isRefused(t, "corrupt", { path: patched(path("a"), { 40: [1] }) }, "begin with a cluster");
  isRefused(t, "corrupt", { path: patched(path("a"), { 45: [1] }) }, "truncated");
  isRefused(t, "corrupt", { path: patched(path("a"), { 54: [1] }) }, "byte 48");
  isRefused(t, "corrupt", { path: patched(path("a"), { 16: [1] }) }, "parent's name");
  const unclosed = patched(path("a"), { 16: [2] });
  t.true(wholeDisk({ path: unclosed }).equals(expected));
  opened({ path: unclosed }, ({ layers }) => t.is(typeof layers[0]!.facts.dirty, "string"));
  const image = readFileSync(path("a"));
  const l2 = Number(image.readBigUInt64LE(Number(image.readBigUInt64LE(40))));
  isRefused(t, "corrupt", { path: patched(path("a"), { [l2]: [2] }) }, "cluster 0", "multiple");
  const broken = patched(path("a"), { [l2 + 5]: [2] });
  isRefused(t, "corrupt", { path: broken }, "cluster 0", "truncated");
  opened({ path: broken }, ({ disk }) => {
    const target = Buffer.alloc(100);
    t.is(readFully(disk, MiB, target), 100);
    t.true(target.equals(Buffer.alloc(100, 2)));
  });
  for (const cut of [3, 63, 64, 65536, 2 * 65536, image.length - 65536, image.length - 1]) {
    writeFileSync(path("cut"), image.subarray(0, cut));
    isRefused(t, "corrupt", { path: path("cut"), format: "qed" }, path("cut"));
  }
});

test("changed bytes and cut files give refusals or other bytes, nothing else", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  qemuImg("create", "-q", "-f", "qed", "-o", "cluster_size=4096,table_size=2", path("a"), `${3 * MiB}`);
  qemuIo(path("a"), "qed", [...shuffledWrites(3, 3 * MiB, 8), "write -z 1M 128k"]);
  survivesDamage(t, readFileSync(path("a")), (bytes) => readSome(qed, bytes));
});
