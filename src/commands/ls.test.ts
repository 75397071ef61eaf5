import test from "ava";
import { FakeTree, file, folder, link } from "../browsing/fake-tree-test-tools.js";
import { escaped } from "../browsing/names.js";
import { Problems } from "./image-files.js";
import { quietTerminal } from "./image-files-test-tools.js";
import { type LsArguments, listing } from "./ls.js";

function list(tree: FakeTree, given: Partial<LsArguments> = {}, shown = (name: string) => name) {
  const terminal = quietTerminal();
  const text = [...listing(tree, { image: "x", ...given }, new Problems(terminal), shown)].join("");
  return { text, notes: terminal.notes, code: terminal.exitCode };
}

test("names are sorted by bytes, and those with a point are hidden", (t) => {
  const tree = new FakeTree(
    folder([
      ["b", file()],
      ["B", file()],
      [".h", file()],
      ["\xff", file()],
      ["a", folder()],
    ]),
  );
  t.is(list(tree).text, "B\na\nb\n\xff\n");
  t.is(list(tree, { all: true }).text, ".\n..\n.h\nB\na\nb\n\xff\n");
  t.is(list(tree, { directory: true }).text, "/\n");
  t.is(list(tree, {}, escaped).text, "B\na\nb\n\\377\n");
});

test("files come before folders, and what isn't there is said", (t) => {
  const tree = new FakeTree(folder({ d: folder({ x: file() }), f: file(), l: link("d") }));
  const { text, notes, code } = list(tree, { path: ["d", "l", "nope", "f"] });
  t.is(text, "f\nl\n\nd:\nx\n");
  t.deepEqual(notes, ["spindle: nope: the image has no such file or folder"]);
  t.is(code, 3);
  t.is(list(tree, { path: ["l/"] }).text, "x\n");
});

test("a file with a damaged record is a line of question marks", (t) => {
  const tree = new FakeTree(folder({ bad: file("", { broken: true }), good: file("abc") }));
  const { text, notes, code } = list(tree, { long: true });
  t.regex(text, /^total 4\n\?{10} +\? +\? +\? +\? +\? bad\n-rw-r--r-- 1 .* 3 .* good\n$/);
  t.is(notes.length, 1);
  t.is(code, 5);
});

test("a folder within itself ends", (t) => {
  const { text, code } = list(new FakeTree(folder({ a: folder({ up: 1, self: 2 }) })), { recursive: true });
  t.is(text, "/:\na\n\n/a:\nself\nup\n");
  t.is(code, 5);
});

test("200,000 entries take as many steps", (t) => {
  const count = 200_000;
  const entries = Array.from({ length: count }, (_, index) => [`entry ${(index * 7919) % count}`, file()] as const);
  const tree = new FakeTree(folder(entries));
  const short = list(tree).text;
  t.is(
    short.length,
    entries.reduce((sum, [name]) => sum + name.length + 1, 0),
  );
  t.deepEqual({ ...tree.calls }, { attributes: 2, lookup: 0, list: 1, entries: count, read: 0 });
  // With -l each file's record is read, and those that aren't kept between the two passes once more.
  const long = list(tree, { long: true }).text;
  t.is(long.split("\n").length, count + 2);
  t.is(tree.calls.list, 2);
  t.is(tree.calls.entries, 2 * count);
  t.true(tree.calls.attributes < 2 * count + 10);
});
