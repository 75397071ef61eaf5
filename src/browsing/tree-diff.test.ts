import test from "ava";
import { type FakeFile, FakeTree, file, folder, link } from "./fake-tree-test-tools.js";
import { textOf } from "./names.js";
import { type TreeDiffOptions, treeDiff } from "./tree-diff.js";

function diff(a: FakeFile, b: FakeFile, more: Partial<TreeDiffOptions> = {}) {
  const problems: string[] = [];
  const trees = [new FakeTree(a), new FakeTree(b)] as const;
  const changes = treeDiff(...trees, {
    path: "/",
    problem: (path, error) => problems.push(`${textOf(path)}: ${error.message}`),
    ...more,
  });
  const lines = [...changes].map((one) =>
    one.change === "changed"
      ? `~ ${textOf(one.path)} ${one.what.join(",")}`
      : `${one.change === "added" ? "+" : "-"} ${textOf(one.path)}`,
  );
  return { lines, problems, trees };
}

test("equal trees have no differences", (t) => {
  const tree = () => folder({ a: file("x"), d: folder({ b: file("y"), l: link("b") }) });
  t.deepEqual(diff(tree(), tree()).lines, []);
});

test("files are added, removed and changed, in the order of their names", (t) => {
  const a = folder({ b: file("1"), d: folder({ x: file("same"), y: file("old") }), e: file("gone"), z: file("z") });
  const b = folder({ a: file("new"), b: file("2"), d: folder({ x: file("same"), y: file("young") }), z: file("z") });
  t.deepEqual(diff(a, b).lines, ["+ /a", "~ /b content", "~ /d/y size,content", "- /e"]);
  t.deepEqual(diff(b, a).lines, ["- /a", "~ /b content", "~ /d/y size,content", "+ /e"]);
});

test("a folder that is added or removed is told with all that is in it", (t) => {
  const deep = folder({ d: folder({ e: folder({ f: file("x") }), g: file("y") }) });
  t.deepEqual(diff(folder(), deep).lines, ["+ /d", "+ /d/e", "+ /d/e/f", "+ /d/g"]);
  t.deepEqual(diff(deep, folder()).lines, ["- /d", "- /d/e", "- /d/e/f", "- /d/g"]);
});

test("a folder in the place of a file, and a file in the place of a folder", (t) => {
  const a = folder({ x: folder({ y: file("1") }), z: file("2") });
  const b = folder({ x: file("1"), z: folder({ y: file("2") }) });
  t.deepEqual(diff(a, b).lines, ["~ /x kind", "- /x/y", "~ /z kind", "+ /z/y"]);
});

const later = { seconds: 1_700_000_000, nanoseconds: 123_456_790 };
for (const [index, [what, a, b]] of (
  [
    ["mode", file("x", { attributes: { mode: 0o644 } }), file("x", { attributes: { mode: 0o4644 } })],
    ["owner", file("x", { attributes: { owner: 0 } }), file("x", { attributes: { owner: 1 } })],
    ["group", file("x", { attributes: { group: 0 } }), file("x", { attributes: { group: 1 } })],
    ["modified", file("x"), file("x", { attributes: { modified: later } })],
    ["target", link("a"), link("b")],
    ["attributes", file("x"), file("x", { extended: [["user.note", Buffer.from("n")]] })],
    [
      "attributes",
      file("x", { extended: [["user.note", Buffer.from("m")]] }),
      file("x", { extended: [["user.note", Buffer.from("n")]] }),
    ],
    ["streams", file("x"), file("x", { streams: { s: Buffer.from("1") } })],
    ["streams", file("x", { streams: { s: Buffer.from("2") } }), file("x", { streams: { s: Buffer.from("1") } })],
  ] as const
).entries())
  test(`a change of ${what} alone is told (${index + 1})`, (t) => {
    t.deepEqual(diff(folder({ f: a }), folder({ f: b })).lines, [`~ /f ${what}`]);
  });

test("times of access and of the record, numbers and links don't count", (t) => {
  const other = file("x", { attributes: { accessed: later, changed: later, inode: 77, links: 3, allocated: 8192 } });
  t.deepEqual(diff(folder({ f: file("x") }), folder({ f: other })).lines, []);
});

test("a file's holes are zeros", (t) => {
  const zeros = "\0".repeat(5000);
  const holed = file(`${zeros}x`, { hole: { from: 0, to: 4096 } });
  t.deepEqual(diff(folder({ f: file(`${zeros}x`) }), folder({ f: holed })).lines, []);
});

test("content that is known to be equal is not read", (t) => {
  const a = folder({ f: file("one"), g: file("two") });
  const b = folder({ f: file("eno"), g: file("owt") });
  const asked: number[][] = [];
  const { lines, trees } = diff(a, b, {
    knownEqual(x, _y, position, length) {
      asked.push([position, length]);
      return x === 2;
    },
  });
  t.deepEqual(lines, ["~ /g content"]);
  t.deepEqual(asked, [
    [0, 3],
    [0, 3],
  ]);
  t.is(trees[0].calls.read, 1);
});

test("a file that can't be read is a problem, and the rest goes on", (t) => {
  const a = folder({ a: file("0123456789"), b: file("x"), c: file("1") });
  const b = folder({
    a: file("0123456789", { damage: { from: 0, to: 5 } }),
    b: file("x", { broken: true }),
    c: file("2"),
  });
  const { lines, problems } = diff(a, b);
  t.deepEqual(lines, ["~ /c content"]);
  t.is(problems.length, 2);
});

test("of a folder that can't be listed whole nothing is said to be missing", (t) => {
  const a = folder({ d: folder({ x: file(), y: file() }), e: file("1") });
  const b = folder({ d: folder({ x: file() }, { tornListing: true }), e: file("2") });
  const { lines, problems } = diff(a, b);
  t.deepEqual(lines, ["~ /e content"]);
  t.is(problems.length, 1);
});

test("a folder within itself ends", (t) => {
  const loop = folder([
    ["f", file("x")],
    ["self", 1],
  ]);
  const { lines, problems } = diff(loop, loop);
  t.deepEqual(lines, []);
  t.is(problems.length, 1);
});
