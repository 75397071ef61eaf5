import test from "ava";
import binding from "zstd-napi/binding.js";
import { ImageError } from "../../errors.js";
import { diskOf, imageOf, layerOf, smallest } from "./spin-test-tools.js";

const unpacker = new binding.DCtx();

/** Whether zstd, asked for the whole file, gives the disk: an expectation that knows nothing of the format. */
function zstdGives(file: Buffer, disk: Buffer): boolean {
  const target = Buffer.alloc(disk.length);
  try {
    return unpacker.decompress(target, file) === disk.length && target.equals(disk);
  } catch {
    return false;
  }
}

/** What checking all pieces of an image finds; "refused" when it doesn't open. */
function verdict(file: Buffer): string[] {
  try {
    const { integrity } = layerOf(file);
    return Array.from({ length: integrity.pieces }, (_, piece) => integrity.check(piece).damages)
      .flat()
      .map(({ position, length, message }) => `${position / smallest}+${length / smallest} ${message}`);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    return ["refused"];
  }
}

for (const letters of ["ab..c.d", "..a", "a..", "....", "a"])
  test(`any byte of an image of "${letters}" whose change zstd -d minds is found by the check`, (t) => {
    const disk = diskOf(letters, smallest, 999);
    const file = imageOf(disk, { metadata: { label: "a" } });
    t.true(zstdGives(file, disk));
    t.deepEqual(verdict(file), []);
    for (let at = 0; at < file.length; at++)
      for (const mask of [0x01, 0x10, 0x80]) {
        const changed = Buffer.from(file);
        changed[at]! ^= mask;
        if (!zstdGives(changed, disk)) t.not(verdict(changed).length, 0, `byte ${at} changed by ${mask}`);
      }
  });

// Leaf 1 and leaf 2 are zero as a whole and in no leaf page; leaf 3 has a chunk and an end of zeros.
const wide = imageOf(diskOf(`a${".".repeat(3 * 1024)}b..`, smallest, 5));
/** Bytes of the frame for a whole leaf: 16 MiB in blocks of 128 KiB. */
const wholeLeaf = 14 + 4 * 128;

test("the zeros of whole leaves and the heads of all pages are walked", (t) => {
  t.deepEqual(verdict(wide), []);
  const pages = ["SPHD", "SPLF", "SPDG", "SPND", "SPMD", "SPTR"].flatMap((type) => {
    const found: number[] = [];
    for (let at = wide.indexOf(type); at >= 0; at = wide.indexOf(type, at + 1)) found.push(at);
    return found;
  });
  t.is(pages.length, 8);
  for (const page of pages)
    for (let at = page - 8; at < page; at++) {
      const changed = Buffer.from(wide);
      changed[at]! ^= 0x01;
      t.not(verdict(changed).length, 0, `byte ${at}, of the head of the page at ${page}`);
    }
});

test("a damaged frame of zeros is told with its place and the chunks that it is for", (t) => {
  const start = wide.indexOf("SPDG") + 24 + 32; // behind the digest of leaf 0's only chunk
  t.is(wide.readUInt32LE(start), 0xfd2fb528);
  t.is(wide.readBigUInt64LE(start + 6), BigInt(1024 * smallest));
  for (const at of [start, start + 5, start + 17, start + wholeLeaf - 1]) {
    const changed = Buffer.from(wide);
    changed[at]! ^= 0x02;
    const found = verdict(changed);
    t.is(found.length, 1);
    t.regex(found[0]!, new RegExp(`^1024\\+1024 image.spin: .* at byte ${start}: .*zstd -d would not give it`));
  }
  const within = Buffer.from(imageOf(diskOf("ab..c")));
  within[within.indexOf(Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xc0])) + 17]! ^= 1;
  t.regex(verdict(within).join(), /^2\+2 image.spin: the frame of zeros at byte \d+ is damaged/);
});

test("a differential promises nothing to zstd -d, and its check asks for nothing", (t) => {
  const base = layerOf(imageOf(diskOf("ab.c")), "base");
  t.deepEqual(verdict(imageOf(diskOf(".bc."), { base: [base] })), []);
});
