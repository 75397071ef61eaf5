import test from "ava";
import { FakeTree, file, folder, link } from "./fake-tree-test-tools.js";
import { byteStringOfText } from "./names.js";
import { findPath } from "./paths.js";

const tree = new FakeTree(
  folder([
    ["etc", folder({ passwd: file("root"), "os-release": link("../usr/lib/os-release") })],
    ["usr", folder({ lib: folder({ "os-release": file("debian") }) })],
    ["lib", link("usr/lib")],
    ["absolute", link("/etc/passwd")],
    ["above", link("../../../../etc")],
    ["loop", link("loop")],
    ["a", link("b/x")],
    ["b", link("a/x")],
    ["empty", link("")],
    ["\xff\n", file("odd")],
    ["\\xff", file("literal")],
    [byteStringOfText("é"), file("é")],
  ]),
);
const at = (path: string, follow = true) => {
  const { file } = findPath(tree, path, { follow });
  const { kind } = tree.attributes(file);
  if (kind === "symlink") return `-> ${tree.readLink(file)}`;
  if (kind !== "file") return kind;
  const bytes = Buffer.alloc(20);
  return bytes.subarray(0, tree.read(file, 0, bytes)).toString();
};

test("paths lead through folders, points and links", (t) => {
  t.is(at("/etc/passwd"), "root");
  t.is(at("etc//./passwd"), "root");
  t.is(at("etc/../etc/passwd"), "root");
  t.is(at("/../../etc/passwd"), "root");
  t.is(at("lib/os-release"), "debian");
  t.is(at("etc/os-release"), "debian");
  t.is(at(""), "directory");
});

test("a link at the end is followed when asked, or with a slash behind it", (t) => {
  t.is(at("lib", false), "-> usr/lib");
  t.is(at("lib/", false), "directory");
  t.is(at("lib/.", false), "directory");
  t.is(at("absolute", false), "-> /etc/passwd");
});

test("absolute links, and links that climb, stay within the image", (t) => {
  t.is(at("absolute"), "root");
  t.is(at("above/passwd"), "root");
});

test("in a disk of several filesystems, a link stays within its own", (t) => {
  const several = new FakeTree(
    folder({
      p1: folder({ etc: folder({ name: file("one") }), up: link("../p2/etc/name"), root: link("/etc/name") }),
      p2: folder({ etc: folder({ name: file("two") }), root: link("/etc/name"), up: link("../etc/name") }),
    }),
  );
  several.type = "several";
  const content = (path: string) => {
    const bytes = Buffer.alloc(3);
    several.read(findPath(several, path, { follow: true }).file, 0, bytes);
    return bytes.toString();
  };
  t.is(content("p1/root"), "one");
  t.is(content("p2/root"), "two");
  t.is(content("p2/up"), "two");
  t.is(content("p1/../p2/root"), "two");
  t.throws(() => content("p1/up"), { message: /no such file/ });
});

test("links that go round are refused", (t) => {
  for (const path of ["loop", "a", "b/c"])
    t.throws(() => findPath(tree, path, { follow: true }), { code: "missing", message: /symbolic links/ });
});

test("what isn't there is said by name", (t) => {
  t.throws(() => at("etc/shadow"), { message: "etc/shadow: the image has no such file or folder" });
  t.throws(() => at("etc/passwd/x"), { message: "etc/passwd/x: passwd is not a folder" });
  t.throws(() => at("etc/passwd/"), { message: "etc/passwd/: it is not a folder" });
});

test("a name is taken as it is first, then with its escapes undone", (t) => {
  t.is(at("\\xff\\n"), "odd");
  t.is(at("\\377\\n"), "odd");
  t.is(at("\\xff"), "literal");
  t.is(at(byteStringOfText("é")), "é");
  t.is(at("\\303\\251"), "é");
});
