/** Images of the first qcow as QEMU makes them. */
import { spawnSync } from "node:child_process";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import test from "ava";
import { qcow } from "./qcow.js";
import {
  isDisk,
  isMap,
  isRefused,
  needsQemu,
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

register(qcow);

const MiB = 1 << 20;
const odd = 10 * MiB + 1536;

/** Packs a disk. QEMU 7.2 writes all of it, and then ends with status 1 and no message; the tests compare the result. */
function pack(plain: string, image: string): void {
  spawnSync("qemu-img", ["convert", "-q", "-f", "raw", "-c", "-O", "qcow", plain, image]);
}

test("clusters written in no order", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  qemuImg("create", "-q", "-f", "qcow", path("a"), `${odd}`);
  qemuIo(path("a"), "qcow", shuffledWrites(3, odd, 25));
  isDisk(t, { path: path("a") }, qemuRaw(path("a"), "qcow", path("raw")), 4096);
  isMap(t, { path: path("a") }, "qcow");
});

test("packed clusters, some of them overwritten", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  qemuImg("create", "-q", "-f", "raw", path("plain"), `${odd}`);
  qemuIo(path("plain"), "raw", shuffledWrites(3, odd, 25));
  const disk = readFileSync(path("plain"));
  pack(path("plain"), path("a"));
  isDisk(t, { path: path("a") }, disk, 4096);
  qemuIo(path("a"), "qcow", shuffledWrites(9, odd, 8, 9000));
  isDisk(t, { path: path("a") }, qemuRaw(path("a"), "qcow", path("raw")), 4096);
});

test("a chain of three: a small base, whose clusters with a parent are of 512 bytes; missing, then named", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  qemuImg("create", "-q", "-f", "raw", path("base"), `${MiB}`);
  qemuIo(path("base"), "raw", shuffledWrites(1, MiB, 10, 30_000));
  qemuImg("create", "-q", "-f", "qcow", "-b", "base", "-F", "raw", path("middle"), `${3 * MiB + 512}`);
  qemuIo(path("middle"), "qcow", shuffledWrites(2, 3 * MiB, 8, 30_000));
  qemuImg("create", "-q", "-f", "qcow", "-b", "middle", "-F", "qcow", path("top"), `${2 * MiB}`);
  qemuIo(path("top"), "qcow", shuffledWrites(6, 2 * MiB, 8, 30_000));
  const expected = qemuRaw(path("top"), "qcow", path("raw"));
  isDisk(t, { path: path("top") }, expected, 512);
  isDisk(t, { path: path("middle") }, qemuRaw(path("middle"), "qcow", path("raw")), 512);
  isMap(t, { path: path("top") }, "qcow");
  renameSync(path("base"), path("renamed"));
  isRefused(t, "missing", { path: path("top") }, path("middle"), path("base"), "--parent");
  t.true(wholeDisk({ path: path("top"), parent: path("renamed") }).equals(expected));
});

test("encryptions, sizes and tables that can't be are refused in words, and truncation where bytes are missing", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  qemuImg("create", "-q", "-f", "raw", path("plain"), `${MiB}`);
  qemuIo(path("plain"), "raw", shuffledWrites(3, MiB, 10, 30_000));
  pack(path("plain"), path("a"));
  isRefused(t, "unsupported", { path: patched(path("a"), { 39: [2] }) }, "encrypted", "number 2");
  isRefused(t, "corrupt", { path: patched(path("a"), { 32: [8] }) }, "byte 32");
  isRefused(t, "corrupt", { path: patched(path("a"), { 33: [20] }) }, "byte 33");
  isRefused(t, "corrupt", { path: patched(path("a"), { 24: [9] }) }, "byte 24");
  isRefused(t, "corrupt", { path: patched(path("a"), { 24: [0, 0, 9] }) }, "table", "truncated");
  isRefused(t, "corrupt", { path: patched(path("a"), { 15: [9], 16: [0, 1] }) }, "parent's name");
  const image = readFileSync(path("a"));
  for (const cut of [47, 48, 60, 4096, image.length - 5000]) {
    writeFileSync(path("cut"), image.subarray(0, cut));
    isRefused(t, "corrupt", { path: path("cut"), format: "qcow" }, path("cut"));
  }
});

test("changed bytes and cut files give refusals or other bytes, nothing else", (t) => {
  if (!needsQemu(t)) return;
  const path = testFolder(t);
  qemuImg("create", "-q", "-f", "raw", path("plain"), `${MiB}`);
  qemuIo(path("plain"), "raw", shuffledWrites(3, MiB, 10, 30_000));
  pack(path("plain"), path("a"));
  qemuIo(path("a"), "qcow", shuffledWrites(9, MiB, 5, 9000));
  survivesDamage(t, readFileSync(path("a")), (bytes) => readSome(qcow, bytes));
});
