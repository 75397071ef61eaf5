/** The parts of the NTFS reader that need no image. */
import test from "ava";
import { MemorySource } from "../../bytes/memory.js";
import { parseAttributeList, parseAttributes } from "./attribute.js";
import { readBootSector } from "./boot-sector.js";
import { parseExtendedAttributes } from "./extended-attributes.js";
import { applyFixups } from "./fixups.js";
import { translate } from "./links.js";
import { HOLE, Runs } from "./runs.js";
import { readTime } from "./times.js";

const hex = (text: string) => Buffer.from(text.replaceAll(" ", ""), "hex");

test("runs: lengths and signed distances, holes, and pieces that follow each other", (t) => {
  const runs = new Runs(1_000_000, 2 ** 40);
  // 0x18 clusters at 0x342573, 0x114 at 0x211e5 less, a hole of 0x42 (the usual example of the Linux-NTFS documentation,
  // within a smaller volume).
  t.is(runs.append(hex("21 18 34 56 01 42 21 14 00 fe 00"), 0), undefined);
  t.deepEqual(
    [0, 1, 2].map((run) => [runs.startOf(run), runs.endOf(run), runs.lcnOf(run)]),
    [
      [0, 0x18, 0x5634],
      [0x18, 0x5a, HOLE],
      [0x5a, 0x6e, 0x5434],
    ],
  );
  t.is(runs.append(hex("11 05 07 00"), 0x6e), undefined);
  t.deepEqual([runs.count, runs.end, runs.lcnOf(runs.find(0x70))], [4, 0x73, 7]);
  for (const [vcn, run] of [
    [0, 0],
    [0x17, 0],
    [0x18, 1],
    [0x72, 3],
    [0x73, -1],
    [0x59, 1],
    [0x60, 2],
    [-1, -1],
  ] as const)
    t.is(runs.find(vcn), run);
});

test("runs: clusters that follow each other are one run", (t) => {
  const runs = new Runs(1000, 2 ** 40);
  t.is(runs.append(hex("11 05 07 11 02 05 01 03 01 04 00"), 0), undefined);
  t.deepEqual([runs.count, runs.lcnOf(0), runs.endOf(0), runs.lcnOf(1), runs.end], [2, 7, 7, HOLE, 14]);
});

test("runs: what can't be is said", (t) => {
  const wrong = (pairs: string, first = 0) => new Runs(1000, 10_000).append(hex(pairs), first);
  t.regex(wrong("11 05") ?? "", /damaged header/);
  t.regex(wrong("11 05 07") ?? "", /no end/);
  t.regex(wrong("11 05 80 00") ?? "", /of a volume of 1000/);
  t.regex(wrong("21 05 e6 03 00") ?? "", /place cluster 0 at cluster 998 of a volume of 1000/);
  t.regex(wrong("11 00 07 00") ?? "", /one of 0 clusters/);
  t.regex(wrong("11 ff 07 00") ?? "", /one of -1 clusters/);
  t.regex(wrong("08 ff ff ff ff ff ff ff 7f 00") ?? "", /clusters at cluster 0/);
  t.regex(wrong("99 00 00") ?? "", /damaged header/);
  t.regex(wrong("11 05 07 00", 3) ?? "", /go on at cluster 3 instead of 0/);
});

test("times are 100 ns since 1601, before 1970 and far away too", (t) => {
  const time = (units: bigint) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(units);
    return readTime(bytes, 0);
  };
  t.deepEqual(time(0n), { seconds: -11644473600, nanoseconds: 0 });
  t.deepEqual(time(116444736000000000n), { seconds: 0, nanoseconds: 0 });
  t.deepEqual(time(116444736000000000n - 1n), { seconds: -1, nanoseconds: 999999900 });
  t.deepEqual(time(132643643236620538n), { seconds: 1619890723, nanoseconds: 662053800 });
  t.deepEqual(time(-1n), { seconds: -11644473601, nanoseconds: 999999900 });
  for (const units of [2n ** 63n - 1n, -(2n ** 63n), 2n ** 62n + 12345n]) {
    const { seconds, nanoseconds } = time(units);
    t.is((BigInt(seconds) + 11644473600n) * 10_000_000n + BigInt(nanoseconds) / 100n, units);
  }
});

function bootSector(change: (bytes: Buffer) => void): MemorySource {
  const bytes = Buffer.alloc(512);
  bytes.write("NTFS    ", 3, "latin1");
  bytes.writeUInt16LE(512, 11);
  bytes[13] = 8;
  bytes.writeBigUInt64LE(80000n, 40);
  bytes.writeBigUInt64LE(4n, 48);
  bytes.writeBigUInt64LE(5000n, 56);
  bytes[64] = 0xf6;
  bytes.writeBigUInt64LE(0x2aa67fce54539050n, 72);
  change(bytes);
  return new MemorySource("image", bytes);
}

test("the boot sector tells cluster sizes from 512 bytes to 2 MiB, and the sizes of records", (t) => {
  const size = (value: number) => readBootSector(bootSector((bytes) => (bytes[13] = value))).clusterSize;
  t.is(size(1), 512);
  t.is(size(128), 65536);
  t.is(size(0xf8), 131072);
  t.is(size(0xf4), 2 * 1024 * 1024);
  const geometry = readBootSector(bootSector(() => {}));
  t.like(geometry, {
    recordSize: 1024,
    mftPosition: 16384,
    clusters: 10000,
    size: 40960000,
    serial: "2AA67FCE54539050",
  });
  t.is(readBootSector(bootSector((bytes) => (bytes[64] = 1))).recordSize, 4096);
});

