import { constants } from "node:os";
import test from "ava";
import type { Extent } from "../../bytes/byte-source.js";
import { corrupt } from "../../errors.js";
import type { Attributes, Entry, FileSystem } from "../../filesystems/filesystem.js";
import { FailureLog } from "../errno.js";
import { Session } from "./handlers.js";
import { opcodes } from "./protocol.js";
import { ask, name, readIn, requestBytes, u32, u64 } from "./test-messages.js";

const { EIO, ENOSYS, EROFS, ENXIO, ERANGE, ENODATA, ESTALE, ENAMETOOLONG, EINVAL } = constants.errno;
const bytes = (text: string) => Buffer.from(text);
const time = { seconds: 0, nanoseconds: 0 };

/** Root 50 with file 7 (`digits`, 1000 bytes), link 8, folder 9 of `count` entries, file 10 damaged from byte 300 on. */
function tree(changes: Partial<FileSystem> = {}, count = 10): FileSystem {
  const kinds: Record<number, Attributes["kind"]> = { 50: "directory", 9: "directory", 8: "symlink" };
  return {
    type: "test",
    label: "",
    root: 50,
    statistics: { blockSize: 1024, blocks: 11, freeBlocks: 5, files: 6, freeFiles: 3, nameLength: 77 },
    attributes(file) {
      if (file === 66) throw corrupt("inode 66 is damaged");
      const kind = kinds[file] ?? "file";
      return {
        kind,
        mode: 0o600,
        inode: file * 10,
        links: 1,
        owner: 0,
        group: 0,
        size: 1000,
        allocated: 0,
        accessed: time,
        modified: time,
        changed: time,
      };
    },
    lookup: (directory, wanted) =>
      directory === 50 && Buffer.from(wanted).equals(bytes("digits"))
        ? 7
        : Buffer.from(wanted).equals(bytes("up"))
          ? 50
          : undefined,
    *list(directory): Iterable<Entry> {
      if (directory === 50) yield { name: bytes("digits"), file: 7, kind: "file" };
      if (directory === 9)
        for (let i = 0; i < count; i++) yield { name: bytes(`n${i}`), file: 1000 + i, kind: "fifo", inode: 5000 + i };
    },
    read(file, position, target) {
      if (file === 10 && position >= 300) throw corrupt("byte 300 is damaged");
      const most = file === 10 ? 300 - position : 1000 - position;
      const length = Math.min(target.length, 128 - (position % 128), most);
      for (let i = 0; i < length; i++) target[i] = (position + i) % 251;
      return Math.max(0, length);
    },
    readLink: () => bytes("over/there"),
    ...changes,
  };
}

function session(changes: Partial<FileSystem> = {}, count?: number) {
  const lines: string[] = [];
  return { lines, session: new Session(tree(changes, count), new FailureLog((line) => lines.push(line))) };
}

const node = (file: number) => BigInt(file) + 2n;

test("LOOKUP answers the node, its attributes and how long they last", (t) => {
  const answer = ask(session().session, requestBytes(opcodes.LOOKUP, 1n, name("digits")))!;
  t.is(answer.error, 0);
  t.is(answer.body.length, 128);
  t.is(answer.body.readBigUInt64LE(0), node(7));
  t.is(answer.body.readBigUInt64LE(40), 70n); // attr.ino
  t.is(answer.body.readUInt32LE(40 + 60), 0o100600);
});

test("LOOKUP of a name that isn't there is remembered as not there: node 0 with a time", (t) => {
  const answer = ask(session().session, requestBytes(opcodes.LOOKUP, 1n, name("digit")))!;
  t.is(answer.error, 0);
  t.is(answer.body.readBigUInt64LE(0), 0n);
  t.true(answer.body.readBigUInt64LE(16) > 0n);
});

test("LOOKUP of `.` answers the node itself, as NFS needs, and an entry that is the root has node 1", (t) => {
  const { session: s } = session();
  t.is(ask(s, requestBytes(opcodes.LOOKUP, node(9), name(".")))!.body.readBigUInt64LE(0), node(9));
  t.is(ask(s, requestBytes(opcodes.LOOKUP, node(9), name("up")))!.body.readBigUInt64LE(0), 1n);
});

