/** The NTFS reader on volumes that Windows made (the shared images), and on such volumes damaged. */
import { readlinkSync } from "node:fs";
import test, { type ExecutionContext } from "ava";
import { readExactly } from "../../bytes/byte-source.js";
import { MemorySource } from "../../bytes/memory.js";
import { ImageError } from "../../errors.js";
import { hasTools, run } from "../image-test-tools.js";
import {
  compareManifest,
  type ManifestRow,
  openRecognised,
  openSharedImage,
  readManifest,
  sharedImages,
  sharedVolume,
  testSurroundings,
  walk,
} from "../shared-test-images.js";
import { readBootSector } from "./boot-sector.js";
import { ntfs } from "./ntfs.js";

/** Containers that are raw disks, at least in their first bytes. */
const raw = ["raw", "vhd-fixed"];
/** What only shows with ntfs-3g's option show_sys_files, in sleuthkit, and in 7-Zip in a folder of its making. */
const isSystem = ({ path }: ManifestRow) => /^\/(\$|\[SYSTEM\])(?!RECYCLE)/.test(path);
/** 7-Zip lists alternate streams as files. */
const isStream = ({ path }: ManifestRow) => path.includes(":");

test("the shared NTFS volumes list and read as sleuthkit, ntfs-3g and 7-Zip have them", (t) => {
  let compared = 0;
  for (const image of sharedImages(t, ({ fs, container }) => /ntfs/.test(fs) && raw.includes(container))) {
    const source = openSharedImage(t, image);
    for (const { volume, reader, path } of image.manifests) {
      const fileSystem = openRecognised(t, ntfs, sharedVolume(image, source, volume));
      const walked = walk(fileSystem);
      const rows = readManifest(path);
      const isLink = (path: string) => walked.files.get(path)?.attributes.kind === "symlink";
      const differences = compareManifest(walked, rows, {
        reader,
        // Links: sleuthkit and 7-Zip show a junction as the file or folder that it is, ntfs-3g's mount point was cut off.
        skip: (row) => isSystem(row) || isStream(row) || row.type === "v" || isLink(row.path),
        xattrs: false,
      }).filter((difference) => !isLink(difference.replace(/: \S+ doesn't have it$/, "")));
      t.deepEqual(differences, [], `${image.file} ${volume} ${reader}`);
      compared += rows.filter((row) => !isSystem(row)).length;
      const label = /LABEL=(\w+) UUID/.exec(image.blkid)?.[1];
      if (label) t.is(fileSystem.label, label);
      const uuid = /UUID=(\w+)/.exec(image.blkid)?.[1];
      if (uuid) t.is(String(fileSystem.facts?.uuid), uuid);
    }
  }
  t.log(`${compared} rows of manifests`);
});

test("an absolute link that Windows made leads to its file on the same volume", (t) => {
  for (const image of sharedImages(t, ({ file }) => file === "dfvfs/vss.raw.zst")) {
    const fileSystem = ntfs.open(openSharedImage(t, image), testSurroundings());
    const link = fileSystem.lookup(fileSystem.root, Buffer.from("a_link"))!;
    // In the image it is \??\C:\... or so; ntfs-3g leads to the same file below its mount point.
    t.is(Buffer.from(fileSystem.readLink(link)).toString(), "a_directory/another_file");
  }
});

test("owners, security ids, flags and sequence numbers are those that sleuthkit's istat tells", (t) => {
  if (!hasTools(t, "sleuthkit", "istat")) return;
  for (const image of sharedImages(t, ({ file }) => file === "dfvfs/vss.raw.zst")) {
    const source = openSharedImage(t, image);
    const fileSystem = ntfs.open(source, testSurroundings());
    for (const [path, { id, attributes }] of walk(fileSystem).files) {
      const told = run("istat", [readlinkSync(`/proc/self/fd/${source.fd}`), String(attributes.inode)]);
      const details = fileSystem.details!(id) as { flags?: string[] } & Record<string, unknown>;
      const [, securityId, owner] = /Security ID: (\d+)\s+\((\S+)\)/.exec(told)!;
      t.is(details.securityId, Number(securityId), path);
      t.is(details.ownerSid, owner, path);
      t.is(details.sequence, Number(/Sequence: (\d+)/.exec(told)![1]), path);
      const flags = /^Flags: (.*)$/m.exec(told)![1]!.trim().toLowerCase().split(", ").filter(Boolean);
      t.deepEqual((details.flags ?? []).filter((flag) => flag !== "directory").sort(), flags.sort(), path);
    }
    const link = fileSystem.lookup(fileSystem.root, Buffer.from("a_link"))!;
    t.is(fileSystem.details!(link).reparsePoint, "symbolic link (0xa000000c)");
  }
});

/** A volume of 3 MB that Windows made, in memory; undefined where the shared images are absent. */
function windowsVolume(t: ExecutionContext): Buffer | undefined {
  for (const image of sharedImages(t, ({ file }) => file === "dfvfs/ntfs-fixed.vhd.zst")) {
    const source = sharedVolume(image, openSharedImage(t, image), "p1");
    return readExactly(source, 0, source.size, "the volume");
  }
  return undefined;
}

const openBytes = (bytes: Buffer) => ntfs.open(new MemorySource("volume", bytes), testSurroundings());

/** Where the record of the file with this name is. */
function recordOf(bytes: Buffer, name: string): number {
  for (let at = 0; at < bytes.length; at += 512)
    if (bytes.toString("latin1", at, at + 4) === "FILE" && bytes.includes(Buffer.from(name, "utf16le"), at)) {
      const within = bytes.indexOf(Buffer.from(name, "utf16le"), at) - at;
      if (within < 1024) return at;
    }
  throw new Error(`no record has the name ${name}`);
}

/** Where the attribute of this type is in a record. */
function attributeOf(bytes: Buffer, record: number, type: number): number {
  let at = record + bytes.readUInt16LE(record + 20);
  while (bytes.readUInt32LE(at) !== type) at += bytes.readUInt32LE(at + 4);
  return at;
}

test("a file that EFS encrypted is shown, and its reading refused with the reason", (t) => {
  const bytes = windowsVolume(t);
  if (!bytes) return;
  bytes.writeUInt16LE(0x4000, attributeOf(bytes, recordOf(bytes, "passwords.txt"), 0x80) + 12);
  const { files, errors } = walk(openBytes(bytes));
  t.deepEqual([...errors.keys()], ["/passwords.txt"]);
  t.regex(errors.get("/passwords.txt")!, /file record \d+ \(byte \d+\) is encrypted \(EFS\)/);
  t.is(files.get("/passwords.txt")?.attributes.size, 126);
});

test("where the record of $MFT is damaged, its mirror is used, with a warning", (t) => {
  const bytes = windowsVolume(t);
  if (!bytes) return;
  const sound = walk(openBytes(bytes));
  bytes.fill(0, readBootSector(new MemorySource("volume", bytes)).mftPosition, undefined);
  const untouched = windowsVolume(t)!;
  const { mftPosition } = readBootSector(new MemorySource("volume", untouched));
  untouched.fill(0xee, mftPosition, mftPosition + 1024);
  const fileSystem = openBytes(untouched);
  t.regex(fileSystem.warnings![0]!, /its mirror at byte \d+ is sound and used/);
  t.deepEqual([...walk(fileSystem).files.keys()], [...sound.files.keys()]);
  t.throws(() => openBytes(bytes), { instanceOf: ImageError });
});

test("an entry whose file was deleted, and its record used anew, isn't taken for the new file", (t) => {
  const bytes = windowsVolume(t);
  if (!bytes) return;
  const record = recordOf(bytes, "passwords.txt");
  bytes.writeUInt16LE(bytes.readUInt16LE(record + 16) + 1, record + 16);
  const { errors } = walk(openBytes(bytes));
  t.regex(errors.get("/passwords.txt") ?? "", /belongs to another file now or to none/);
  t.is(errors.size, 1);
});

test("a record that isn't in use, a torn one, and one without its magic are errors of that file only", (t) => {
  for (const [at, value, message] of [
    [22, 0, /is not in use/],
    [510, 0x77, /is torn/],
    [0, 0x42, /begins with "BILE"/],
    [32, 9, /is a part of file/],
  ] as const) {
    const bytes = windowsVolume(t);
    if (!bytes) return;
    const record = recordOf(bytes, "passwords.txt");
    bytes[record + at] = value;
    const { errors, files } = walk(openBytes(bytes));
    t.regex(errors.get("/passwords.txt") ?? "", message);
    t.is(errors.size, 1);
    t.true(files.has("/a_directory/a_file"));
  }
});

test("an index that goes beyond its record is an error of that folder only, and an image that ends early of the files in the rest", (t) => {
  const bytes = windowsVolume(t);
  if (!bytes) return;
  const short = openBytes(bytes.subarray(0, bytes.length - 512 * 1024));
  t.regex(short.warnings!.join(), /only \d+ are there/);
  t.notThrows(() => walk(short));
  const index = attributeOf(bytes, recordOf(bytes, "System Volume Information"), 0x90);
  bytes.writeUInt32LE(0x7fffffff, index + bytes.readUInt16LE(index + 20) + 16 + 4);
  const { errors } = walk(openBytes(bytes));
  t.regex(errors.get("/System Volume Information") ?? "", /entries beyond its end/);
});
