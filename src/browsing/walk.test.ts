import test from "ava";
import { FakeTree, file, folder } from "./fake-tree-test-tools.js";
import { deepest, sortedEntries, walk } from "./walk.js";

function walked(tree: FakeTree, options: { sorted?: boolean; maxDepth?: number } = {}) {
  const problems: string[] = [];
  const problem = (path: string, error: Error) => problems.push(`${path}: ${error.message}`);
  const start = { file: tree.root, name: "", kind: "directory" as const };
  const visits = [...walk(tree, start, "/", { ...options, problem })];
  return { visits, paths: visits.filter(({ after }) => !after).map(({ path }) => path), problems };
}

test("a walk meets all, folders before and after what is in them", (t) => {
  const tree = new FakeTree(folder({ b: folder({ c: file() }), a: file() }));
  const { visits } = walked(tree);
  t.deepEqual(
    visits.map(({ path, after, depth }) => `${depth} ${path}${after ? " after" : ""}`),
    ["0 /", "1 /b", "2 /b/c", "1 /b after", "1 /a", "0 / after"],
  );
  t.deepEqual(walked(tree, { sorted: true }).paths, ["/", "/a", "/b", "/b/c"]);
  t.deepEqual(walked(tree, { maxDepth: 1 }).paths, ["/", "/b", "/a"]);
  t.deepEqual(walked(tree, { maxDepth: 0 }).paths, ["/"]);
});

test("a folder within itself is entered once", (t) => {
  const { paths, problems } = walked(new FakeTree(folder({ a: folder({ up: 1, self: 2 }) })));
  t.deepEqual(paths, ["/", "/a", "/a/up", "/a/self"]);
  t.is(problems.length, 2);
  t.regex(problems[0]!, /^\/a\/up: .*met before/);
});

test("folders that share their folders don't multiply", (t) => {
  // 40 levels, each with two names for the next: 2^40 paths.
  let tree: ReturnType<typeof folder> = folder({ bottom: file() });
  for (let level = 0; level < 40; level++) tree = folder({ one: tree, two: 41 - level });
  t.true(walked(new FakeTree(tree)).visits.length < 200);
});

test("a depth without end is bounded", (t) => {
  const tree = new FakeTree(folder());
  // Each folder has one within it, with a number of its own.
  tree.list = function* (id) {
    yield { name: Buffer.from("d"), file: id + 1, kind: "directory" };
  };
  const { visits, problems } = walked(tree);
  t.is(visits.length, 2 * (deepest + 2));
  t.is(problems.length, 1);
  t.regex(problems[0]!, /folders deep/);
});

test("damage ends a listing, and the walk goes on", (t) => {
  const { paths, problems } = walked(
    new FakeTree(folder({ a: folder({ x: file() }, { tornListing: true }), b: file() })),
  );
  t.deepEqual(paths, ["/", "/a", "/a/x", "/b"]);
  t.deepEqual(problems, ["/a: fake: folder 2 is damaged"]);
});

test("a folder too large to be sorted is given as it comes", (t) => {
  const tree = new FakeTree(folder({ d: file(), c: file(), b: file(), a: file() }));
  const names = (most: number) => [...sortedEntries(tree, 1, "/", () => {}, most)].map(({ name }) => name).join("");
  t.is(names(5), "abcd");
  t.is(names(3), "dcba");
});
