import { execFileSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { MemorySource } from "../../bytes/memory.js";
import { hasTools } from "../image-test-tools.js";
import { openSharedImage, sharedFolder, sharedImages } from "../shared-test-images.js";
import { filesystemSignatures } from "./filesystems.js";
import { identify } from "./index.js";
import { endSignatures, memberSignatures } from "./members.js";
import { tableSignatures } from "./tables.js";

const folder = mkdtempSync(join(tmpdir(), "spindle-unread-"));
test.after.always(() => rmSync(folder, { recursive: true, force: true }));

const MiB = 1 << 20;

/** What blkid says of a file: type (of a filesystem, or of a partition table), label and UUID. */
function blkid(path: string) {
  const lines = execFileSync("blkid", ["-p", "-o", "udev", path], { encoding: "utf8" }).split("\n");
  const values = new Map(lines.map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string]));
  const value = (name: string) => values.get(name) ?? "";
  const label = value("ID_FS_LABEL_ENC").replace(/\\x(..)/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)));
  return {
    type: value("ID_FS_TYPE") || value("ID_PART_TABLE_TYPE"),
    label: label.trimEnd(),
    uuid: value("ID_FS_UUID"),
  };
}

function ours(bytes: Uint8Array) {
  const found = identify(new MemorySource("volume", bytes));
  return found && { type: found.type, label: found.label, uuid: found.uuid };
}

function madeBy(t: ExecutionContext, ...commands: [string, ...string[]][]): void {
  if (!hasTools(t, "util-linux", "blkid", "mkswap", "mkfs.minix", "mkfs.bfs", "mkfs.cramfs", "sfdisk")) return;
  for (const [index, [tool, ...options]] of commands.entries()) {
    const path = join(folder, `${tool}-${index}`);
    writeFileSync(path, "");
    truncateSync(path, 10 * MiB);
    execFileSync(tool, [...options, path], {
      stdio: ["pipe", "ignore", "ignore"],
      ...(tool === "sfdisk" && { input: ",5M" }),
    });
    t.deepEqual(ours(readFileSync(path)), blkid(path), [tool, ...options].join(" "));
  }
}

test("what the system's own tools make is named as blkid names it", (t) => {
  const packed = join(folder, "packed");
  mkdirSync(packed);
  writeFileSync(join(packed, "file"), "x");
  madeBy(
    t,
    ["mkswap", "-L", "pages"],
    ["mkswap", "-p", "16384"],
    ["mkfs.minix", "-1"],
    ["mkfs.minix", "-2", "-n", "14"],
    ["mkfs.minix", "-3"],
    ["mkfs.bfs"],
    ["mkfs.cramfs", "-n", "small", packed],
    ["mkfs.cramfs", "-N", "big", packed],
    ["sfdisk", "--no-reread", "-X", "sgi"],
    ["sfdisk", "--no-reread", "-X", "sun"],
  );
});

/** Superblocks as far as libblkid looks at them, for those of which it checks no sums. */
const written: Record<string, readonly (readonly [position: number, text: string])[]> = {
  jfs: [
    [32768, "JFS1"],
    [32768 + 16, "\0\x10\0\0\x0c\0\x03\0\0\x02\0\0\x09\0"],
    [32768 + 136, "ABCDEFGHIJKLMNOP"],
    [32768 + 152, "journaled"],
  ],
  reiserfs: [
    [65536 + 12, "\x12"],
    [65536 + 44, "\0\x10"],
    [65536 + 52, "ReIsEr2Fs"],
    [65536 + 84, "0123456789abcdef"],
    [65536 + 100, "trees"],
  ],
  "reiserfs 3.5": [
    [65536 + 12, "\x12"],
    [65536 + 44, "\0\x10"],
    [65536 + 52, "ReIsErFs"],
  ],
  reiser4: [
    [65536, "ReIsEr4"],
    [65536 + 19, "\x10"],
    [65536 + 20, "0123456789abcdef"],
    [65536 + 36, "four"],
  ],
  gfs2: [
    [65536, "\x01\x16\x19\x70"],
    [65536 + 24, "\0\0\x07\x09\0\0\x07\x6c"],
    [65536 + 160, "a:b"],
    [65536 + 256, "0123456789abcdef"],
  ],
  ocfs2: [
    [2048, "OCFSV2"],
    [2048 + 272, "cluster"],
    [2048 + 336, "0123456789abcdef"],
  ],
  vxfs: [[1024, "\xf5\xfc\x01\xa5\x03"]],
  "ufs 2": [
    [65536 + 1372, "\x19\x01\x54\x19"],
    [65536 + 144, "\x01\x02\x03\x04\x05\x06\x07\x08"],
    [65536 + 680, "disk1"],
  ],
  "ufs, big-endian": [
    [8192 + 1372, "\0\x01\x19\x54"],
    [8192 + 144, "\x01\x02\x03\x04\x05\x06\x07\x08"],
  ],
  hpfs: [
    [8192, "\x49\xe8\x95\xf9"],
    [8704, "\x49\x18\x91\xf9"],
    [38, "\x28\x01\x02\xab\xcdOS2 DISK   HPFS"],
    [510, "\x55\xaa"],
  ],
  hfs: [
    [1024, "BD"],
    [1024 + 20, "\0\0\x02\0"],
    [1024 + 36, "\x03Mac"],
    [1024 + 116, "12345678"],
  ],
  "hfsplus in hfs": [
    [1024, "BD"],
    [1024 + 20, "\0\0\x10\0"],
    [1024 + 28, "\0\x10"],
    [1024 + 124, "H+\0\x02"],
    [16384 + 1024, "H+\0\x04"],
    [16384 + 1024 + 40, "\0\0\x10\0"],
    [16384 + 1024 + 104, "12345678"],
  ],
  sysv: [[512 + 504, "\x20\x7e\x18\xfd"]],
  VMFS: [
    [2 * MiB, "\x5e\xf1\xab\x2f"],
    [2 * MiB + 9, "0123456789abcdef"],
    [2 * MiB + 29, "datastore"],
  ],
  VMFS_volume_member: [
    [MiB, "\x0d\xd0\x01\xc0"],
    [MiB + 532, "49edf842-dcb35d37-b383-0021280083cf"],
  ],
  vdo: [
    [0, "dmvdo001"],
    [40, "0123456789abcdef"],
  ],
  DM_verity_hash: [
    [0, "verity\0\0\x01"],
    [16, "0123456789abcdef"],
  ],
  DM_snapshot_cow: [[0, "SnAp\x01\0\0\0\x01"]],
  LVM1_member: [
    [0, "HM\x01\0"],
    [44, "0123456789abcdefghijklmnopqrstuv"],
  ],
  ceph_bluestore: [[0, "bluestore block device"]],
  swsuspend: [
    [4096 - 10, "S1SUSPEND"],
    [1036, "0123456789abcdef"],
    [1052, "asleep"],
  ],
  drbd: [
    [40 * MiB - 4096 + 60, "\x83\x74\x02\x6b"],
    [40 * MiB - 4096 + 40, "\0\x34\x56\x78\x9a\xbc\xde\xf0"],
    [40 * MiB - 4096 + 80, "\0\0\x10\0"],
  ],
  isw_raid_member: [[40 * MiB - 1024, "Intel Raid ISM Cfg Sig. 1.1.00"]],
  promise_fasttrack_raid_member: [[40 * MiB - 63 * 512, "Promise Technology, Inc."]],
};

