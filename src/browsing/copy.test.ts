import {
  chmodSync,
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { Copier, type CopyOptions } from "./copy.js";
import { type FakeFile, FakeTree, file, folder, link } from "./fake-tree-test-tools.js";
import { byteStringOfText } from "./names.js";

const MiB = 1024 * 1024;

/** Copies a whole tree into `scratch/target`; beside that is `scratch/outside`. */
function copy(
  t: ExecutionContext,
  root: FakeFile,
  options: Partial<CopyOptions> & { before?: (target: string) => void; tree?: FakeTree } = {},
) {
  const scratch = mkdtempSync(join(tmpdir(), "spindle-copy-"));
  t.teardown(() => rmSync(scratch, { recursive: true }));
  const target = join(scratch, "target");
  const outside = join(scratch, "outside");
  mkdirSync(target);
  mkdirSync(outside);
  writeFileSync(join(outside, "passwd"), "untouched");
  options.before?.(target);
  const problems: string[] = [];
  const tree = options.tree ?? new FakeTree(root);
  const fd = openSync(target, "r");
  const copier = new Copier(tree, fd, {
    force: false,
    plain: false,
    problem: (path, error) => problems.push(`${error.code} ${path}: ${error.message}`),
    progress() {},
    ...options,
  });
  const copied = copier.copy({ file: tree.root, kind: "directory", path: "/", name: undefined });
  closeSync(fd);
  t.deepEqual(readdirSync(outside), ["passwd"]);
  t.is(readFileSync(join(outside, "passwd"), "utf8"), "untouched");
  return { target, outside, problems, copied, at: (path: string) => join(target, path) };
}

test("files, folders and links are copied with their times and modes", (t) => {
  const old = { seconds: -1_000_000_000, nanoseconds: 999_999_999 };
  const { at, problems, copied } = copy(
    t,
    folder({
      a: folder({ "näme\n": file("content", { attributes: { mode: 0o640, modified: old, accessed: old } }) }),
      l: link("/etc/passwd"),
      sealed: folder({ x: file("") }, { attributes: { mode: 0o555 } }),
    }),
  );
  t.teardown(() => chmodSync(at("sealed"), 0o755));
  t.deepEqual(problems, []);
  t.like(copied, { files: 2, folders: 2, symlinks: 1, bytes: 7, notKept: [] });
  t.is(readFileSync(at("a/näme\n"), "utf8"), "content");
  const stat = lstatSync(at("a/näme\n"), { bigint: true });
  t.is(stat.mtimeNs, -999_999_999_000_000_001n);
  t.is(Number(stat.mode & 0o7777n), 0o640);
  t.is(lstatSync(at("a"), { bigint: true }).mtimeNs, 1_700_000_000_123_456_789n);
  t.is(lstatSync(at("l"), { bigint: true }).mtimeNs, 1_700_000_000_123_456_789n);
  t.is(readlinkSync(at("l")), "/etc/passwd");
  t.is(statSync(at("sealed")).mode & 0o7777, 0o555);
});

test("a link to a folder outside and a folder of the same name: nothing is written outside", (t) => {
  for (const force of [false, true]) {
    const { at, problems } = copy(
      t,
      folder([
        ["a", link("../outside")],
        ["a", folder({ passwd: file("evil"), deeper: folder({ x: file("evil") }) })],
        ["b", file("last")],
      ]),
      { force },
    );
    t.is(readlinkSync(at("a")), "../outside");
    t.is(problems.length, 1);
    t.regex(problems[0]!, /^corrupt \/a: .*has this name twice; only the first is copied/);
    t.is(readFileSync(at("b"), "utf8"), "last");
  }
});

test("of two files of one name the first is copied and the image is to blame, with --force too", (t) => {
  const root = folder([
    ["passwd", link("../outside/passwd")],
    ["passwd", file("evil")],
    [
      "d",
      folder([
        ["x", file("first")],
        ["x", file("second")],
      ]),
    ],
  ]);
  for (const force of [false, true]) {
    const { at, problems } = copy(t, root, { force });
    t.is(readlinkSync(at("passwd")), "../outside/passwd");
    t.is(readFileSync(at("d/x"), "utf8"), "first");
    t.deepEqual(
      problems.map((line) => line.replace(/:.*/, "")),
      ["corrupt /passwd", "corrupt /d/x"],
    );
  }
});

test("a file of the name of a link that is in the target isn't written through it", (t) => {
  const root = folder({ passwd: file("evil") });
  const before = (target: string) => symlinkSync("../outside/passwd", join(target, "passwd"));
  const careful = copy(t, root, { before });
  t.is(readlinkSync(careful.at("passwd")), "../outside/passwd");
  t.regex(careful.problems[0]!, /^usage .*in the target already/);
  const forced = copy(t, root, { before, force: true });
  t.is(readFileSync(forced.at("passwd"), "utf8"), "evil");
  t.false(lstatSync(forced.at("passwd")).isSymbolicLink());
});

test("links that are in the target already aren't followed either", (t) => {
  const before = (target: string) => symlinkSync("../outside", join(target, "a"));
  for (const force of [false, true]) {
    const { problems } = copy(t, folder({ a: folder({ passwd: file("evil") }) }), { before, force });
    t.is(problems.length, 1);
    t.regex(problems[0]!, /^usage \/a: .*is no folder/);
  }
});

test("names that would lead out of the target are refused", (t) => {
  const names = ["../escaped", "..", ".", "", "a/b", "nul\0"];
  const { target, problems } = copy(t, folder(names.map((name) => [name, file("evil")] as const)));
  t.deepEqual(readdirSync(target), []);
  t.is(problems.length, names.length);
  t.true(problems.every((line) => line.startsWith("corrupt ")));
});

test("what is there stays, unless --force is given", (t) => {
  const root = folder({ x: file("new"), d: folder({ y: file("new") }), f: file("new") });
  const before = (target: string) => {
    writeFileSync(join(target, "x"), "old");
    mkdirSync(join(target, "d"), { mode: 0o700 });
    mkdirSync(join(target, "f"));
    writeFileSync(join(target, "d", "z"), "old");
  };
  const careful = copy(t, root, { before });
  t.is(readFileSync(careful.at("x"), "utf8"), "old");
  t.is(readFileSync(careful.at("d/y"), "utf8"), "new");
  t.is(statSync(careful.at("d")).mode & 0o777, 0o700);
  t.is(careful.problems.length, 2);
  const forced = copy(t, root, { before, force: true });
  t.is(readFileSync(forced.at("x"), "utf8"), "new");
  t.is(readFileSync(forced.at("d/z"), "utf8"), "old");
  t.is(statSync(forced.at("d")).mode & 0o777, 0o755);
  t.deepEqual(forced.problems, ["usage /f: /f: in the target this is a folder; it is left as it is."]);
});

test("several names of a file are one file in the copy", (t) => {
  const linked = { attributes: { links: 3 } };
  const { at, copied } = copy(
    t,
    folder([
      ["a", folder([["one", file("x", linked)]])], // folder 2, file 3
      ["two", 3],
      ["b", folder([["three", 3]])],
    ]),
  );
  t.like(copied, { files: 1, hardLinks: 2 });
  t.is(statSync(at("a/one")).nlink, 3);
  t.is(statSync(at("b/three")).ino, statSync(at("two")).ino);
});

test("holes stay holes, at the end too", (t) => {
  const content = Buffer.alloc(8 * MiB);
  content.write("begin");
  content.write("middle", 5 * MiB);
  const sparse = (from: number, to: number) => file("", { content, hole: { from, to } });
  const { at } = copy(
    t,
    folder({ inside: sparse(4096, 5 * MiB), end: sparse(6 * MiB, 8 * MiB), all: sparse(0, 8 * MiB) }),
  );
  t.true(readFileSync(at("inside")).equals(content));
  t.true(readFileSync(at("end")).equals(content));
  t.true(statSync(at("inside")).blocks * 512 < 4 * MiB);
  t.is(statSync(at("all")).size, 8 * MiB);
  t.is(statSync(at("all")).blocks, 0);
});

test("damaged files are copied as far as they can be read, and listed", (t) => {
  const content = Buffer.alloc(3 * MiB, "x");
  const { at, problems, copied } = copy(
    t,
    folder({
      bad: file("", { content, damage: { from: MiB + 4096, to: MiB + 12288 } }),
      record: file("", { broken: true }),
      torn: folder({ x: file("kept") }, { tornListing: true }),
      good: file("good"),
    }),
  );
  t.true(readFileSync(at("bad")).equals(Buffer.from(content).fill(0, MiB + 4096, MiB + 12288)));
  t.is(readFileSync(at("good"), "utf8"), "good");
  t.is(readFileSync(at("torn/x"), "utf8"), "kept");
  t.false(existsSync(at("record")));
  t.is(copied.files, 3);
  t.deepEqual(
    problems.map((line) => line.split(" ").slice(0, 2).join(" ")),
    ["corrupt /bad:", "corrupt /record:", "corrupt /torn:"],
  );
  t.regex(problems[0]!, /8192 of its 3145728 bytes are damaged, at byte 1052672/);
});

test("extended attributes are kept, and what can't be is told once", (t) => {
  const attributes = [
    ["user.note", Buffer.from("value")],
    ["nonsense.x", Buffer.from("y")],
  ] as const;
  const { at, copied } = copy(
    t,
    folder({
      a: file("", { extended: attributes, attributes: { mode: 0o444 } }),
      b: file("", { extended: attributes }),
    }),
  );
  t.true(existsSync(at("a")));
  const losses = copied.notKept.filter(({ what }) => what === "extended attributes (nonsense)");
  t.is(losses.length, 1);
  t.like(losses[0], { files: 2, first: "/a" });
  const user = copied.notKept.find(({ what }) => what === "extended attributes (user)");
  if (user) t.log(`the scratch filesystem has no user attributes: ${user.why}`);
});

test("--plain leaves owners, set-id bits, attributes and devices out", (t) => {
  const { at, copied, target } = copy(
    t,
    folder({
      s: file("", { attributes: { mode: 0o4755, owner: 12345 }, extended: [["user.a", Buffer.from("b")]] }),
      fifo: { kind: "fifo" },
    }),
    { plain: true },
  );
  t.deepEqual(readdirSync(target), ["s"]);
  const stat = statSync(at("s"));
  t.is(stat.mode & 0o7777, 0o755 & ~process.umask());
  t.is(stat.uid, process.getuid!());
  t.like(copied.notKept, [{ what: "fifos", files: 1 }]);
});

test("a tree deeper than there may be open files is copied", (t) => {
  let root = folder({ bottom: file("x", { attributes: { links: 2 } }) });
  for (let level = 0; level < 300; level++) root = folder({ d: root, side: folder() });
  const { at, problems, copied } = copy(t, root);
  t.deepEqual(problems, []);
  t.is(copied.folders, 600);
  t.is(readFileSync(at(`${"d/".repeat(300)}bottom`), "utf8"), "x");
  t.is(statSync(at("d/d/side"), { bigint: true }).mtimeNs, 1_700_000_000_123_456_789n);
});

test("a name that the target can't hold is one file's failure", (t) => {
  const { problems, copied } = copy(
    t,
    folder([
      ["n".repeat(300), file("x")],
      [byteStringOfText("fine"), file("y")],
    ]),
  );
  t.is(problems.length, 1);
  t.regex(problems[0]!, /^unsupported .*ENAMETOOLONG/);
  t.is(copied.files, 1);
});
