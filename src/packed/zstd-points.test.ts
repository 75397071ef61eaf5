/** Large zstd frames: the places to begin at that the zstd command leaves in them, and what happens where there are none. */
import { fstatSync, readFileSync, writeFileSync } from "node:fs";
import test, { type ExecutionContext } from "ava";
import { readFully } from "../bytes/byte-source.js";
import { FileSource } from "../bytes/file.js";
import { LocalChunkCache } from "../bytes/local-cache.js";
import { opened } from "../images/qemu-test-tools.js";
import { namelessFile } from "./cache-folder.js";
import { PackedContent } from "./content.js";
import { integrityOf } from "./integrity.js";
import { noise, packingFolder, packs } from "./packed-test-tools.js";
import { type PackedFile, PieceKind } from "./packing.js";
import { RunningPass } from "./pass.js";
import { PieceTable } from "./piece-table.js";
import { Progress } from "./progress.js";
import { Scratch } from "./scratch.js";
import { zstd } from "./zstd.js";
import { indexFrame } from "./zstd-points.js";

const MiB = 1 << 20;

/** Packs two to one, and parts of it come again a little and much later. */
function text(length: number): Buffer {
  const all = Buffer.from(noise(length / 2, 3).toString("hex"), "latin1");
  for (let at = 3 * MiB; at + 200_000 < length; at += 3 * MiB) all.copyWithin(at, at - 150_000, at - 50_000);
  for (let at = 7 * MiB; at + 200_000 < length; at += 5 * MiB) all.copyWithin(at, at - 1_800_000, at - 1_700_000);
  return all;
}

/** Every frame of a file gone through as a large one, however small it is. */
function indexed(t: ExecutionContext, path: string, stops: boolean) {
  const source = FileSource.open(path);
  const inner = zstd.open(source);
  const file: PackedFile = {
    name: path,
    hasChecksums: true,
    facts: {},
    *pass(writer) {
      for (let at = 0; at < source.size; ) at += yield* indexFrame(source, writer, at, undefined);
    },
    reader: () => inner.reader(),
  };
  const files = { table: namelessFile(), data: namelessFile(), name: "a table" };
  const progress = Progress.create();
  const key = Buffer.alloc(32, 7);
  for (let ended = false; !ended; ) {
    const before = progress.covered;
    const pass = new RunningPass(file, files, key, progress);
    ended = pass.run(() => stops && progress.covered > before);
    pass.close();
  }
  const table = new PieceTable(files, key);
  const scratch = Scratch.create();
  t.teardown(() => {
    source.close();
    scratch.close();
  });
  const size = progress.covered;
  const parts = { name: path, file, table, progress, scratch, size, whileWaiting: () => {} };
  return {
    progress,
    content: new PackedContent(parts, new LocalChunkCache(8 * MiB)),
    kinds: Array.from({ length: progress.count }, (_, number) => table.piece(number).kind),
    kept: fstatSync(files.data).size,
    damages: () => {
      const { pieces, check } = integrityOf(file, table, progress.count);
      return Array.from({ length: pieces }, (_, piece) => check(piece).damages).flat();
    },
  };
}

function isContent(t: ExecutionContext, found: ReturnType<typeof indexed>, expected: Buffer, what: string): void {
  t.is(found.progress.state, "whole", what);
  t.is(found.content.size, expected.length, what);
  const bytes = Buffer.alloc(expected.length);
  for (const at of [expected.length - 5, 33 * MiB - 3, 32 * MiB - 3, 7 * MiB, 0]) {
    const part = bytes.subarray(0, 100_000);
    const got = readFully(found.content, at, part);
    t.true(part.subarray(0, got).equals(expected.subarray(at, at + 100_000)), `${what}: at ${at}`);
  }
  t.is(readFully(found.content, 0, bytes), expected.length, what);
  t.true(bytes.equals(expected), what);
  t.deepEqual(found.damages(), [], what);
}

const expected = text(40 * MiB);

for (const [options, isSmall] of [
  ["-1 -T2", true],
  ["-3 -T2 --no-check", true],
  ["-1 --single-thread", false],
] as const)
  test(`zstd ${options}: the content of one frame, from a pipe, is read at any place`, (t) => {
    const path = packingFolder(t, expected);
    if (!packs(t, path, `cat disk | zstd -q ${options} -c > packed`)) return;
    const found = indexed(t, path("packed"), false);
    isContent(t, found, expected, options);
    if (!isSmall) return;
    // A few hundred KiB for 32 MiB are all that is kept.
    t.deepEqual(found.kinds, [PieceKind.packed, PieceKind.packed]);
    t.true(found.kept < 300_000, `${found.kept} bytes`);
  });

test("zeros behind a piece may go on into the next frame, and a pass that is ended goes on", (t) => {
  const first = Buffer.concat([text(33 * MiB), Buffer.alloc(40 * MiB)]);
  const second = Buffer.concat([Buffer.alloc(33 * MiB), text(MiB)]);
  const path = packingFolder(t, first);
  writeFileSync(path("second"), second);
  if (!packs(t, path, "(cat disk | zstd -q -1 -T2; cat second | zstd -q -1 -T2) > packed")) return;
  const found = indexed(t, path("packed"), true);
  isContent(t, found, Buffer.concat([first, second]), "two frames");
  t.deepEqual(found.kinds, [PieceKind.packed, PieceKind.packed, PieceKind.zeros, PieceKind.packed]);
  t.true(found.content.extentAt(65 * MiB).hole);
});

test("damage anywhere in a large frame is found, and told by its place", (t) => {
  const path = packingFolder(t, expected);
  if (!packs(t, path, "cat disk | zstd -q -1 -T2 -c > packed")) return;
  const bytes = readFileSync(path("packed"));
  for (const [what, change] of [
    ["a bit", () => Buffer.from(bytes).fill(bytes[15_000_000]! ^ 4, 15_000_000, 15_000_001)],
    ["the checksum", () => Buffer.from(bytes).fill(bytes.at(-1)! ^ 4, bytes.length - 1)],
    ["the end", () => bytes.subarray(0, bytes.length - 7)],
    ["a block's kind", () => Buffer.from(bytes).fill(0xff, 6, 9)],
  ] as const) {
    writeFileSync(path("packed"), change());
    const { progress } = indexed(t, path("packed"), false);
    t.is(progress.state, "failed", what);
    t.is(progress.failure().code, "corrupt", what);
    t.regex(progress.failure().message, /packed: .* byte \d+/, what);
  }
});

test("a large frame that tells no size is found as such without looking for its end, and what follows it is read", (t) => {
  const large = noise(70 * MiB);
  const path = packingFolder(t, large);
  if (!packs(t, path, "(cat disk | zstd -q -1 -T2; echo the end | zstd -q) > packed")) return;
  opened({ path: path("packed") }, ({ disk: found, wrappings }) => {
    t.is(found.size, large.length + 8);
    const part = Buffer.alloc(1000);
    for (const at of [large.length - 3, 64 * MiB - 500, 32 * MiB, 5]) {
      const got = readFully(found, at, part);
      const right = Buffer.concat([large.subarray(at, at + 1000), Buffer.from("the end\n")]).subarray(0, 1000);
      t.true(part.subarray(0, got).equals(right), `at ${at}`);
    }
    t.is(wrappings[0]![0]!.integrity!.pieces, 4);
  });
});
