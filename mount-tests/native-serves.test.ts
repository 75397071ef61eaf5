import { type SpawnSyncReturns, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ExecutionContext } from "ava";
import { native } from "../src/fuse/native.js";
import { people, serialFor } from "./helpers.js";
import { bigSize, byteAt, damage, manyNames } from "./native-tree.js";

// The server runs in this process, so everything that looks at the mount runs in others.
const serial = serialFor(people[0]);

async function mounted(t: ExecutionContext) {
  const folder = mkdtempSync(join(tmpdir(), "spindle-native-"));
  const mountpoint = join(folder, "mnt");
  mkdirSync(mountpoint);
  const lines: string[] = [];
  const server = await native.mount({
    mountpoint,
    options: { allowOther: false, fsname: "test, with comma", others: [] },
    tree: { module: new URL("./native-tree.js", import.meta.url).href, exported: "build", data: undefined },
    workers: 4,
    cacheBytes: 1024 * 1024,
    chunkSize: 0,
    log: (line) => lines.push(line),
  });
  t.teardown(async () => {
    server.unmount();
    await server.finished;
    rmSync(folder, { recursive: true });
  });
  const run = (command: string, ...parameters: string[]) =>
    new Promise<Pick<SpawnSyncReturns<Buffer>, "status" | "stdout" | "stderr">>((done, fail) => {
      const child = spawn(command, parameters, { cwd: mountpoint, env: { ...process.env, LC_ALL: "C" } });
      const out: Buffer[] = [];
      const err: Buffer[] = [];
      child.stdout.on("data", (data: Buffer) => out.push(data));
      child.stderr.on("data", (data: Buffer) => err.push(data));
      child.on("error", fail);
      child.on("close", (status) => done({ status, stdout: Buffer.concat(out), stderr: Buffer.concat(err) }));
    });
  const node = (code: string) => run(process.execPath, "-e", code);
  return { server, lines, run, node, mountpoint };
}

serial("attributes are the tree's, with sizes over 4 GiB and ids over 2^31", async (t) => {
  const { run } = await mounted(t);
  const { stdout } = await run(
    "stat",
    "-c",
    "%n %F %a %u %g %s %b %Y %t,%T",
    "big",
    "link",
    "folder",
    "null",
    "set-id",
    "old",
  );
  t.deepEqual(stdout.toString().trim().split("\n"), [
    `big regular file 644 1234 4000000000 ${bigSize} 100 1600000000 0,0`,
    "link symbolic link 644 1234 4000000000 12 0 1600000000 0,0",
    "folder directory 755 1234 4000000000 0 0 1600000000 0,0",
    "null character special file 644 1234 4000000000 0 0 1600000000 1,3",
    "set-id regular file 4755 1234 4000000000 10 1 1600000000 0,0",
    "old regular file 644 1234 4000000000 10 1 0 0,0",
  ]);
});

serial("reads are exact at any offset and length, across short reads of the tree and past 4 GiB", async (t) => {
  const { node } = await mounted(t);
  const places = [
    [0, 100],
    [39_990, 20],
    [2 ** 32 - 5, 200_000],
    [bigSize - 7, 100],
    [bigSize, 10],
    [131_071, 3],
    [123_457, 1_000_000],
  ] as const;
  const { stdout, stderr } = await node(`
    const fs = require("fs"); const fd = fs.openSync("big");
    for (const [position, length] of ${JSON.stringify(places)}) {
      const bytes = Buffer.alloc(length);
      const count = fs.readSync(fd, bytes, 0, length, position);
      console.log(count, bytes.subarray(0, count).toString("base64"));
    }`);
  t.is(stderr.toString(), "");
  const lines = stdout.toString().split("\n");
  for (const [index, [position, length]] of places.entries()) {
    const expected = Buffer.from(
      Array.from({ length: Math.max(0, Math.min(length, bigSize - position)) }, (_, at) => byteAt(position + at)),
    );
    t.is(lines[index], `${expected.length} ${expected.toString("base64")}`);
  }
});

serial("a folder of thousands lists them all once, and `.` and `..` are those of the kernel", async (t) => {
  const { run } = await mounted(t);
  const { stdout } = await run("ls", "-U", "-a", "many");
  const names = stdout.toString().trim().split("\n");
  t.is(names.length, manyNames + 2);
  t.is(new Set(names).size, manyNames + 2);
  const { stdout: kinds } = await run("find", ".", "-maxdepth", "1", "-printf", "%y");
  t.is([...kinds.toString()].sort().join(""), "cddd" + "ffffffl");
});

