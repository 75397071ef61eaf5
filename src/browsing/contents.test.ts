import test from "ava";
import { type ByteSource, readFully } from "../bytes/byte-source.js";
import { corrupt } from "../errors.js";
import { FileBytes, mostDamage, readSize, stretchesOf } from "./contents.js";
import { type FakeFile, FakeTree, file, folder } from "./fake-tree-test-tools.js";

const noise = Buffer.from(Array.from({ length: 3 * readSize + 5 }, (_, index) => (index * 7919) >> 3));

function stretches(more: Partial<FakeFile>) {
  const tree = new FakeTree(folder({ x: file("", { content: noise, ...more }) }));
  const result = Buffer.alloc(noise.length);
  const told: string[] = [];
  for (const stretch of stretchesOf(new FileBytes(tree, 2, "x", noise.length), Buffer.alloc(readSize))) {
    if (stretch.kind === "data") result.set(stretch.bytes, stretch.position);
    else told.push(`${stretch.kind} ${stretch.position} ${stretch.length}`);
  }
  return { result, told, calls: tree.calls };
}

test("a file comes in large pieces", (t) => {
  const { result, told, calls } = stretches({});
  t.true(result.equals(noise));
  t.deepEqual(told, []);
  t.is(calls.read, 4);
});

test("holes are told and not read", (t) => {
  const { told, calls } = stretches({ hole: { from: 0, to: 3 * readSize } });
  t.deepEqual(told, [`hole 0 ${3 * readSize}`]);
  t.is(calls.read, 1);
});

test("damage is found to its page, and all around it is read", (t) => {
  const from = readSize + 5000;
  const { result, told, calls } = stretches({ damage: { from, to: from + 4096 } });
  t.deepEqual(told, [`damage ${readSize + 4096} 4096`, `damage ${readSize + 8192} 4096`]);
  const expected = Buffer.from(noise).fill(0, readSize + 4096, readSize + 12288);
  t.true(result.equals(expected));
  t.true(calls.read < 300);
});

test("a file that ends before its size is damaged there", (t) => {
  const tree = new FakeTree(folder({ x: file("abc") }));
  const kinds = [...stretchesOf(new FileBytes(tree, 2, "x", 5000), Buffer.alloc(readSize))].map((one) => one.kind);
  t.deepEqual(kinds, ["data", "damage", "damage"]);
});

test("a file that is damaged without end is given up", (t) => {
  let reads = 0;
  const source: ByteSource = {
    name: "x",
    size: 2 ** 50,
    read() {
      reads++;
      throw corrupt("x: damaged");
    },
  };
  t.throws(() => readFully(source, 0, Buffer.alloc(1)));
  let last: { position: number; length: number } | undefined;
  for (const stretch of stretchesOf(source, Buffer.alloc(readSize))) last = stretch;
  t.is(last!.position + last!.length, 2 ** 50);
  t.is(last!.position, mostDamage);
  t.true(reads < mostDamage / 4096 + 1000);
});