test("a node number that no file has is stale, and no line of the log", (t) => {
  const { session: s, lines } = session();
  for (const wrong of [0n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 53n + 2n])
    t.is(ask(s, requestBytes(opcodes.GETATTR, wrong, u32(0, 0, 0, 0)))!.error, ESTALE);
  t.deepEqual(lines, []);
});

test("READ is filled from pieces, and short only at the end of the file", (t) => {
  const { session: s } = session();
  const expected = Buffer.from(Array.from({ length: 1000 }, (_, i) => i % 251));
  t.deepEqual(ask(s, requestBytes(opcodes.READ, node(7), readIn(100n, 700)))!.body, expected.subarray(100, 800));
  t.deepEqual(ask(s, requestBytes(opcodes.READ, node(7), readIn(0n, 4096)))!.body, expected);
  t.is(ask(s, requestBytes(opcodes.READ, node(7), readIn(1000n, 4096)))!.body.length, 0);
  t.is(ask(s, requestBytes(opcodes.READ, node(7), readIn(2n ** 60n, 4096)))!.body.length, 0);
});

test("READ of zeros is answered with nothing where the kernel fills them in, and only there", (t) => {
  const zerosAt = (_: number, position: number) => (position >= 256 && position < 768 ? 768 - position : 0);
  const { session: s } = session({ zerosAt });
  const pastTheCache = 2;
  const length = (position: bigint, size: number, readFlags = 0) =>
    ask(s, requestBytes(opcodes.READ, node(7), readIn(position, size, readFlags)))!.body.length;
  t.is(length(256n, 512), 512);
  s.fillsZeros = true;
  t.deepEqual([length(256n, 512), length(300n, 10)], [0, 0]);
  t.deepEqual([length(255n, 512), length(256n, 513)], [512, 513]);
  t.is(length(256n, 512, pastTheCache), 512, "a read past the page cache takes a short reply as it is");
});

test("READ into damage is an error as a whole, since a short reply would cut the file", (t) => {
  const { session: s, lines } = session();
  t.deepEqual(ask(s, requestBytes(opcodes.READ, node(10), readIn(0n, 512))), { error: EIO, body: Buffer.alloc(0) });
  t.is(ask(s, requestBytes(opcodes.READ, node(10), readIn(0n, 300)))!.body.length, 300);
  t.deepEqual(lines, ["byte 300 is damaged"]);
});

test("READ past the page cache (O_DIRECT) returns what lies before the damage", (t) => {
  const { session: s, lines } = session();
  const lockOwner = 2;
  t.is(ask(s, requestBytes(opcodes.READ, node(10), readIn(0n, 512, lockOwner)))!.body.length, 300);
  t.is(ask(s, requestBytes(opcodes.READ, node(10), readIn(300n, 512, lockOwner)))!.error, EIO);
  t.deepEqual(lines, ["byte 300 is damaged"]);
});

test("READ of a file whose bytes end before its size is an error, not a shorter file", (t) => {
  const { session: s, lines } = session({ read: (_file, position) => Math.max(0, 10 - position) });
  t.is(ask(s, requestBytes(opcodes.READ, node(7), readIn(0n, 512)))!.error, EIO);
  t.regex(lines[0]!, /end at 10, though its size is 1000/);
});

test("a bug in the tree is an error of that request and a stack in the log", (t) => {
  const { session: s, lines } = session({
    lookup: () => {
      throw new TypeError("oh no");
    },
  });
  t.is(ask(s, requestBytes(opcodes.LOOKUP, 1n, name("x")))!.error, EIO);
  t.regex(lines[0]!, /oh no\n +at/);
});

interface Listed {
  ino: bigint;
  next: bigint;
  type: number;
  name: string;
  node?: bigint;
}

