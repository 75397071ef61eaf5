import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { deflateSync } from "node:zlib";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { readFully } from "../../bytes/byte-source.js";
import { MemorySource } from "../../bytes/memory.js";
import type { OpenedLayers } from "../../chain.js";
import { ImageError } from "../../errors.js";
import {
  differenceFromRaw,
  hasQemu,
  mapsLike,
  noQemu,
  openedImage,
  qemuImg,
  qemuIo,
  readsLike,
  register,
  sharedContainers,
  shuffledWrites,
  surroundings,
  survives,
  temporaryFolder,
  unpackShared,
} from "../shared-test-images.js";
import { vmdk } from "./index.js";

register(vmdk);

/** What all pieces of the newest layer's check find. */
function checked({ layers }: OpenedLayers) {
  const { pieces, check } = layers[0]!.integrity!;
  const reports = [...Array(pieces).keys()].map((piece) => check(piece));
  return {
    damages: reports.flatMap(({ damages }) => damages),
    chunks: reports.reduce((sum, { chunks }) => sum + chunks, 0),
  };
}

function withoutQemu(t: ExecutionContext): boolean {
  if (hasQemu) return false;
  t.log(noQemu);
  t.pass();
  return true;
}

test("the shared VMDKs are the disks that QEMU reads from them, or fail cleanly", (t) => {
  for (const row of sharedContainers(t, "vmdk")) {
    const path = unpackShared(t, row);
    if (row.class === "corrupt") {
      const error = t.throws(() => openedImage(t, path), { instanceOf: ImageError }, row.file);
      t.true(error.message.startsWith(path));
      continue;
    }
    const opened = openedImage(t, path);
    t.is(opened.disk.size, Number(row.raw_size));
    t.deepEqual(checked(opened).damages, []);
    if (withoutQemu(t)) continue;
    qemuImg("convert", "-f", "vmdk", "-O", "raw", path, `${path}.raw`);
    t.is(differenceFromRaw(opened.disk, `${path}.raw`), undefined, row.file);
    mapsLike(t, opened, path, "-f", "vmdk");
  }
});

for (const [subformat, ...options] of [
  ["monolithicSparse"],
  ["monolithicSparse", "zeroed_grain=on"],
  ["monolithicFlat"],
  ["twoGbMaxExtentSparse"],
  ["twoGbMaxExtentFlat"],
] as [string, ...string[]][])
  test(`a ${subformat} disk that QEMU makes ${options} is read as QEMU reads it`, (t) => {
    if (withoutQemu(t)) return;
    const folder = temporaryFolder(t);
    const path = join(folder, "disk.vmdk");
    qemuImg("create", "-q", "-f", "vmdk", "-o", [`subformat=${subformat}`, ...options].join(), path, "11000320");
    const zero = options.length > 0 ? ["write -z 1M 512k", "write -z 10M 100k"] : [];
    qemuIo("vmdk", path, ...shuffledWrites(11000320), ...zero);
    qemuImg("convert", "-f", "vmdk", "-O", "raw", path, join(folder, "raw"));
    const opened = openedImage(t, path);
    t.is(opened.layers[0]!.facts.subformat, subformat);
    readsLike(t, opened.disk, readFileSync(join(folder, "raw")), 65536);
    // QEMU's map calls all of a flat extent data; Spindle asks the file for its holes.
    if (!subformat.endsWith("Flat")) mapsLike(t, opened, path, "-f", "vmdk");
  });