serial("names in UTF-8 are exact; bytes that are not UTF-8 become U+FFFD and can still be opened", async (t) => {
  const { run } = await mounted(t);
  t.is((await run("cat", "é ü\n")).stdout.length, 777);
  const { stdout } = await run("find", ".", "-name", "b*d", "-printf", "%f");
  t.is(stdout.toString(), "b\ufffdd");
  t.is((await run("cat", "b\ufffdd")).stdout.length, 777);
});

serial("a link leads where the tree says", async (t) => {
  const { run } = await mounted(t);
  t.is((await run("readlink", "link")).stdout.toString(), "folder/inner\n");
  t.is((await run("cat", "link")).stdout.length, 777);
});

serial("what isn't there is ENOENT, a file is no folder, and nothing can be written", async (t) => {
  const { run, node } = await mounted(t);
  const { stdout } = await node(`
    const fs = require("fs");
    const code = (act) => { try { act(); return "none"; } catch (error) { return error.code; } };
    console.log(code(() => fs.readFileSync("none")), code(() => fs.readFileSync("big/none")), code(() => fs.readdirSync("big")),
      code(() => fs.writeFileSync("set-id", "x")), code(() => fs.mkdirSync("new")), code(() => fs.unlinkSync("big")),
      code(() => fs.readlinkSync("big")), code(() => fs.readFileSync("folder")))`);
  t.is(stdout.toString(), "ENOENT ENOTDIR ENOTDIR EROFS EROFS EROFS EINVAL EISDIR\n");
  t.is(
    (await run("stat", "-f", "-c", "%S %b", ".")).stdout
      .toString()
      .trim()
      .split(" ")
      .map(Number)
      .reduce((a, b) => a * b),
    2 ** 46,
  );
});

serial("damaged bytes are EIO for their range only, with one line in the log", async (t) => {
  const { lines, node } = await mounted(t);
  const { stdout } = await node(`
    const fs = require("fs"); const fd = fs.openSync("damaged");
    const read = (position, length) => { try { return fs.readSync(fd, Buffer.alloc(length), 0, length, position); } catch (error) { return error.code; } };
    console.log(read(0, 900000), read(${damage.from}, 100), read(${damage.from + 4096}, 100), read(${damage.from + 8192}, 1), read(1200000, 900000));`);
  t.is(stdout.toString(), "900000 EIO EIO EIO 900000\n");
  t.deepEqual(lines, [`test.img: chunk 15 is damaged, disk bytes ${damage.from} to ${damage.to}`]);
});

serial("extended attributes are exact, and a buffer that is too small is refused with ERANGE", async (t) => {
  const { run } = await mounted(t);
  const python = `
import os, ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(os.listxattr("folder/inner"), os.getxattr("folder/inner", "user.note"), os.getxattr("folder/inner", "user.empty"), os.listxattr("big"))
for size in (1, 5):
    print(libc.getxattr(b"folder/inner", b"user.note", ctypes.create_string_buffer(64), size), ctypes.get_errno())
    print(libc.listxattr(b"folder/inner", ctypes.create_string_buffer(64), size), ctypes.get_errno())
print(libc.getxattr(b"folder/inner", b"user.none", None, 0), ctypes.get_errno())`;
  const { stdout, stderr } = await run("python3", "-c", python).catch(() => ({ stdout: undefined, stderr: "" }));
  if (stdout === undefined) {
    t.log("skipped: python3 is not installed");
    return t.pass();
  }
  t.is(stderr.toString(), "");
  const value = `b'a value\\x00with a NUL and \\xff'`;
  t.is(stdout.toString(), `['user.note', 'user.empty'] ${value} b'' []\n-1 34\n-1 34\n-1 34\n-1 34\n-1 61\n`);
  return undefined;
});

serial("an unmount from outside ends the server, and what it counted is told", async (t) => {
  const { server, run, mountpoint } = await mounted(t);
  await run("cat", "link");
  t.true(server.counters().requests! > 0);
  t.is(server.counters().bytesRead, 777);
  const ended = await new Promise<number | null>((done) => spawn("fusermount3", ["-u", mountpoint]).on("close", done));
  t.is(ended, 0);
  await server.finished;
  t.notThrows(() => server.unmount());
});