function parse(body: Buffer, plus: boolean): Listed[] {
  const found: Listed[] = [];
  for (let at = 0; at < body.length; ) {
    const node = plus ? body.readBigUInt64LE(at) : undefined;
    if (plus) at += 128;
    const length = body.readUInt32LE(at + 16);
    found.push({
      ino: body.readBigUInt64LE(at),
      next: body.readBigUInt64LE(at + 8),
      type: body.readUInt32LE(at + 20),
      name: body.toString("utf8", at + 24, at + 24 + length),
      ...(plus ? { node } : {}),
    });
    at += Math.ceil((24 + length) / 8) * 8;
  }
  return found;
}

test("READDIR lists `.` and `..` first, with inode numbers as stat has them", (t) => {
  const { body } = ask(session().session, requestBytes(opcodes.READDIR, 1n, readIn(0n, 4096)))!;
  t.deepEqual(parse(body, false), [
    { ino: 500n, next: 1n, type: 4, name: "." },
    { ino: 500n, next: 2n, type: 4, name: ".." },
    { ino: 70n, next: 0x7fffffffn, type: 8, name: "digits" },
  ]);
});

test("a listing's last entry leads to its end, which is told without looking into the directory", (t) => {
  let passes = 0;
  const { session: s } = session({
    *list() {
      passes++;
      yield { name: bytes("only"), file: 1000, kind: "file", inode: 7 };
    },
  });
  const { body } = ask(s, requestBytes(opcodes.READDIR, node(9), readIn(0n, 4096)))!;
  const { next } = parse(body, false).at(-1)!;
  t.is(ask(session().session, requestBytes(opcodes.READDIR, node(9), readIn(next, 4096)))!.body.length, 0);
  t.is(passes, 1);
});

test("READDIRPLUS brings nodes along, but none for `.` and `..`", (t) => {
  const { body } = ask(session().session, requestBytes(opcodes.READDIRPLUS, node(9), readIn(0n, 4096)))!;
  const listed = parse(body, true);
  t.is(listed.length, 12);
  t.deepEqual(
    listed.slice(0, 3).map((entry) => [entry.name, entry.node]),
    [
      [".", 0n],
      ["..", 0n],
      ["n0", node(1000)],
    ],
  );
  t.is(listed[2]!.type, 1);
});

test("a damaged file does not hide its neighbours in a listing", (t) => {
  const { session: s, lines } = session({
    *list() {
      yield { name: bytes("bad"), file: 66, kind: "file" };
      yield { name: bytes("good"), file: 7, kind: "file" };
    },
  });
  const { body } = ask(s, requestBytes(opcodes.READDIRPLUS, node(9), readIn(2n, 4096)))!;
  t.deepEqual(
    parse(body, true).map((entry) => [entry.name, entry.node]),
    [
      ["bad", 0n],
      ["good", node(7)],
    ],
  );
  t.deepEqual(lines, ["inode 66 is damaged"]);
});

test("a directory damaged half-way lists what lies before, then fails, as often as it is asked", (t) => {
  const { session: s } = session({
    *list() {
      yield { name: bytes("first"), file: 7, kind: "file" };
      throw corrupt("block 9 is damaged");
    },
  });
  for (let round = 0; round < 2; round++) {
    const { body } = ask(s, requestBytes(opcodes.READDIR, node(9), readIn(0n, 4096)))!;
    t.deepEqual(
      parse(body, false).map((entry) => entry.name),
      [".", "..", "first"],
    );
    t.is(ask(s, requestBytes(opcodes.READDIR, node(9), readIn(3n, 4096)))!.error, EIO);
  }
});