test("a stream-optimized disk is unpacked, and verified grain by grain", (t) => {
  if (withoutQemu(t)) return;
  const folder = temporaryFolder(t);
  const [raw, path] = [join(folder, "raw"), join(folder, "disk.vmdk")];
  qemuImg("create", "-q", "-f", "raw", raw, "11000320");
  qemuIo("raw", raw, ...shuffledWrites(11000320));
  qemuImg("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, path);
  const opened = openedImage(t, path);
  readsLike(t, opened.disk, readFileSync(raw), 65536);
  mapsLike(t, opened, path, "-f", "vmdk");
  t.is(opened.layers[0]!.chunkSize, 65536);
  t.deepEqual(checked(opened).damages, []);
  t.true(checked(opened).chunks > 5);
  t.is(opened.layers[0]!.integrity!.proves, "content");
  const file = readFileSync(path);
  const grain = opened.layers[0]!.locate(0);
  t.is(grain.kind, "stored");
  const marker = file.indexOf(Buffer.from([0x78]), 65536);
  file[marker + 20]! ^= 0xff;
  writeFileSync(path, file);
  const { damages } = checked(openedImage(t, path));
  t.is(damages.length, 1);
  t.regex(damages[0]!.message, /disk\.vmdk: grain \d+ at byte \d+ is damaged, .*zlib/);
});

test("a disk of more than one split extent is read across their edge", (t) => {
  if (withoutQemu(t)) return;
  for (const subformat of ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"]) {
    const folder = temporaryFolder(t);
    const path = join(folder, "disk.vmdk");
    qemuImg("create", "-q", "-f", "vmdk", "-o", `subformat=${subformat}`, path, "4500M");
    const edge = 2 ** 31; // where QEMU cuts
    qemuIo("vmdk", path, `write -P 7 ${edge - 100 * 1024} 200k`, "write -P 9 4400M 70k", "write -P 3 0 512");
    qemuImg("convert", "-f", "vmdk", "-O", "raw", path, join(folder, "raw"));
    const { disk, layers } = openedImage(t, path);
    t.true((layers[0]!.facts.extents as number) >= 3);
    t.is(differenceFromRaw(disk, join(folder, "raw")), undefined);
    rmSync(join(folder, subformat.endsWith("Flat") ? "disk-f002.vmdk" : "disk-s002.vmdk"));
    const error = t.throws(() => openedImage(t, path), { instanceOf: ImageError });
    t.is(error.code, "missing");
    t.regex(error.message, /disk\.vmdk: needs .*disk-[sf]002\.vmdk/);
  }
});

test("a chain of three with a resize in the middle is read as QEMU reads it", (t) => {
  if (withoutQemu(t)) return;
  const folder = temporaryFolder(t);
  const path = (name: string) => join(folder, name);
  qemuImg("create", "-q", "-f", "vmdk", path("base.vmdk"), "6M");
  qemuIo("vmdk", path("base.vmdk"), ...shuffledWrites(6 << 20));
  for (const [child, parent, size] of [
    ["middle", "base", 9],
    ["top", "middle", 8],
  ] as [string, string, number][]) {
    qemuImg(
      "create",
      "-q",
      "-f",
      "vmdk",
      "-b",
      path(`${parent}.vmdk`),
      "-F",
      "vmdk",
      path(`${child}.vmdk`),
      `${size}M`,
    );
    qemuIo("vmdk", path(`${child}.vmdk`), `write -P 77 ${size === 9 ? "3M" : "3100k"} 900k`, "write -P 88 5M 33k");
    qemuIo("vmdk", path(`${child}.vmdk`), `write -P 99 ${size - 1}M 10k`);
  }
  qemuImg("convert", "-f", "vmdk", "-O", "raw", path("top.vmdk"), path("raw"));
  const opened = openedImage(t, path("top.vmdk"));
  t.is(opened.layers.length, 3);
  readsLike(t, opened.disk, readFileSync(path("raw")), 65536);
  mapsLike(t, opened, path("top.vmdk"), "-f", "vmdk");

  const refused = (...words: RegExp[]) => {
    const error = t.throws(() => openedImage(t, path("top.vmdk")), { instanceOf: ImageError });
    for (const word of [...words, /middle\.vmdk/, /--parent/]) t.regex(error.message, word);
  };
  mkdirSync(path("sub"));
  renameSync(path("middle.vmdk"), path("moved.vmdk"));
  refused(/top\.vmdk/, /not found/, /moved\.vmdk has the recorded content/);
  qemuImg("create", "-q", "-f", "vmdk", path("middle.vmdk"), "9M");
  refused(/top\.vmdk/, /CID is/);
  renameSync(path("moved.vmdk"), path("middle.vmdk"));
  writeFileSync(path("base.vmdk"), Buffer.alloc(6 << 20));
  t.throws(() => openedImage(t, path("top.vmdk")), { message: /middle\.vmdk: .*base\.vmdk is not a VMDK \(raw\)/ });
});

const grain = 4096;
const sectorsOf = (letters: string) => (letters.length * grain) / 512;
const plain = (letters: string) =>
  Buffer.concat([...letters].map((letter) => Buffer.alloc(grain, /[.0]/.test(letter) ? 0 : letter)));

const text = (extents: string[], more = "parentCID=ffffffff") =>
  `# Disk DescriptorFile\nversion=1\nCID=12345678\n${more}\ncreateType="custom"\n\n# Extent description\n${extents.join("\n")}\n\n# The Disk Data Base\nddb.adapterType = "lsilogic"\n`;

interface Hosted {
  letters: string;
  descriptor?: string;
  reversed?: boolean;
  compressed?: boolean;
  /** Whether the primary directory leads beyond the file, so that only the redundant one serves. */
  damaged?: boolean;
}

/** A hosted sparse extent of grains of 4 KiB, with 4 grains a table; `0` is a zeroed grain. */
function hosted({ letters, descriptor, reversed, compressed, damaged }: Hosted): Buffer {
  const perTable = 4;
  const tables = Math.ceil(letters.length / perTable);
  const header = Buffer.alloc(512);
  header.write("KDMV");
  header.writeUInt32LE(compressed ? 3 : 2, 4);
  header.writeUInt32LE(compressed ? 0x30001 : 7, 8);
  header.writeBigUInt64LE(BigInt(sectorsOf(letters)), 12);
  header.writeBigUInt64LE(BigInt(grain / 512), 20);
  if (descriptor) {
    header.writeBigUInt64LE(1n, 28);
    header.writeBigUInt64LE(4n, 36);
  }
  header.writeUInt32LE(perTable, 44);
  header.writeBigUInt64LE(compressed ? 0n : 5n, 48);
  header.writeBigUInt64LE(compressed ? 2n ** 64n - 1n : 6n, 56);
  header.write("\n \r\n", 73, "latin1");
  header.writeUInt16LE(compressed ? 1 : 0, 77);
  const text = Buffer.alloc(2048);
  text.write(descriptor ?? "");
  const entries = new Array<number>(tables * perTable).fill(0);
  const bodies: Buffer[] = [];
  let at = compressed ? 5 : 7 + 2 * tables;
  const order = [...letters].map((_, index) => index);
  if (reversed) order.reverse();
  for (const index of order) {
    const letter = letters[index]!;
    if (letter === "0") entries[index] = 1;
    if (/[.0]/.test(letter)) continue;
    entries[index] = at;
    let body = Buffer.alloc(grain, letter);
    if (compressed) {
      const packed = deflateSync(body);
      const marker = Buffer.alloc(12);
      marker.writeBigUInt64LE(BigInt((index * grain) / 512), 0);
      marker.writeUInt32LE(packed.length, 8);
      body = Buffer.concat([marker, packed]);
      body = Buffer.concat([body, Buffer.alloc((512 - (body.length % 512)) % 512)]);
    }
    bodies.push(body);
    at += body.length / 512;
  }
  const table = (index: number) => {
    const bytes = Buffer.alloc(512);
    for (let nth = 0; nth < perTable; nth++) bytes.writeUInt32LE(entries[index * perTable + nth]!, nth * 4);
    return bytes;
  };
  const used = (index: number) => entries.slice(index * perTable, (index + 1) * perTable).some((entry) => entry !== 0);
  const directory = (first: number, broken = false) => {
    const bytes = Buffer.alloc(512);
    for (let index = 0; index < tables; index++)
      bytes.writeUInt32LE(broken ? 0xfffffff0 : used(index) ? first + index : 0, index * 4);
    return bytes;
  };
  const all = [...Array(tables).keys()].map(table);
  if (!compressed)
    return Buffer.concat([header, text, directory(7), directory(7 + tables, damaged), ...all, ...all, ...bodies]);
  const footer = Buffer.from(header);
  footer.writeBigUInt64LE(BigInt(at + tables), 56);
  return Buffer.concat([header, text, ...bodies, ...all, directory(at), Buffer.alloc(512), footer, Buffer.alloc(512)]);
}

/** An ESX COWD extent of grains of 4 KiB. */
function cowd(letters: string): Buffer {
  const header = Buffer.alloc(2048);
  header.write("COWD");
  header.writeUInt32LE(1, 4);
  header.writeUInt32LE(3, 8);
  header.writeUInt32LE(sectorsOf(letters), 12);
  header.writeUInt32LE(grain / 512, 16);
  header.writeUInt32LE(4, 20);
  header.writeUInt32LE(Math.ceil(letters.length / 4096), 24);
  const directory = Buffer.alloc(512);
  directory.writeUInt32LE(5, 0);
  const table = Buffer.alloc(4096 * 4);
  const bodies: Buffer[] = [];
  for (const [index, letter] of [...letters].entries())
    if (letter !== ".") {
      table.writeUInt32LE(5 + 32 + (bodies.length * grain) / 512, index * 4);
      bodies.push(Buffer.alloc(grain, letter));
    }
  return Buffer.concat([header, directory, table, ...bodies]);
}

/** An ESX seSparse extent; `0` is a zero grain, `u` an unmapped one. */
function seSparse(letters: string): Buffer {
  const header = Buffer.alloc(512);
  const fields: [number, bigint][] = [
    [0, 0xcafebaben],
    [1, 0x200000001n],
    [2, BigInt(sectorsOf(letters))],
    [3, 8n],
    [4, 64n],
    [10, 1n],
    [11, 1n],
    [12, 2n],
    [13, 1n],
    [14, 3n],
    [15, 1n],
    [16, 4n],
    [17, 1n],
    [18, 5n],
    [19, 128n],
    [24, 133n],
  ];
  for (const [index, value] of fields) header.writeBigUInt64LE(value, index * 8);
  const volatile = Buffer.alloc(512);
  volatile.writeBigUInt64LE(0xcafecafen, 0);
  const directory = Buffer.alloc(512);
  directory.writeBigUInt64LE(0x1000000000000001n, 0); // the second table, so that the first proves nothing
  const tables = Buffer.alloc(2 * 32768);
  const bodies: Buffer[] = [];
  for (const [index, letter] of [...letters].entries()) {
    let entry = 0n;
    if (letter === "0") entry = 2n << 60n;
    else if (letter === "u") entry = 1n << 60n;
    else if (letter !== ".") {
      const number = BigInt(bodies.length);
      entry = (3n << 60n) | ((number & 0xfffn) << 48n) | (number >> 12n);
      bodies.push(Buffer.alloc(grain, letter));
    }
    tables.writeBigUInt64LE(entry, 32768 + index * 8);
  }
  return Buffer.concat([header, volatile, Buffer.alloc(1024), directory, tables, ...bodies]);
}

function contentOf(bytes: Buffer, companions: Record<string, Buffer> = {}): Buffer {
  const files = Object.fromEntries(
    Object.entries(companions).map(([name, file]) => [name, new MemorySource(name, file)]),
  );
  const layer = vmdk.open(new MemorySource("/images/test.vmdk", bytes), surroundings("/images/test.vmdk", files));
  const content = Buffer.alloc(layer.size);
  for (let position = 0; position < layer.size; ) {
    const run = layer.locate(position);
    const part = content.subarray(position, position + run.length);
    if (run.kind === "stored") readFully(run.source, run.at, part);
    position += part.length;
  }
  return content;
}

test("a descriptor with an extent of each kind is read, by QEMU too", (t) => {
  const parts: [string, string, Buffer | undefined, string][] = [
    ["SPARSE", "ab.0cd..e", hosted({ letters: "ab.0cd..e", reversed: true }), ""],
    ["FLAT", "fgh", Buffer.concat([Buffer.alloc(1024), plain("fgh")]), " 2"],
    ["ZERO", "...", undefined, ""],
    ["VMFSSPARSE", "..ij.k", cowd("..ij.k"), ""],
    ["VMFS", "lm", plain("lm"), ""],
    ["SESPARSE", "n.0op.", seSparse("n.0op."), ""],
    ["SPARSE", "qr..s", hosted({ letters: "qr..s", compressed: true, reversed: true }), ""],
  ];
  // QEMU leaves ZERO extents out, and reads neither seSparse nor a stream among others.
  for (const chosen of [["SPARSE", "FLAT"], ["VMFSSPARSE", "VMFS"], ["SESPARSE"], parts.map(([type]) => type)]) {
    const folder = temporaryFolder(t);
    const used = parts.filter(([type], nth) => chosen.includes(type) && (chosen.length > 4 || nth < 6));
    const lines = used.map(([type, letters, file, offset], nth) => {
      if (!file) return `RW ${sectorsOf(letters)} ${type}`;
      writeFileSync(join(folder, `part ${nth}.vmdk`), file);
      return `RW ${sectorsOf(letters)} ${type} "part ${nth}.vmdk"${offset}`;
    });
    const path = join(folder, "disk.vmdk");
    const createType = { SESPARSE: "seSparse", VMFSSPARSE: "vmfsSparse" }[chosen[0]!] ?? "twoGbMaxExtentSparse";
    writeFileSync(path, text(lines).replace("custom", createType));
    const expected = plain(used.map(([, letters]) => letters).join(""));
    readsLike(t, openedImage(t, path).disk, expected, grain);
    if (!hasQemu || chosen.length > 4) continue;
    qemuImg("convert", "-f", "vmdk", "-O", "raw", path, join(folder, "raw"));
    t.true(readFileSync(join(folder, "raw")).equals(expected), `QEMU, ${chosen}`);
  }
});

test("an ESX delta leaves to its parent what it doesn't hold", (t) => {
  for (const [type, make] of [
    ["VMFSSPARSE", cowd],
    ["SESPARSE", seSparse],
    ["SPARSE", (letters: string) => hosted({ letters })],
  ] as const) {
    const folder = temporaryFolder(t);
    writeFileSync(join(folder, "base-flat.vmdk"), plain("abcdef"));
    writeFileSync(join(folder, "base.vmdk"), text([`RW ${sectorsOf("abcdef")} VMFS "base-flat.vmdk"`]));
    writeFileSync(join(folder, "delta.vmdk"), make("x..y...."));
    const parent = 'parentCID=12345678\nparentFileNameHint="C:\\VMs\\old\\base.vmdk"';
    writeFileSync(
      join(folder, "top.vmdk"),
      text([`RW ${sectorsOf("x..y....")} ${type} "sub\\..\\delta.vmdk"`], parent),
    );
    const { disk, layers } = openedImage(t, join(folder, "top.vmdk"));
    t.is(layers.length, 2);
    readsLike(t, disk, plain("xbcyef.."), grain);
    t.true(existsSync(join(folder, "delta.vmdk")));
  }
});

test("the redundant grain directory serves where the first is damaged; verification tells copies that differ", (t) => {
  const descriptor = text([`RW ${sectorsOf("ab.0c")} SPARSE "x"`]);
  const whole = hosted({ letters: "ab.0c", descriptor });
  t.true(contentOf(whole).equals(plain("ab..c")));
  t.true(contentOf(hosted({ letters: "ab.0c", descriptor, damaged: true })).equals(plain("ab..c")));
  const check = (bytes: Buffer) =>
    vmdk.open(new MemorySource("x.vmdk", bytes), surroundings()).integrity!.check(0).damages;
  t.deepEqual(check(whole), []);
  whole[7 * 512]! ^= 4;
  t.regex(check(whole)[0]!.message, /x\.vmdk: the grain table at byte \d+ and its copy at byte 3584 differ/);
});

test("a packed grain that belongs elsewhere is refused", (t) => {
  const descriptor = text([`RW ${sectorsOf("ab")} SPARSE "x"`]);
  const file = hosted({ letters: "ab", compressed: true, descriptor });
  t.true(contentOf(file).equals(plain("ab")));
  file[5 * 512] = 8;
  t.throws(() => contentOf(file), { instanceOf: ImageError, message: /grain 0 .* belongs at byte 4096/ });
});

test("extents that are named alone, devices and what else can't be read are told in words", (t) => {
  const line = `RW ${sectorsOf("ab")}`;
  const refusals: [Buffer | string, RegExp][] = [
    [hosted({ letters: "ab" }), /is one extent of a disk, without descriptor/],
    [cowd("ab"), /is one extent of a disk. Open the descriptor/],
    [text([`${line} VMFSRDM "x-rdm.vmdk"`]), /a device of its host/],
    [text([`NOACCESS 5 FLAT "x" 0`]), /may not be read/],
    [text([]), /names no extents/],
    [text([`${line} FLAT "gone.vmdk" 0`]), /needs gone\.vmdk/],
    [text([`${line} FLAT`]), /without a usable file name/],
    [text([`${line} FLAT "a\tb" 0`]), /needs a\tb/],
    [text(["RW 99999999999999999 ZERO"]), /impossible size/],
    [text([`${line} FLAT "part" 1`]), /should hold 8192 bytes of disk from byte 512 on/],
    [text([`${line} SPARSE "part"`]), /as a sparse extent, and is none/],
    [text([`${line} VMFSSPARSE "part"`]), /as a vmfsSparse extent, and is none/],
    [text([`${line} SESPARSE "part"`]), /is no seSparse extent/],
    [text([`${line} ZERO`], "parentCID=zz"), /no number/],
    [text([`RW 9000 SPARSE "sparse"`]), /do not belong together/],
  ];
  const companions = { part: plain("ab"), sparse: hosted({ letters: "ab" }) };
  for (const [file, message] of refusals)
    t.throws(() => contentOf(Buffer.from(file), companions), { instanceOf: ImageError, message });
});

test("journals that were not replayed, text transfers, unknown versions and lost footers are refused", (t) => {
  const descriptor = text([`RW ${sectorsOf("ab")} SPARSE "x"`]);
  const lie = (bytes: Buffer, change: (bytes: Buffer) => void) => {
    change(bytes);
    return bytes;
  };
  const sparse = () => hosted({ letters: "ab", descriptor });
  const se = lie(seSparse("ab"), (bytes) => bytes.writeUInt8(1, 512 + 24));
  t.throws(() => contentOf(Buffer.from(text([`RW ${sectorsOf("ab")} SESPARSE "se"`])), { se }), { message: /journal/ });
  const stream = hosted({ letters: "ab", compressed: true, descriptor });
  const refusals: [Buffer, RegExp][] = [
    [lie(sparse(), (bytes) => bytes.write("\n \n\n", 73)), /text mode/],
    [lie(sparse(), (bytes) => bytes.writeUInt32LE(9, 4)), /version 9/],
    [lie(sparse(), (bytes) => bytes.writeBigUInt64LE(2n ** 60n + 1n, 12)), /byte 12 .* 590295810358705652224 bytes/],
    [lie(sparse(), (bytes) => bytes.writeBigUInt64LE(2n ** 63n, 20)), /byte 20 .* 4722366482869645213696 bytes/],
    [lie(sparse(), (bytes) => bytes.writeBigUInt64LE(2n ** 62n, 56)), /byte 56 .* 2361183241434822606848 bytes/],
    [lie(sparse(), (bytes) => bytes.writeBigUInt64LE(2n ** 40n, 12)), /grain directory should take/],
    [lie(sparse(), (bytes) => bytes.writeBigUInt64LE(7n, 20)), /grains of 3584 bytes/],
    [lie(sparse(), (bytes) => bytes.writeUInt32LE(0, 44)), /0 grains a table/],
    [lie(sparse(), (bytes) => bytes.writeBigUInt64LE(2n ** 40n, 36)), /descriptor should have/],
    [stream.subarray(0, -512), /is a stream whose footer/],
    [sparse().subarray(0, -100), /grain 1 .*truncated/],
    [sparse().subarray(0, 3000), /grain directory should take/],
    [sparse().subarray(0, 100), /the header should take/],
  ];
  for (const [file, message] of refusals) t.throws(() => contentOf(file), { instanceOf: ImageError, message });
});

test("a truncated flat extent is refused", (t) => {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, "flat"), plain("abc"));
  writeFileSync(join(folder, "x.vmdk"), text([`RW ${sectorsOf("abc")} FLAT "flat" 0`]));
  openedImage(t, join(folder, "x.vmdk"));
  truncateSync(join(folder, "flat"), 5000);
  t.throws(() => openedImage(t, join(folder, "x.vmdk")), {
    instanceOf: ImageError,
    message: /flat: should hold 12288/,
  });
});