test("a boot sector whose fields can't be is refused with the byte", (t) => {
  const refused = (change: (bytes: Buffer) => void, message: RegExp) =>
    t.throws(() => readBootSector(bootSector(change)), { code: "corrupt" as never, message });
  refused((bytes) => bytes.writeUInt16LE(500, 11), /sector size 500 .*byte 11/);
  refused((bytes) => (bytes[13] = 0), /byte 13/);
  refused((bytes) => (bytes[13] = 3), /byte 13/);
  refused((bytes) => (bytes[13] = 0xf3), /byte 13/);
  refused((bytes) => (bytes[13] = 0x90), /byte 13/);
  refused((bytes) => bytes.writeBigUInt64LE(2n ** 63n, 40), /byte 40/);
  refused((bytes) => bytes.writeBigUInt64LE(0n, 40), /byte 40/);
  refused((bytes) => bytes.writeBigUInt64LE(10000n, 48), /byte 48/);
  refused((bytes) => (bytes[64] = 0x81), /byte 64/);
  t.throws(() => readBootSector(new MemorySource("image", Buffer.alloc(100))), { message: /truncated/ });
});

test("fixups put the protected bytes back, and show a torn record", (t) => {
  const record = Buffer.alloc(1024);
  record.write("FILE", "latin1");
  record.writeUInt16LE(48, 4);
  record.writeUInt16LE(3, 6);
  hex("0700 1122 3344").copy(record, 48);
  for (const at of [510, 1022]) record.writeUInt16LE(7, at);
  const torn = Buffer.from(record);
  torn.writeUInt16LE(6, 1022);
  t.is(applyFixups(record, "FILE"), undefined);
  t.deepEqual([record.readUInt16BE(510), record.readUInt16BE(1022)], [0x1122, 0x3344]);
  t.regex(applyFixups(torn, "FILE") ?? "", /torn: its sector 1/);
  t.regex(applyFixups(Buffer.from(torn), "INDX") ?? "", /begins with "FILE" instead of INDX/);
  torn.writeUInt16LE(600, 4);
  t.regex(applyFixups(torn, "FILE") ?? "", /fixups at byte 600/);
});

test("attributes that go beyond their record are refused", (t) => {
  const record = Buffer.alloc(1024);
  record.writeUInt16LE(56, 20);
  record.writeUInt32LE(56 + 32 + 8, 24);
  record.writeUInt32LE(0x80, 56);
  record.writeUInt32LE(32, 60);
  record.writeUInt32LE(8, 56 + 16);
  record.writeUInt16LE(24, 56 + 20);
  record.writeUInt32LE(0xffffffff, 88);
  const [attribute] = parseAttributes(record, 1000) as never[];
  t.like(attribute, { type: 0x80, resident: true, position: 1080, name: "" });
  const refused = (at: number, value: number, message: RegExp) => {
    const changed = Buffer.from(record);
    changed.writeUInt32LE(value, at);
    const result = parseAttributes(changed, 0);
    t.regex(typeof result === "string" ? result : "accepted", message);
  };
  refused(24, 5000, /5000 of its 1024 bytes/);
  refused(60, 0, /length 0/);
  refused(60, 0xfffffff8, /length 4294967288/);
  refused(56 + 16, 900, /value of 900 bytes/);
  refused(56 + 8, 0x01000001, /too short|runs are at/);
});

test("an attribute list that is cut off is refused", (t) => {
  const list = Buffer.alloc(32);
  list.writeUInt32LE(0x80, 0);
  list.writeUInt16LE(32, 4);
  list[7] = 26;
  list.writeUIntLE(77, 16, 6);
  list.writeUInt16LE(3, 22);
  t.deepEqual(parseAttributeList(list), [
    { type: 0x80, name: "", firstCluster: 0, record: 77, sequence: 3, instance: 0 },
  ]);
  t.is(typeof parseAttributeList(list.subarray(0, 20)), "string");
  list.writeUInt16LE(0, 4);
  t.is(typeof parseAttributeList(list), "string");
});

test("extended attributes end at a damaged one, and never go in a circle", (t) => {
  const entry = (next: number, name: string, value: Buffer) =>
    Buffer.concat([
      Buffer.from([next, 0, 0, 0, 0, name.length, value.length, 0]),
      Buffer.from(`${name}\0`, "latin1"),
      value,
    ]);
  const both = Buffer.concat([
    entry(20, "$LXUID", hex("e8030000")),
    Buffer.alloc(1),
    entry(0, "$LXMOD", hex("a4810000")),
  ]);
  t.deepEqual(
    [...parseExtendedAttributes(both)].map(([name, value]) => [name, value.readUInt32LE()]),
    [
      ["$LXUID", 1000],
      ["$LXMOD", 0o100644],
    ],
  );
  both.writeUInt32LE(0xffffffff, 0);
  t.deepEqual([...parseExtendedAttributes(both).keys()], ["$LXUID"]);
});

test("folders that contain themselves end a link's way to the root with an error", (t) => {
  const tree = { root: 5, parentOf: (file: number) => (file === 30 ? 31 : 30), step: () => undefined };
  t.throws(() => translate("file", 40, { kind: "relative", path: "x" }, tree), { message: /in a circle/ });
});