test("pieces of a long listing join, from any worker, in one pass each, and after a step back", (t) => {
  const count = 100_000;
  let produced = 0;
  const list = function* (): Iterable<Entry> {
    for (let i = 0; i < count; i++) {
      produced++;
      yield { name: bytes(`n${i}`), file: 1000 + i, kind: "file", inode: i };
    }
  };
  const workers = [session({ list }).session, session({ list }).session];
  const names: string[] = [];
  for (let offset = 0n, piece = 0; ; piece++) {
    const { body } = ask(workers[piece % 2]!, requestBytes(opcodes.READDIR, node(9), readIn(offset, 4096)))!;
    const listed = parse(body, false);
    if (listed.length === 0) break;
    // The kernel asks again for those that its reader's buffer did not take.
    const taken = listed.slice(0, Math.max(1, listed.length - 5));
    names.push(...taken.map((entry) => entry.name));
    offset = taken.at(-1)!.next;
  }
  t.deepEqual(names.slice(0, 3), [".", "..", "n0"]);
  t.is(names.length, count + 2);
  t.is(new Set(names).size, count + 2);
  t.true(produced <= 2 * count);
});

test("readers at different places of one directory don't make each other start anew", (t) => {
  let passes = 0;
  const { session: s } = session({
    *list() {
      passes++;
      for (let i = 0; i < 200_000; i++) yield { name: bytes(`n${i}`), file: 1000 + i, kind: "file", inode: i };
    },
  });
  const piece = (offset: number) =>
    parse(ask(s, requestBytes(opcodes.READDIR, node(9), readIn(BigInt(offset), 4096)))!.body, false)[0]!.name;
  for (let step = 0; step < 50; step++) {
    t.is(piece(150_002 + step * 100), `n${150_000 + step * 100}`);
    t.is(piece(2 + step * 100), `n${step * 100}`);
  }
  t.is(passes, 2);
});

test("a reply too small for one entry says so instead of ending the listing", (t) => {
  t.is(ask(session().session, requestBytes(opcodes.READDIR, node(9), readIn(2n, 16)))!.error, EINVAL);
});

const lseekIn = (offset: bigint, whence: number) => Buffer.concat([u64(0n, offset), u32(whence, 0)]);
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

test("LSEEK finds data and holes across neighbouring extents of one kind", (t) => {
  // 0-400 data, 400-800 hole, 800-1000 data, told in pieces of 100
  const extentAt = (_file: number, position: number): Extent => ({
    hole: position >= 400 && position < 800,
    length: 100 - (position % 100),
  });
  const { session: s } = session({ extentAt });
  const seek = (offset: bigint, whence: number) => {
    const { error, body } = ask(s, requestBytes(opcodes.LSEEK, node(7), lseekIn(offset, whence)))!;
    return error || body.readBigUInt64LE(0);
  };
  t.is(seek(0n, SEEK_DATA), 0n);
  t.is(seek(0n, SEEK_HOLE), 400n);
  t.is(seek(450n, SEEK_HOLE), 450n);
  t.is(seek(450n, SEEK_DATA), 800n);
  t.is(seek(999n, SEEK_HOLE), 1000n);
  t.is(seek(1000n, SEEK_HOLE), ENXIO);
  t.is(seek(1000n, SEEK_DATA), ENXIO);
  t.is(seek(2n ** 63n - 1n, SEEK_DATA), ENXIO);
  t.is(seek(0n, 0), EINVAL);
});

test("LSEEK for data in a file that ends with a hole is ENXIO", (t) => {
  const { session: s } = session({ extentAt: (_file, position) => ({ hole: true, length: 1000 - position }) });
  t.is(ask(s, requestBytes(opcodes.LSEEK, node(7), lseekIn(5n, SEEK_DATA)))!.error, ENXIO);
});

test("LSEEK over more extents than a request may take calls the rest data", (t) => {
  const size = 2 ** 40;
  const attributes = (file: number) => ({ ...tree().attributes(file), size });
  const { session: s } = session({ attributes, extentAt: () => ({ hole: false, length: 1 }) });
  const { body } = ask(s, requestBytes(opcodes.LSEEK, node(7), lseekIn(5n, SEEK_HOLE)))!;
  t.is(body.readBigUInt64LE(0), BigInt(size));
});

