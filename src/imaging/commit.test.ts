/** Overlays made into images: of a .spin image by a differential for which only what was written is read. */
import { readFileSync, renameSync, truncateSync, writeFileSync } from "node:fs";
import test, { type ExecutionContext } from "ava";
import { ImageError } from "../errors.js";
import { contentRootOfBytes } from "../images/spin/second-test-reader.js";
import { openWritable } from "../open.js";
import { contentOf, create, ended, noise, spindle, verify, workspace, write } from "./imaging-test-tools.js";

const KiB = 1024;
const MiB = 1024 * KiB;
const chunk = 64 * KiB;

/** 25 MiB and some bytes: more than a leaf and several jobs, with zeros from 8 to 12 MiB. */
const disk = Buffer.concat([noise(8 * MiB), Buffer.alloc(4 * MiB), noise(13 * MiB + 300, 2)]);

type Change = readonly [position: number, bytes: Buffer];

const changes: readonly Change[] = [
  [10, Buffer.from("first chunk")],
  [3 * MiB - 5, Buffer.from("across two chunks")],
  [9 * MiB, Buffer.from("among zeros")],
  [5 * MiB, Buffer.alloc(chunk)],
  [15 * MiB, disk.subarray(15 * MiB, 15 * MiB + 4096)],
  [disk.length - 3, Buffer.from("end")],
];

/** Writes to an overlay of `image`; what `expected` holds changes with it. */
function writeTo(image: string, overlay: string, expected: Buffer, list: readonly Change[] = changes): void {
  const opened = openWritable({ path: image }, overlay, 1);
  try {
    for (const [position, bytes] of list) {
      opened.overlay.disk.write(position, bytes);
      bytes.copy(expected, position);
    }
    opened.overlay.disk.flush();
  } finally {
    opened.close();
  }
}

async function isIntact(t: ExecutionContext, image: string): Promise<void> {
  const { layers, contentRoot } = await verify(image);
  t.is(contentRoot, true);
  t.true(layers.every(({ checked, damages }) => checked && damages.length === 0));
}

for (const threads of [1, 4])
  test(`an overlay becomes a differential of its image by ${threads} threads, which chains on and needs no overlay`, async (t) => {
    const path = workspace(t);
    write(path("disk"), disk);
    await create(path("disk"), path("base"));
    const expected = Buffer.from(disk);
    writeTo(path("base"), path("o"), expected);
    const made = await create(path("o"), path("top"), { base: path("base"), threads });
    t.deepEqual(made.contentRoot, contentRootOfBytes(expected, chunk));
    // Two chunks of the change across a border, one of zeros that isn't stored, one that is as it was.
    t.is(made.storedChunks, 5);
    t.true((await contentOf(path("top"))).equals(expected));
    await isIntact(t, path("top"));

    writeTo(path("top"), path("o2"), expected, [[20 * MiB, Buffer.from("later")]]);
    const second = await create(path("o2"), path("top2"), { base: path("top"), threads });
    t.is(second.storedChunks, 1);
    t.deepEqual(second.contentRoot, contentRootOfBytes(expected, chunk));
    t.true((await contentOf(path("top2"))).equals(expected));
    // Against the base of the base, all that was written since.
    const both = await create(path("o2"), path("both"), { base: path("base"), threads });
    t.is(both.storedChunks, 6);
    t.deepEqual(both.contentRoot, second.contentRoot);
  });

test("nothing that wasn't written to is read: damage elsewhere in the image goes unnoticed", async (t) => {
  const path = workspace(t);
  write(path("disk"), disk);
  await create(path("disk"), path("base"));
  const bytes = readFileSync(path("base"));
  // The first frames of the file are the first chunks: those of the second to the fourth MiB.
  bytes.fill(0xff, 1 * MiB, 4 * MiB);
  writeFileSync(path("base"), bytes);
  const expected = Buffer.from(disk);
  writeTo(path("base"), path("o"), expected, [[20 * MiB, Buffer.from("written")]]);
  const made = await create(path("o"), path("top"), { base: path("base") });
  t.is(made.storedChunks, 1);
  t.deepEqual(made.contentRoot, contentRootOfBytes(expected, chunk));
  writeTo(path("base"), path("p"), expected, [[2 * MiB, Buffer.alloc(chunk + 4096, 1)]]);
  await t.throwsAsync(create(path("p"), path("top2"), { base: path("base") }), {
    instanceOf: ImageError,
    message: /damaged/,
  });
});

test("an overlay with nothing in it, and one over a disk of 1 TiB that holds little, take no time", async (t) => {
  const path = workspace(t);
  write(path("disk"), noise(2 * MiB));
  truncateSync(path("disk"), 2 ** 40);
  await create(path("disk"), path("base"));
  const opened = openWritable({ path: path("base") }, path("o"), 1);
  opened.close();
  t.is((await create(path("o"), path("empty"), { base: path("base") })).storedChunks, 0);
  const again = openWritable({ path: path("base") }, path("o"), 1);
  again.overlay.disk.write(2 ** 39 + 5, Buffer.from("in the middle"));
  again.overlay.disk.flush();
  again.close();
  const made = await create(path("o"), path("top"), { base: path("base") });
  t.is(made.storedChunks, 1);
  await isIntact(t, path("top"));
});

test("spindle commit: a differential over .spin, a full image over anything else, a base that was moved", async (t) => {
  const path = workspace(t);
  write(path("disk"), disk);
  await create(path("disk"), path("base"));
  const expected = Buffer.from(disk);
  writeTo(path("base"), path("o"), expected);
  const told = await ended(spindle("commit", path("o"), path("top"), "--label", "tuesday", "--level", "1", "--json"));
  t.is(told.code, 0, told.stderr);
  const data = JSON.parse(told.stdout) as Record<string, unknown>;
  t.like(data, { kind: "differential", base: path("base"), storedChunks: 5, size: disk.length });
  t.true((await contentOf(path("top"))).equals(expected));
  const facts = await ended(spindle("info", path("top"), "--json"));
  t.regex(facts.stdout, /"label": ?"tuesday"/);

  const raw = Buffer.from(disk);
  writeTo(path("disk"), path("r"), raw);
  const full = await ended(spindle("commit", path("r"), path("full"), "--level", "1", "--json"));
  t.like(JSON.parse(full.stdout), { kind: "full", size: disk.length });
  t.true((await contentOf(path("full"))).equals(raw));

  t.is((await ended(spindle("commit", path("o"), path("top")))).code, 2, "it is there");
  t.is((await ended(spindle("commit", path("o"), path("top"), "--force"))).code, 0);
  const none = await ended(spindle("commit", path("base"), path("x")));
  t.is(none.code, 2);
  t.regex(none.stderr, /is no overlay \(spin\)/);
  renameSync(path("base"), path("moved"));
  t.not((await ended(spindle("commit", path("o"), path("x")))).code, 0);
  const moved = await ended(spindle("commit", path("o"), path("x"), "--parent", path("moved")));
  t.is(moved.code, 0, moved.stderr);
  t.true((await contentOf(path("x"))).equals(expected));

  const held = openWritable({ path: path("moved") }, path("o"), 1);
  const busy = await ended(spindle("commit", path("o"), path("y"), "--parent", path("moved")));
  held.close();
  t.regex(busy.stderr, /is written to by a mount just now/);
});
