/** What the operations that write mean, with files 7 and 8 that share bytes: 8 is 7 from byte 4096 on. */
import { constants as files } from "node:fs";
import { constants } from "node:os";
import test from "ava";
import { ImageError } from "../../errors.js";
import type { Attributes, Changes, FileSystem } from "../../filesystems/filesystem.js";
import { FailureLog } from "../errno.js";
import { Session } from "./handlers.js";
import {
  createInvalidationMemory,
  type Invalidation,
  InvalidationRing,
  noFile,
  OpenFiles,
  ReplyKind,
} from "./invalidation.js";
import { opcodes } from "./protocol.js";
import { ask, requestBytes, u32, u64 } from "./test-messages.js";

const { ENOSPC, EIO, EINVAL, EOPNOTSUPP, EDQUOT } = constants.errno;
const { O_RDONLY, O_WRONLY, O_RDWR } = files;
const size = 10_000;
const start = 4096;

function writable(pastCache = false) {
  const bytes = Buffer.alloc(size, 1);
  const lines: string[] = [];
  let flushes = 0;
  let fails: string | undefined;
  const act = (how: () => void) => {
    if (fails)
      throw new ImageError("system", `failed: ${fails}`, { cause: Object.assign(new Error(), { code: fails }) });
    how();
  };
  const at = (file: number) => (file === 8 ? start : 0);
  const changes: Changes = {
    write: (file, position, data) => act(() => bytes.set(data, at(file) + position)),
    clear: (file, position, length) => act(() => void bytes.fill(0, at(file) + position, at(file) + position + length)),
    flush: () => act(() => void flushes++),
    others: (file, position, length) => {
      const other = file === 7 ? 8 : 7;
      const from = Math.max(0, at(file) + position - at(other));
      const to = at(file) + position + length - at(other);
      return to > from ? [{ file: other, position: from, length: to - from }] : [];
    },
  };
  const time = { seconds: 0, nanoseconds: 0 };
  const tree: FileSystem = {
    type: "test",
    label: "",
    root: 50,
    statistics: { blockSize: 1, blocks: 1, freeBlocks: 0, files: 2, freeFiles: 0, nameLength: 255 },
    attributes: (file): Attributes => ({
      ...{ kind: "file", mode: 0o644, inode: file, links: 1, owner: 0, group: 0, size: size - at(file), allocated: 0 },
      ...{ accessed: time, modified: time, changed: time },
    }),
    lookup: () => undefined,
    list: () => [],
    read: () => 0,
    readLink: () => bytes,
    changes,
  };
  const session = new Session(tree, new FailureLog((line) => lines.push(line)));
  const memory = createInvalidationMemory();
  session.writing = { open: new OpenFiles(memory), ring: new InvalidationRing(memory, 0), pastCache };
  const ring = new InvalidationRing(memory, 1);
  return {
    session,
    bytes,
    lines,
    flushes: () => flushes,
    fail: (code: string | undefined) => {
      fails = code;
    },
    ask: (opcode: number, file: number, ...body: Buffer[]) =>
      ask(session, requestBytes(opcode, BigInt(file) + 2n, Buffer.concat(body))),
    /** What was handed over, all of it. */
    taken() {
      InvalidationRing.end(memory);
      const all: Invalidation[] = [];
      for (let next = empty(); ring.take(next); next = empty()) {
        all.push(next);
        ring.finish(next);
      }
      return all;
    },
  };
}

const empty = (): Invalidation => ({
  ...{ file: 0, position: 0, length: 0, reply: 0, uniqueLow: 0, uniqueHigh: 0, written: 0 },
});

/** struct fuse_write_in and its bytes. */
const writeIn = (position: number, bytes: Buffer, flags = 0, length = bytes.length, openedBy = 0) => [
  u64(0n, BigInt(position)),
  u32(length, flags),
  u64(0n),
  u32(openedBy, 0),
  bytes,
];
const allocateIn = (position: number, length: number, mode: number) => [
  u64(0n, BigInt(position), BigInt(length)),
  u32(mode, 0),
];
const sizeIn = (to: number) => [u32(8, 0), u64(0n, BigInt(to)), Buffer.alloc(64)];
const open = (file: number, flags: number = O_RDONLY) => [opcodes.OPEN, file, u32(flags, 0)] as const;
const release = (file: number) => [opcodes.RELEASE, file, Buffer.alloc(24)] as const;
/** Of struct fuse_open_out the flags: FOPEN_DIRECT_IO is 1. */
const opened = (answer: { body: Buffer } | undefined) => answer!.body.readUInt32LE(8);
/** struct fuse_read_in. */
const readIn = (flags: number) => [u64(0n, 0n), u32(4096, flags), u64(0n), u32(0, 0)];
/** FUSE_WRITE_CACHE; FUSE_WRITE_LOCKOWNER and FUSE_READ_LOCKOWNER, which direct input and output alone has. */
const mapped = 1;
const past = 2;