test("files with any bytes changed are refused or read in peace", (t) => {
  const descriptor = text([`RW ${sectorsOf("ab.0c")} SPARSE "x"`]);
  const line = (type: string) => Buffer.from(text([`RW ${sectorsOf("ab.0c")} ${type} "part"`]));
  const files: [Buffer, Buffer][] = [
    [hosted({ letters: "ab.0c", descriptor }), Buffer.alloc(0)],
    [hosted({ letters: "ab..c", descriptor, compressed: true }), Buffer.alloc(0)],
    [line("SESPARSE"), seSparse("ab.0c")],
    [line("VMFSSPARSE"), cowd("ab..c")],
    [line("SPARSE"), hosted({ letters: "ab.0c" })],
  ];
  fc.assert(
    fc.property(
      fc.constantFrom(...files),
      fc.array(fc.record({ at: fc.nat(), byte: fc.nat(255), second: fc.boolean() }), { minLength: 1, maxLength: 5 }),
      ([file, part], changes) => {
        const copies = [Buffer.from(file), Buffer.from(part)];
        for (const { at, byte, second } of changes) {
          const copy = copies[second && part.length > 0 ? 1 : 0]!;
          copy[at % 2 === 0 ? at % copy.length : at % Math.min(copy.length, 600)] = byte;
        }
        survives(vmdk, copies[0]!, { part: new MemorySource("part", copies[1]!) });
      },
    ),
    { numRuns: 2500 },
  );
  t.pass();
});
