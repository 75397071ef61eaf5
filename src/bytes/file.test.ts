import { spawnSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "ava";
import { ImageError } from "../errors.js";
import { readExactly, readFully, Slice } from "./byte-source.js";
import { FileSource } from "./file.js";
import { MemorySource } from "./memory.js";

const folder = mkdtempSync(join(tmpdir(), "spindle-file-"));
test.after.always(() => rmSync(folder, { recursive: true, force: true }));

const MiB = 1 << 20;

/** 8 MiB, of which MiB 2 and MiB 5 hold data. */
function sparseFile(name: string): string {
  const path = join(folder, name);
  const fd = openSync(path, "w");
  ftruncateSync(fd, 8 * MiB);
  for (const at of [2, 5]) writeSync(fd, Buffer.alloc(MiB, at), 0, MiB, at * MiB);
  closeSync(fd);
  return path;
}

test("holes of a file are those that the filesystem tells, from any place in them", (t) => {
  const source = FileSource.open(sparseFile("sparse"));
  if (!source.extentAt(0).hole) return void t.pass(t.log("skipped: this filesystem does not tell holes") as undefined);
  t.deepEqual(source.extentAt(0), { hole: true, length: 2 * MiB });
  t.deepEqual(source.extentAt(2 * MiB), { hole: false, length: MiB });
  t.deepEqual(source.extentAt(2 * MiB + 5), { hole: false, length: MiB - 5 });
  t.deepEqual(source.extentAt(8 * MiB - 1), { hole: true, length: 1 });
  t.deepEqual(source.extentAt(MiB), { hole: true, length: MiB });
  t.deepEqual(source.extentAt(5 * MiB), { hole: false, length: MiB });
  t.deepEqual(source.extentAt(6 * MiB), { hole: true, length: 2 * MiB });
  source.close();
});

test("reads end with the file", (t) => {
  const source = FileSource.open(sparseFile("ends"));
  const target = Buffer.alloc(10, 1);
  t.is(source.read(8 * MiB - 3, target), 3);
  t.deepEqual([...target], [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]);
  t.is(source.read(8 * MiB, target), 0);
  t.is(source.read(9 * MiB, target), 0);
  source.close();
});

test("the end of a file that shrank is not taken for a hole", (t) => {
  const path = sparseFile("shrinks");
  const source = FileSource.open(path);
  const fd = openSync(path, "r+");
  ftruncateSync(fd, 4 * MiB);
  closeSync(fd);
  const error = t.throws(() => source.extentAt(5 * MiB), { instanceOf: ImageError });
  t.regex(error.message, /shrinks: reading at byte 5242880: it was 8388608 bytes long .* it shrank/);
  source.close();
});

test("what is no file and no disk is refused at once, named", async (t) => {
  const fifo = join(folder, "fifo");
  t.is(spawnSync("mkfifo", [fifo]).status, 0);
  const socket = join(folder, "socket");
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  mkdirSync(join(folder, "folder"));
  for (const [path, what] of [
    [fifo, "neither a file nor a block device"],
    [socket, "neither a file nor a block device"],
    ["/dev/zero", "neither a file nor a block device"],
    [join(folder, "folder"), "a folder"],
    [join(folder, "nothing"), "no such file"],
  ] as const) {
    const error = t.throws(() => FileSource.open(path), { instanceOf: ImageError });
    t.true(error.message.includes(path) && error.message.includes(what), error.message);
  }
  server.close();
});

test("two paths to one file have one identity", (t) => {
  const path = join(folder, "one");
  writeFileSync(path, "x");
  symlinkSync(path, join(folder, "link"));
  const [a, b] = [FileSource.open(path), FileSource.open(join(folder, "link"))];
  t.is(a.identity, b.identity);
  a.close();
  b.close();
});

test("reading in pieces fills the target, and less only at the end", (t) => {
  const source = new MemorySource("m", Buffer.from("abcdefghij"), 3);
  const target = Buffer.alloc(8);
  t.is(readFully(source, 1, target), 8);
  t.is(target.toString(), "bcdefghi");
  t.is(readFully(source, 7, target), 3);
  t.throws(() => readExactly(source, 5, 6, "the thing"), { message: /^m: the thing should take 6 bytes at byte 5/ });
  t.is(readExactly(source, 5, 5, "the thing").toString(), "fghij");
});

test("a slice is the bytes of its place and no others", (t) => {
  const slice = new Slice("s", new MemorySource("m", Buffer.from("abcdefghij"), 3), 4, 5);
  const target = Buffer.alloc(8);
  t.is(readFully(slice, 0, target), 5);
  t.is(target.toString("latin1", 0, 5), "efghi");
  t.is(slice.read(5, target), 0);
});
