/** Disks that lzip, plzip and xz --format=lzma packed. */
import { readFileSync, writeFileSync } from "node:fs";
import test from "ava";
import { readFully } from "../bytes/byte-source.js";
import { ImageError } from "../errors.js";
import { isDisk, isRefused, opened } from "../images/qemu-test-tools.js";
import { disk, noise, packingFolder, packs, words } from "./packed-test-tools.js";

const MiB = 1 << 20;

const variants: readonly (readonly [name: string, command: string, packing: string])[] = [
  ["lzip", "lzip -1 -c disk > packed", "lzip"],
  ["lzip of members of 1 MB", "lzip -0 -b 1000000 -c disk > packed", "lzip"],
  ["lzip of an odd dictionary", "lzip -s 1500000 -c disk > packed", "lzip"],
  ["plzip: a member for each mebibyte", "plzip -B 1MiB -c disk > packed", "lzip"],
  [
    "lzip with an empty member in front",
    "(lzip < /dev/null; head -c 3000000 disk | lzip -1; tail -c +3000001 disk | lzip -1) > packed",
    "lzip",
  ],
  ["lzma", "xz --format=lzma -1 -c disk > packed", "lzma"],
  ["lzma -9", "xz --format=lzma -9 -c disk > packed", "lzma"],
  [
    "lzma that tells its size, as LZMA Utils write it",
    `python3 -c 'import lzma; d=open("disk","rb").read(); p=lzma.compress(d, format=lzma.FORMAT_ALONE, preset=1); open("packed","wb").write(p[:5] + len(d).to_bytes(8, "little") + p[13:])'`,
    "lzma",
  ],
];

for (const [name, command, packing] of variants)
  test(`${name}: all of the disk, and any part of it, is as it was`, (t) => {
    const path = packingFolder(t);
    if (!packs(t, path, command)) return;
    isDisk(t, { path: path("packed") }, disk, MiB);
    opened({ path: path("packed") }, ({ disk: found, layers, wrappings }) => {
      const bytes = Buffer.alloc(disk.length);
      t.is(readFully(found, 0, bytes), disk.length);
      t.true(bytes.equals(disk));
      t.is(layers[0]!.format, "raw");
      const { integrity, format } = wrappings[0]![0]!;
      t.is(format, packing);
      // .lzma has no checksums.
      t.is(integrity !== undefined, packing === "lzip");
      for (let piece = 0; piece < (integrity?.pieces ?? 0); piece++)
        t.deepEqual(integrity!.check(piece).damages, [], `piece ${piece}`);
    });
  });

test("what is packed to more than is unpacked at once is kept, and is as it was", (t) => {
  const zeros = 257 * MiB;
  for (const command of ["lzip -0", "xz --format=lzma -0"]) {
    const path = packingFolder(t, words(100_000));
    if (!packs(t, path, `(cat disk; head -c ${zeros} /dev/zero; cat disk) | ${command} > packed`)) return;
    opened({ path: path("packed") }, ({ disk: found }) => {
      t.is(found.size, zeros + 200_000);
      const bytes = Buffer.alloc(100_100);
      t.is(readFully(found, found.size - bytes.length, bytes), bytes.length);
      t.true(bytes.equals(Buffer.concat([Buffer.alloc(100), words(100_000)])));
    });
  }
});

test("cut off or changed anywhere, lzip is refused; .lzma, which has no checksums, where it can't be unpacked", (t) => {
  const content = Buffer.concat([words(30_000), noise(3000), Buffer.alloc(20_000)]);
  const path = packingFolder(t, content);
  if (!packs(t, path, "lzip -b 20000 -c disk > lzip; xz --format=lzma -c disk > lzma")) return;
  for (const name of ["lzip", "lzma"]) {
    const packed = readFileSync(path(name));
    const read = (bytes: Buffer): Buffer | undefined => {
      writeFileSync(path("changed"), bytes);
      try {
        return opened({ path: path("changed") }, ({ disk: found, wrappings }) => {
          if (wrappings[0]!.length === 0) return undefined;
          const all = Buffer.alloc(found.size);
          return all.subarray(0, readFully(found, 0, all));
        });
      } catch (error) {
        if (error instanceof ImageError) return undefined;
        throw error;
      }
    };
    t.true(read(packed)!.equals(content));
    for (let at = 14; at < packed.length; at += 211) {
      t.true(read(packed.subarray(0, at)) === undefined, `${name} cut at ${at}`);
      const bytes = Buffer.from(packed);
      bytes[at]! ^= 1 << (at % 8);
      const got = read(bytes);
      // The last bits of LZMA data may mean nothing.
      if (name === "lzip") t.true(got === undefined || got.equals(content), `${name} changed at ${at}`);
    }
    for (const at of [packed.length - 20, packed.length - 12, packed.length - 4]) {
      const bytes = Buffer.from(packed);
      bytes[at]! ^= 1;
      if (name === "lzip") t.true(read(bytes) === undefined, `${at}`);
    }
    writeFileSync(path("longer"), Buffer.concat([packed, Buffer.from("more")]));
    isRefused(t, "corrupt", { path: path("longer") }, path("longer"), "appended");
  }
});

test("dictionaries of half a gigabyte are refused before they are allocated", (t) => {
  const path = packingFolder(t, words(1000));
  if (!packs(t, path, "lzip -s 512MiB -c disk > lzip; xz --format=lzma -c disk > lzma")) return;
  const coded = readFileSync(path("lzip"));
  coded[5] = 29;
  writeFileSync(path("lzip"), coded);
  const lzma = readFileSync(path("lzma"));
  lzma.writeUInt32LE(2 ** 29, 1);
  writeFileSync(path("lzma"), lzma);
  for (const name of ["lzip", "lzma"])
    isRefused(t, "unsupported", { path: path(name) }, path(name), "dictionary of 536870912 bytes");
});