test("WRITE writes and answers how many bytes", (t) => {
  const { ask, bytes } = writable();
  const answer = ask(opcodes.WRITE, 8, ...writeIn(100, Buffer.from("hello")))!;
  t.deepEqual([answer.error, answer.body.length, answer.body.readUInt32LE(0)], [0, 8, 5]);
  t.is(bytes.toString("latin1", start + 99, start + 106), "\u0001hello\u0001");
});

test("WRITE across the end writes what fits, and behind it there is no space", (t) => {
  const { ask, bytes } = writable();
  const answer = ask(opcodes.WRITE, 7, ...writeIn(size - 3, Buffer.from("hello")))!;
  t.is(answer.body.readUInt32LE(0), 3);
  t.is(bytes.toString("latin1", size - 3), "hel");
  for (const position of [size, size + 1, 2 ** 52])
    t.is(ask(opcodes.WRITE, 7, ...writeIn(position, Buffer.from("x")))!.error, ENOSPC);
});

test("who writes is told of a full disk or quota as such and of anything else as EIO; the log has each once", (t) => {
  const { ask, fail, lines } = writable();
  for (const [code, number] of [
    ["ENOSPC", ENOSPC],
    ["EDQUOT", EDQUOT],
    ["EROFS", EIO],
  ] as const) {
    fail(code);
    for (let times = 0; times < 2; times++) {
      t.is(ask(opcodes.WRITE, 7, ...writeIn(0, Buffer.from("x")))!.error, number);
      t.is(ask(opcodes.FALLOCATE, 7, ...allocateIn(0, 10, 3))!.error, number);
      t.is(ask(opcodes.FSYNC, 7, Buffer.alloc(16))!.error, number);
    }
  }
  t.deepEqual(lines, ["failed: ENOSPC", "failed: EDQUOT", "failed: EROFS"]);
});

test("a write past the page cache with O_DSYNC is flushed before it is answered; of others the kernel asks for that", (t) => {
  const { O_DSYNC, O_SYNC } = files;
  const data = Buffer.from("x");
  const { ask, flushes, fail } = writable(true);
  const write = (flags: number, openedBy: number) => ask(opcodes.WRITE, 7, ...writeIn(0, data, flags, 1, openedBy))!;
  t.deepEqual([write(past, O_RDWR).error, flushes()], [0, 0]);
  t.deepEqual([write(past, O_RDWR | O_DSYNC).error, flushes()], [0, 1]);
  t.deepEqual([write(past, O_WRONLY | O_SYNC).error, flushes()], [0, 2]);
  t.deepEqual([write(0, O_RDWR | O_DSYNC).error, flushes()], [0, 2]);
  fail("EIO");
  t.is(write(past, O_RDWR | O_DSYNC).error, EIO);
});

test("FSYNC flushes", (t) => {
  const { ask, flushes } = writable();
  t.is(ask(opcodes.FSYNC, 7, Buffer.alloc(16))!.error, 0);
  t.is(flushes(), 1);
});

test("FALLOCATE makes zeros, with or without keeping the size; taking room beforehand is not supported", (t) => {
  const { ask, bytes } = writable();
  const [keep, punch, zero, collapse] = [1, 2, 16, 8];
  t.is(ask(opcodes.FALLOCATE, 8, ...allocateIn(0, 10, keep | punch))!.error, 0);
  t.deepEqual([bytes[start - 1], bytes[start], bytes[start + 9], bytes[start + 10]], [1, 0, 0, 1]);
  t.is(ask(opcodes.FALLOCATE, 8, ...allocateIn(20, 10, zero))!.error, 0);
  t.deepEqual([bytes[start + 19], bytes[start + 20], bytes[start + 29], bytes[start + 30]], [1, 0, 0, 1]);
  for (const mode of [0, keep, collapse, 32, 64])
    t.is(ask(opcodes.FALLOCATE, 7, ...allocateIn(0, 10, mode))!.error, EOPNOTSUPP, `mode ${mode}`);
  t.is(ask(opcodes.FALLOCATE, 7, ...allocateIn(size - 5, 10, zero))!.error, ENOSPC, "it would grow");
  t.is(bytes[size - 1], 1);
  t.is(ask(opcodes.FALLOCATE, 7, ...allocateIn(size - 5, 10, keep | zero))!.error, 0);
  t.is(bytes[size - 1], 0);
  t.is(ask(opcodes.FALLOCATE, 7, ...allocateIn(size + 5, 10, keep | punch))!.error, 0, "nothing is there");
});

