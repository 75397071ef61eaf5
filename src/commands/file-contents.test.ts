import test from "ava";
import { FakeTree, file, folder, link } from "../browsing/fake-tree-test-tools.js";
import { contentAt } from "./file-contents.js";

const tree = new FakeTree(
  folder({
    "a.exe": file("program", { streams: { "Zone.Identifier": Buffer.from("[ZoneTransfer]") } }),
    "b:c": file("no stream"),
    b: file("b", { streams: { c: Buffer.from("hidden by a file") } }),
    link: link("a.exe"),
    folder: folder({}, { streams: { of: Buffer.from("a folder") } }),
  }),
);

function read(path: string): string {
  const source = contentAt(tree, path);
  const bytes = Buffer.alloc(source.size);
  source.read(0, bytes);
  return bytes.toString();
}

test("FILE:STREAM is a stream where no file has that name", (t) => {
  t.is(read("a.exe:Zone.Identifier"), "[ZoneTransfer]");
  t.is(read("/link:Zone.Identifier"), "[ZoneTransfer]");
  t.is(read("folder:of"), "a folder");
  t.is(read("b:c"), "no stream");
  t.is(read("a.exe"), "program");
});

test("what has neither is refused", (t) => {
  for (const path of ["a.exe:none", "none:c", "none", ":c", "folder/:of"])
    t.throws(() => read(path), { code: "missing" });
  t.throws(() => read("folder"), { code: "usage", message: "folder: it is a folder, not a file." });
});