test("superblocks written by hand are named as blkid names them", (t) => {
  if (!hasTools(t, "util-linux", "blkid")) return;
  const path = join(folder, "by-hand");
  for (const [name, parts] of Object.entries(written)) {
    const bytes = Buffer.alloc(40 * MiB);
    writeFileSync(path, "");
    truncateSync(path, bytes.length);
    const file = openSync(path, "r+");
    for (const [position, text] of parts) {
      bytes.write(text, position, "latin1");
      writeSync(file, Buffer.from(text, "latin1"), 0, text.length, position);
    }
    closeSync(file);
    const theirs = blkid(path);
    t.is(theirs.type, name.replace(/[ ,].*/, ""), name);
    t.deepEqual(ours(bytes), { ...theirs }, name);
  }
});

/** What blkid calls that which is read. */
const read = ["ext2", "ext3", "ext4", "vfat", "exfat", "ntfs", "iso9660", "udf", "squashfs", "dos", "gpt", "mac"];

test("the shared images that aren't read are named as blkid named them", (t) => {
  // INDEX.tsv tells of an opened LUKS volume what is in it.
  const named = sharedImages(
    t,
    ({ file, class: kind, container, rawSize, blkid }) =>
      kind !== "corrupt" &&
      container === "raw" &&
      rawSize < 100 * MiB &&
      !file.includes("luks2-pv") &&
      !read.includes(/TYPE=(\w+)/.exec(blkid)?.[1] ?? read[0]!),
  );
  for (const image of named) {
    const value = (name: string) =>
      new RegExp(`(?:^| )${name}=((?:\\\\.|\\S)*)`).exec(image.blkid)?.[1]?.replace(/\\(.)/g, "$1") ?? "";
    const theirs = { type: value("TYPE") || value("PTTYPE"), label: value("LABEL"), uuid: value("UUID") };
    const { what, isTable, ...found } = identify(openSharedImage(t, image)) ?? {};
    t.deepEqual(found, theirs as typeof found, image.file);
  }
  t.log(`${named.length} images`);
});

const everything = [...memberSignatures, ...filesystemSignatures, ...tableSignatures, ...endSignatures(5 * MiB)];

test("a disc image of Nero whose filesystem doesn't begin at its start is named", (t) => {
  const bytes = Buffer.alloc(100_000);
  bytes.write("NER5", bytes.length - 12);
  bytes.writeUInt32BE(90_000, bytes.length - 4);
  t.is(ours(bytes)?.type, "nrg");
});

test("every kind that util-linux has a test for is known", (t) => {
  let names: string[];
  try {
    names = readdirSync(join(sharedFolder, "util-linux", "expected"));
  } catch {
    t.log(`skipped: there are no shared images in ${sharedFolder}`);
    t.pass();
    return;
  }
  const types = names.flatMap((name) => {
    const text = readFileSync(join(sharedFolder, "util-linux", "expected", name), "utf8");
    return /^(?:ID_FS_TYPE=|size: .* PT: )(\w+)/m.exec(text)?.[1] ?? [];
  });
  const known = new Set([...read, ...everything.map(({ type }) => type)]);
  t.deepEqual([...new Set(types)].filter((type) => !known.has(type)).sort(), []);
});

test("a signature with anything around it, or cut off, is named or not, and throws nothing", (t) => {
  for (const fill of [0, 0xff, 0x01]) {
    const bytes = Buffer.alloc(5 * MiB, fill);
    for (const { at, type } of everything)
      for (const [start, offset, signature] of at.slice(0, 8)) {
        const before = Buffer.from(bytes.subarray(start, start + offset + signature.length));
        bytes.write(signature, start + offset, "latin1");
        for (const size of [bytes.length, start + offset + signature.length])
          t.notThrows(() => identify(new MemorySource("volume", bytes.subarray(0, size))), `${type}, ${fill}`);
        before.copy(bytes, start);
      }
  }
  for (const size of [0, 1, 511, 512, 4096, 70_000])
    t.is(identify(new MemorySource("volume", Buffer.alloc(size))), undefined);
});
