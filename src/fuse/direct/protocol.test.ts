import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "ava";
import type { Attributes } from "../../filesystems/filesystem.js";
import { answerInit, type Wishes } from "./init.js";
import { initFlags, opcodes, Reply, Request, structures } from "./protocol.js";
import { requestBytes, u32 } from "./test-messages.js";

const header = "/usr/include/linux/fuse.h";

test("structures, opcodes and flags are those of this machine's linux/fuse.h", (t) => {
  const compiler = ["cc", "gcc", "clang"].find((name) => spawnSync(name, ["--version"]).status === 0);
  if (!compiler || !existsSync(header)) {
    t.log(`skipped: ${compiler ? `there is no ${header}` : "there is no C compiler"}`);
    t.pass();
    return;
  }
  const text = readFileSync(header, "utf8");
  const expected: string[] = [];
  const printed: string[] = [];
  const check = (expression: string, value: number) => {
    expected.push(`${expression} ${value}`);
    printed.push(`printf("%s %ld\\n", "${expression}", (long)(${expression}));`);
  };
  for (const [structure, { size, fields }] of Object.entries(structures)) {
    if (!new RegExp(`struct ${structure} \\{`).test(text)) continue; // a header older than 7.39 has no statx
    check(`sizeof(struct ${structure})`, size);
    for (const [field, offset] of Object.entries(fields)) check(`offsetof(struct ${structure}, ${field})`, offset);
  }
  for (const [name, value] of Object.entries(opcodes))
    if (text.includes(`FUSE_${name}\t`)) check(`FUSE_${name}`, value);
  for (const [name, value] of Object.entries(initFlags)) check(`FUSE_${name}`, value);
  const folder = mkdtempSync(join(tmpdir(), "spindle-layout-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  writeFileSync(
    join(folder, "layout.c"),
    `#include <stdio.h>\n#include <stddef.h>\n#include <linux/fuse.h>\nint main(void) { ${printed.join("\n")} return 0; }\n`,
  );
  const built = spawnSync(compiler, ["-o", join(folder, "layout"), join(folder, "layout.c")], { encoding: "utf8" });
  t.is(built.status, 0, built.stderr);
  t.deepEqual(spawnSync(join(folder, "layout"), { encoding: "utf8" }).stdout.trim().split("\n"), expected);
  t.true(expected.length > 100);
});

test("node numbers are exact up to the largest FileId", (t) => {
  const largest = Number.MAX_SAFE_INTEGER;
  const attributes = { ...plain, inode: 1 };
  for (const file of [0, 1, 0xfffffffd, 0xfffffffe, 0xffffffff, 2 ** 32, largest - 2, largest - 1, largest]) {
    const reply = new Reply(4096);
    reply.entryOut(0, file, attributes);
    const node = Buffer.from(reply.body).readBigUInt64LE(0);
    t.is(node, BigInt(file) + 2n);
    const request = new Request(8192);
    request.bytes.set(requestBytes(3, node));
    t.is(request.file, file);
    t.false(request.isRoot);
  }
});

const plain: Attributes = {
  kind: "file",
  mode: 0o4755,
  inode: 2 ** 40 + 5,
  links: 3,
  owner: 4000000000,
  group: 5,
  size: 2 ** 45 + 1,
  allocated: 513,
  accessed: { seconds: -1, nanoseconds: 999_999_999 },
  modified: { seconds: 2 ** 33, nanoseconds: 2 },
  changed: { seconds: -(2 ** 33), nanoseconds: 3 },
  born: { seconds: -5, nanoseconds: 4 },
};

test("attributes keep their 64 bits, negative times included", (t) => {
  const reply = new Reply(4096);
  reply.bytes.fill(0xbb);
  t.is(reply.attrOut(plain), 104);
  const body = Buffer.from(reply.body);
  t.true(body.readBigUInt64LE(0) > 86400n * 365n); // attr_valid
  t.is(body.readBigUInt64LE(8), 0n);
  const attr = body.subarray(16);
  t.is(attr.readBigUInt64LE(0), 2n ** 40n + 5n);
  t.is(attr.readBigUInt64LE(8), 2n ** 45n + 1n);
  t.is(attr.readBigUInt64LE(16), 2n); // 513 bytes are 2 blocks of 512
  t.deepEqual(
    [24, 32, 40].map((at) => attr.readBigInt64LE(at)),
    [-1n, 2n ** 33n, -(2n ** 33n)],
  );
  t.deepEqual(
    [48, 52, 56, 60, 64, 68, 72, 76, 80, 84].map((at) => attr.readUInt32LE(at)),
    [999_999_999, 2, 3, 0o104755, 3, 4000000000, 5, 0, 4096, 0],
  );
});

test("a device's number is packed as the kernel unpacks it", (t) => {
  const reply = new Reply(4096);
  reply.attrOut({ ...plain, kind: "block", device: { major: 0xabc, minor: 0x12345 } });
  const rdev = Buffer.from(reply.body).readUInt32LE(16 + 76);
  // new_decode_dev of linux/kdev_t.h
  t.is((rdev & 0xfff00) >>> 8, 0xabc);
  t.is((rdev & 0xff) | ((rdev >>> 12) & 0xfff00), 0x12345);
});

test("statx tells the time of birth where there is one", (t) => {
  const reply = new Reply(4096);
  t.is(reply.statxOut(plain), 288);
  let stat = Buffer.from(reply.body).subarray(32);
  t.is(stat.readUInt32LE(0), 0xfff);
  t.is(stat.readUInt16LE(28), 0o104755);
  t.is(stat.readBigInt64LE(80), -5n);
  t.is(stat.readUInt32LE(88), 4);
  reply.statxOut({ ...plain, born: undefined });
  stat = Buffer.from(reply.body).subarray(32);
  t.is(stat.readUInt32LE(0), 0x7ff);
  t.is(stat.readBigInt64LE(80), 0n);
});

/** As the kernel of `minor` asks, with all flags that there may be in the second word. */
function init(major: number, minor: number, flags: number, pageSize = 4096, wishes: Wishes = {}) {
  const request = new Request(8192);
  request.bytes.set(requestBytes(26, 0n, u32(major, minor, 131072, flags, 0xffffffff)));
  const reply = new Reply(4096);
  const { length, agreement } = answerInit(request, reply, pageSize, wishes);
  return { body: Buffer.from(reply.body.subarray(0, length)), agreement };
}

test("INIT takes the older minor version and only flags that the kernel offers", (t) => {
  const { body, agreement } = init(7, 45, 0xffffffff, 4096, { enforce: true });
  t.truthy(agreement);
  t.is(body.length, 64);
  t.deepEqual([body.readUInt32LE(0), body.readUInt32LE(4)], [7, 39]);
  const wanted = Object.values(initFlags).reduce((all, flag) => all | flag);
  t.is(body.readUInt32LE(12), wanted);
  t.is(body.readUInt16LE(28), 64);
  // This flag has the kernel refuse the mounting user too.
  t.is(init(7, 45, 0xffffffff).body.readUInt32LE(12), wanted & ~initFlags.POSIX_ACL);
  const older = init(7, 31, initFlags.ASYNC_READ | (1 << 1)).body;
  t.deepEqual([older.readUInt32LE(4), older.readUInt32LE(12)], [31, initFlags.ASYNC_READ]);
});

test("zeros may be left out of replies only where the kernel agreed to fill them in", (t) => {
  t.true(init(7, 45, 0xffffffff).agreement?.fillsZeros);
  t.false(init(7, 45, ~initFlags.WRITEBACK_CACHE).agreement?.fillsZeros);
});

test("files are opened past the page cache only to be written to, of a kernel from Linux 6.12 on that offers to map them", (t) => {
  const asked = (minor: number, flags: number, writable: boolean, pageCache = false) => {
    const { body, agreement } = init(7, minor, flags, 4096, { writable, pageCache });
    return [agreement?.pastCache, body.readUInt32LE(32)];
  };
  // FUSE_DIRECT_IO_ALLOW_MMAP of linux/fuse.h is bit 36 of the flags, of which bits 32 to 63 are the second word.
  t.deepEqual(asked(45, 0xffffffff, true), [true, 1 << 4]);
  t.deepEqual(asked(41, 0xffffffff, true), [true, 1 << 4]);
  t.deepEqual(asked(40, 0xffffffff, true), [false, 0]);
  t.deepEqual(asked(45, 0xffffffff, false), [false, 0]);
  t.deepEqual(asked(45, 0xffffffff, true, true), [false, 0], "the page cache is wanted");
  // A kernel without FUSE_INIT_EXT, bit 30, sends no second word: something else may lie there.
  t.deepEqual(asked(45, ~(1 << 30), true), [false, 0]);
});

test("a request has at most 256 KiB whatever a page has", (t) => {
  t.is(init(7, 40, 0, 65536).body.readUInt16LE(28), 4);
});

test("a kernel with a newer major version is told ours, and sends INIT again", (t) => {
  const { body, agreement } = init(8, 0, 0);
  t.is(agreement, undefined);
  t.is(body.readUInt32LE(0), 7);
});

test("a kernel that is too old is refused with the other driver's name", (t) => {
  t.throws(() => init(7, 27, 0), { message: /Linux 5\.4.*--driver fuse-native/ });
});

test("a request tells who asks, and a read or a write how much it moves", (t) => {
  const body = Buffer.concat([Buffer.alloc(16), u32(123_456, 0), Buffer.alloc(16)]);
  for (const [opcode, moves] of [
    [opcodes.READ, 123_456],
    [opcodes.WRITE, 123_456],
    [opcodes.READDIRPLUS, 0],
    [opcodes.FSYNC, 0],
  ] as const) {
    const request = new Request(8192);
    request.bytes.set(requestBytes(opcode, 1n, body));
    t.deepEqual([request.asker, request.bytesToMove], [99, moves]);
  }
});