test("a tree without holes or extended attributes ends the kernel's asking for them", (t) => {
  const { session: s } = session();
  t.is(ask(s, requestBytes(opcodes.LSEEK, node(7), lseekIn(0n, SEEK_DATA)))!.error, ENOSYS);
  t.is(ask(s, requestBytes(opcodes.GETXATTR, node(7), Buffer.concat([u32(0, 0), name("user.a")])))!.error, ENOSYS);
  t.is(ask(s, requestBytes(opcodes.LISTXATTR, node(7), u32(0, 0)))!.error, ENOSYS);
});

test("extended attributes: size, value, too small a buffer, absent", (t) => {
  const { session: s } = session({
    extendedAttributes: () =>
      new Map([
        ["user.note", bytes("a note")],
        ["user.b", bytes("")],
      ]),
  });
  const get = (size: number, wanted: string) =>
    ask(s, requestBytes(opcodes.GETXATTR, node(7), Buffer.concat([u32(size, 0), name(wanted)])))!;
  t.is(get(0, "user.note").body.readUInt32LE(0), 6);
  t.is(get(0, "user.note").body.length, 8);
  t.is(get(6, "user.note").body.toString(), "a note");
  t.is(get(5, "user.note").error, ERANGE);
  t.deepEqual(get(10, "user.b"), { error: 0, body: Buffer.alloc(0) });
  t.is(get(10, "user.c").error, ENODATA);
  const list = (size: number) => ask(s, requestBytes(opcodes.LISTXATTR, node(7), u32(size, 0)))!;
  t.is(list(0).body.readUInt32LE(0), 17);
  t.is(list(17).body.toString(), "user.note\0user.b\0");
  t.is(list(16).error, ERANGE);
});

test("READLINK answers the target's bytes; one that no path can be is refused", (t) => {
  t.is(ask(session().session, requestBytes(opcodes.READLINK, node(8)))!.body.toString(), "over/there");
  const { session: s } = session({ readLink: () => new Uint8Array(5000) });
  t.is(ask(s, requestBytes(opcodes.READLINK, node(8)))!.error, ENAMETOOLONG);
});

test("STATFS answers the tree's numbers", (t) => {
  const { body } = ask(session().session, requestBytes(opcodes.STATFS, 1n))!;
  t.deepEqual(
    [0, 8, 16, 24, 32].map((at) => Number(body.readBigUInt64LE(at))),
    [11, 5, 5, 6, 3],
  );
  t.deepEqual(
    [40, 44, 48].map((at) => body.readUInt32LE(at)),
    [1024, 77, 1024],
  );
});

test("whatever would write is refused as read-only", (t) => {
  const { session: s } = session();
  for (const opcode of ["WRITE", "SETATTR", "MKDIR", "UNLINK", "RENAME2", "CREATE", "SETXATTR", "FALLOCATE"] as const)
    t.is(ask(s, requestBytes(opcodes[opcode], node(7), Buffer.alloc(64)))!.error, EROFS, opcode);
});

test("opening, closing and unknown operations are ENOSYS, so that the kernel stops asking", (t) => {
  const { session: s } = session();
  for (const opcode of [opcodes.OPEN, opcodes.OPENDIR, opcodes.FLUSH, opcodes.ACCESS, 40, 4711, 0xffffffff])
    t.is(ask(s, requestBytes(opcode, node(7), Buffer.alloc(64)))!.error, ENOSYS);
});

test("forgetting and interrupting have no reply, whatever node they name", (t) => {
  const { session: s } = session();
  for (const opcode of [opcodes.FORGET, opcodes.BATCH_FORGET, opcodes.INTERRUPT])
    for (const nodeid of [0n, 1n, 2n ** 64n - 1n])
      t.is(ask(s, requestBytes(opcode, nodeid, Buffer.alloc(24))), undefined);
});

test("an interruption tells which request it is about", (t) => {
  const { session: s } = session();
  const told: bigint[] = [];
  s.interrupted = (unique) => void told.push(unique);
  for (const unique of [2n, 0xfffffffffffffffen, 0x123456789abcdef0n])
    t.is(ask(s, requestBytes(opcodes.INTERRUPT, 0n, u64(unique))), undefined);
  t.deepEqual(told, [2n, 0xfffffffffffffffen, 0x123456789abcdef0n]);
});