test("SETATTR: a file can't grow or shrink, and to cut it to nothing is passed over as on a device", (t) => {
  const { ask } = writable();
  t.is(ask(opcodes.SETATTR, 7, ...sizeIn(size + 1))!.error, ENOSPC);
  t.is(ask(opcodes.SETATTR, 7, ...sizeIn(size - 1))!.error, EINVAL);
  for (const to of [0, size]) {
    const { error, body } = ask(opcodes.SETATTR, 7, ...sizeIn(to))!;
    t.deepEqual([error, body.readBigUInt64LE(16 + 8)], [0, BigInt(size)]);
  }
  const times = ask(opcodes.SETATTR, 7, u32(1 << 5, 0), Buffer.alloc(80))!;
  t.is(times.error, 0, "times and owners are as they are");
});

test("while no other file is open nothing is to be forgotten; while one is, the reply waits for that", (t) => {
  const { ask, taken, bytes } = writable();
  t.is(ask(opcodes.WRITE, 7, ...writeIn(start, Buffer.from("one")))!.error, 0);
  t.is(ask(...open(8))!.body.length, 16);
  t.is(ask(...open(8))!.error, 0);
  t.is(ask(opcodes.WRITE, 7, ...writeIn(0, Buffer.from("elsewhere")))!.error, 0, "8 has none of these bytes");
  t.is(ask(opcodes.WRITE, 7, ...writeIn(start - 1, Buffer.from("two"))), undefined);
  t.is(bytes.toString("latin1", start - 1, start + 2), "two");
  t.is(ask(opcodes.FALLOCATE, 7, ...allocateIn(start + 5, 7, 3)), undefined);
  t.is(ask(...release(8))!.error, 0);
  t.is(ask(opcodes.WRITE, 7, ...writeIn(start, Buffer.from("still"))), undefined, "it was opened twice");
  ask(...release(8));
  t.is(ask(opcodes.WRITE, 7, ...writeIn(start, Buffer.from("last")))!.error, 0);
  const unique = { uniqueLow: 0x55667788, uniqueHigh: 0x11223344 };
  t.deepEqual(taken(), [
    { file: 8, position: 0, length: 2, reply: ReplyKind.written, ...unique, written: 3 },
    { file: 8, position: 5, length: 7, reply: ReplyKind.empty, ...unique, written: 7 },
    { file: 8, position: 0, length: 5, reply: ReplyKind.written, ...unique, written: 5 },
  ]);
});

test("after zeroing that failed those who read the same file forget the bytes too", (t) => {
  const { ask, fail, taken } = writable(true);
  ask(...open(7));
  ask(opcodes.READ, 7, ...readIn(0));
  fail("EIO");
  t.is(ask(opcodes.FALLOCATE, 7, ...allocateIn(5, 7, 3))!.error, EIO);
  t.deepEqual(
    taken().map(({ file, position, length, reply }) => [file, position, length, reply]),
    [[7, 5, 7, ReplyKind.none]],
  );
});

test("after a write that failed others forget the bytes too, of which a part may be there; the reply is sent at once", (t) => {
  const { ask, fail, taken } = writable();
  ask(...open(8));
  fail("ENOSPC");
  t.is(ask(opcodes.WRITE, 7, ...writeIn(start - 1, Buffer.from("two")))!.error, ENOSPC);
  t.is(ask(opcodes.FALLOCATE, 7, ...allocateIn(start + 5, 7, 3))!.error, ENOSPC);
  t.deepEqual(
    taken().map(({ file, position, length, reply }) => [file, position, length, reply]),
    [
      [8, 0, 2, ReplyKind.none],
      [8, 5, 7, ReplyKind.none],
      // The kernel forgets its own pages of what it zeroed only when that succeeded.
      [7, start + 5, 7, ReplyKind.none],
    ],
  );
});

test("what the kernel writes back from mapped pages is answered at once, and who synchronises waits until others forgot it", (t) => {
  const { ask, taken } = writable();
  ask(...open(7));
  ask(...open(8));
  t.is(ask(opcodes.FSYNC, 8, Buffer.alloc(16))!.error, 0, "nothing was handed over yet");
  t.is(ask(opcodes.WRITE, 7, ...writeIn(start, Buffer.from("one"))), undefined);
  t.is(ask(opcodes.FSYNC, 8, Buffer.alloc(16))!.error, 0, "who wrote waits for that, and who synchronises needn't");
  t.is(ask(opcodes.WRITE, 8, ...writeIn(0, Buffer.from("mapped"), mapped))!.body.readUInt32LE(0), 6);
  t.is(ask(opcodes.WRITE, 8, ...writeIn(5000, Buffer.from("elsewhere"), mapped))!.body.readUInt32LE(0), 9);
  t.is(ask(opcodes.FSYNC, 8, Buffer.alloc(16)), undefined);
  t.deepEqual(
    taken().map(({ file, length, reply }) => [file, length, reply]),
    [
      [8, 3, ReplyKind.written],
      [7, 6, ReplyKind.writtenBack],
      [7, 9, ReplyKind.writtenBack],
      [noFile, 0, ReplyKind.empty],
    ],
  );
});

test("who opens a file to write goes past the page cache where that was agreed on, and who only reads doesn't", (t) => {
  const { ask } = writable(true);
  t.is(opened(ask(...open(7))), 0);
  for (const flags of [O_WRONLY, O_RDWR]) t.is(opened(ask(...open(7, flags))), 1);
  t.is(opened(writable(false).ask(...open(7, O_RDWR))), 0);
});

for (const [agreed, how] of [
  [true, "a file that is opened past the page cache"],
  [false, "a file that is opened as usual, with O_DIRECT"],
] as const)
  test(`what is written past the page cache those who have pages of the same file forget, and the reply waits for that: ${how}`, (t) => {
    const { ask, taken } = writable(agreed);
    const write = (position: number, words: string, flags = past) =>
      ask(opcodes.WRITE, 7, ...writeIn(position, Buffer.from(words), flags));
    ask(...open(7, O_RDWR));
    ask(opcodes.READ, 7, ...readIn(past));
    t.is(write(0, "nobody has pages")!.error, 0);
    ask(...open(7));
    t.is(write(0, "nobody has read")!.error, 0);
    ask(opcodes.READ, 7, ...readIn(0));
    t.is(write(0, "reader"), undefined);
    t.is(write(3, "the same bytes again"), undefined, "it holds no page that the first waits for");
    t.is(write(600, "mapped", mapped)!.error, 0, "the kernel has the page that it writes back");
    t.is(write(600, "cached", 0)!.error, 0, "and that through which is written");
    t.is(ask(opcodes.FALLOCATE, 7, ...allocateIn(0, 10, 3))!.error, 0, "the kernel forgets those of its file itself");
    ask(...release(7));
    t.is(write(5, "pages are left"), undefined);
    ask(...release(7));
    ask(...open(7, O_RDWR));
    t.is(write(0, "the kernel forgot them")!.error, 0);
    t.is(write(0, "cached", 0)!.error, 0);
    t.is(write(0, "what was written has pages"), undefined);
    ask(...open(8, O_RDWR));
    t.is(write(start, "others may be mapped"), undefined);
    t.deepEqual(
      taken().map(({ file, position, length, reply }) => [file, position, length, reply]),
      [
        [7, 0, 6, ReplyKind.written],
        [7, 3, 20, ReplyKind.written],
        [7, 5, 14, ReplyKind.written],
        [7, 0, 26, ReplyKind.written],
        [8, 0, 20, ReplyKind.none],
        [7, start, 20, ReplyKind.written],
      ],
    );
  });

test("of two who write to the same page through two files, the second isn't kept waiting", (t) => {
  const { ask, taken } = writable();
  ask(...open(7));
  ask(...open(8));
  t.is(ask(opcodes.WRITE, 7, ...writeIn(start, Buffer.from("one"))), undefined);
  t.is(ask(opcodes.WRITE, 8, ...writeIn(600, Buffer.from("two")))!.body.readUInt32LE(0), 3);
  t.deepEqual(
    taken().map(({ file, position, reply }) => [file, position, reply]),
    [
      [8, 0, ReplyKind.written],
      [7, start + 600, ReplyKind.none],
    ],
  );
});
