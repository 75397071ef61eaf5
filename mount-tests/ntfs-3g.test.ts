/** The NTFS reader against ntfs-3g: volumes that it writes, and then shows through a mount of its own. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { noWimlib, packedByWimlib, variedData } from "../src/bytes/wim-test-tools.js";
import type { FileSystem } from "../src/filesystems/filesystem.js";
import { changed, lies, meet, placesOf } from "../src/filesystems/hostile-test-tools.js";
import { ntfs } from "../src/filesystems/ntfs/ntfs.js";
import { walk } from "../src/filesystems/shared-test-images.js";
import { DriverTrees } from "./driver-trees.js";
import { drivers, people, serialFor, Workspace } from "./helpers.js";
import {
  compareWithNtfs3g,
  fillInPieces,
  fillWithOddities,
  NtfsImage,
  noise,
  noNtfs3g,
  setAttribute,
  text,
} from "./ntfs-tree.js";

if (noNtfs3g) console.log(`Skipped: ${noNtfs3g}.`);
const serial = noNtfs3g ? test.serial.skip : test.serial;

const MiB = 2 ** 20;
/** Of the many files that are alike a few; links to what ntfs-3g names by its mount point are compared above. */
const trees = new DriverTrees(
  ["size", "times", "device", "streams", "content"],
  "^(many/|filler/|small ).*([1-9]|[1-9]0)$",
);

function equalsNtfs3g(t: ExecutionContext, image: NtfsImage): FileSystem {
  image.mount("ro,streams_interface=xattr");
  const fileSystem = image.open();
  const { list, files } = compareWithNtfs3g(fileSystem, image.mountpoint);
  trees.keep(t, image.path, image.mountpoint);
  image.unmount();
  t.deepEqual(list.slice(0, 20), [], `${list.length} differences`);
  t.deepEqual(fileSystem.warnings, []);
  t.is(fileSystem.label, "Prüfung");
  t.log(`${files} files are the same`);
  return fileSystem;
}

const volumes: Record<string, readonly [size: number, options: readonly string[], compression: boolean]> = {
  "as mkntfs makes it": [60 * MiB, [], true],
  "in clusters of 512 bytes": [60 * MiB, ["-c", "512"], true],
  "in clusters of 1 KiB": [60 * MiB, ["-c", "1024"], true],
  "in clusters of 64 KiB": [300 * MiB, ["-c", "65536"], false],
  "in clusters of 2 MiB": [900 * MiB, ["-c", "2097152"], false],
  "in sectors of 4 KiB": [60 * MiB, ["-s", "4096"], true],
};
for (const [title, [size, options, compression]] of Object.entries(volumes))
  serial(`a volume ${title} reads as ntfs-3g shows it`, (t) => {
    const image = new NtfsImage(t, size, options);
    image.fill((root) => fillWithOddities(root, compression));
    equalsNtfs3g(t, image);
  });

serial("files and $MFT in thousands of pieces read as ntfs-3g shows them", (t) => {
  const image = new NtfsImage(t, 20 * MiB, ["-c", "1024", "-z", "1"]);
  image.fill((root) => fillInPieces(root, 1024, 3000));
  equalsNtfs3g(t, image);
});

/** A reparse point's bytes: its tag, and its data. */
function reparse(tag: number, ...data: Buffer[]): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(tag >>> 0, 0);
  header.writeUInt16LE(Buffer.concat(data).length, 4);
  return Buffer.concat([header, ...data]);
}
const u16 = (...values: number[]) => Buffer.from(values.flatMap((value) => [value & 255, value >> 8]));
const u32 = (...values: number[]) => Buffer.concat(values.map((value) => u16(value & 0xffff, value >>> 16)));
const junction = (target: string) => {
  const path = Buffer.from(target, "utf16le");
  return reparse(0xa0000003, u16(0, path.length, path.length + 2, 0), path, u16(0, 0));
};
const symlink = (target: string, relative: boolean) => {
  const path = Buffer.from(target, "utf16le");
  return reparse(0xa000000c, u16(0, path.length, path.length, 0), u32(relative ? 1 : 0), path);
};

serial("junctions and symlinks of Windows lead where ntfs-3g leads them", (t) => {
  const image = new NtfsImage(t, 30 * MiB);
  image.fill((root) => {
    mkdirSync(join(root, "Users", "Anna", "Application Data"), { recursive: true });
    mkdirSync(join(root, "a", "b"), { recursive: true });
    writeFileSync(join(root, "Users", "Anna", "Letter.txt"), "Dear");
    const link = (path: string, data: Buffer) => {
      writeFileSync(join(root, path), "");
      setAttribute(join(root, path), "system.ntfs_reparse_data", data);
    };
    const folder = (path: string, data: Buffer) => {
      mkdirSync(join(root, path));
      setAttribute(join(root, path), "system.ntfs_reparse_data", data);
    };
    folder("a/b/junction", junction("\\??\\C:\\users\\ANNA"));
    folder("junction at the root", junction("\\??\\d:\\Users\\Anna\\application data"));
    folder("a/to another drive", junction("\\??\\e:\\not here\\at all"));
    folder("a/to a drive", junction("\\??\\C:\\"));
    folder("a/through a junction", junction("\\??\\C:\\a\\b\\JUNCTION\\Letter.txt"));
    folder("a/b/to a volume", junction("\\??\\Volume{01234567-89ab-cdef-0123-456789abcdef}\\"));
    link("a/relative", symlink("..\\users\\anna\\letter.TXT", true));
    link("a/b/further up", symlink("..\\..\\users\\anna\\letter.TXT", true));
    link("beside", symlink("USERS\\Anna\\Letter.txt", true));
    link("a/full", symlink("\\??\\C:\\Users\\anna\\letter.txt", false));
    link("a/rooted", symlink("\\USERS\\anna\\letter.txt", true));
    folder("a/folder", symlink("b\\JUNCTION", true));
    link("a/wsl", reparse(0xa000001d, u32(2), Buffer.from("/mnt/c/täst")));
  });
  equalsNtfs3g(t, image);
});

serial("a link never leads above the root of its volume, and one that leads nowhere keeps its text", (t) => {
  const image = new NtfsImage(t, 30 * MiB);
  const targets: Record<string, readonly [data: Buffer, target: string]> = {
    "up.1": [symlink("..\\..\\..\\etc\\passwd", true), "../etc/passwd"],
    "up.2": [symlink("\\??\\C:\\x\\..\\..\\..\\..\\etc", false), "../.NTFS-3G/C:/x/../etc"],
    "up.3": [junction("\\??\\..\\..\\etc"), "../.NTFS-3G/_/etc"],
    "up.4": [symlink("\\..\\..\\etc", true), "../etc"],
    nowhere: [symlink("not\\here", true), "not/here"],
    server: [symlink("\\??\\UNC\\server\\share\\file", false), "../.NTFS-3G/UNC/server/share/file"],
    here: [symlink(".", true), "."],
  };
  image.fill((root) => {
    mkdirSync(join(root, "folder"));
    for (const [name, [data]] of Object.entries(targets)) {
      mkdirSync(join(root, "folder", name));
      setAttribute(join(root, "folder", name), "system.ntfs_reparse_data", data);
    }
  });
  const { files, errors } = walk(image.open());
  t.deepEqual([...errors], []);
  for (const [name, [, target]] of Object.entries(targets)) t.is(files.get(`/folder/${name}`)?.link, target, name);
});

const systemCompressions = [
  ["XPRESS4K", 0, "XPRESS", 4096],
  ["LZX", 1, "LZX", 32768],
  ["XPRESS8K", 2, "XPRESS", 8192],
  ["XPRESS16K", 3, "XPRESS", 16384],
] as const;

(noWimlib ? test.serial.skip : serial)(
  "files that the system compressed are unpacked, and their packed stream is not shown",
  (t) => {
    const image = new NtfsImage(t, 30 * MiB, ["-c", "512"]);
    const large = variedData(900_001);
    const contents = new Map<string, Buffer>();
    image.fill((root) => {
      for (const [name, number, method, chunkSize] of systemCompressions)
        for (const data of [large, text(30), large.subarray(0, 3 * chunkSize), large.subarray(0, chunkSize + 1)]) {
          const packed = packedByWimlib(t, data, method, chunkSize);
          if (!packed) continue;
          const path = join(root, `${name} ${data.length}`);
          contents.set(`/${name} ${data.length}`, data);
          writeFileSync(`${path}:WofCompressedData`, packed);
          writeFileSync(`${path}:other`, "another stream");
          truncateSync(path, data.length);
          setAttribute(path, "system.ntfs_reparse_data", reparse(0x80000017, u32(1, 2, 1, number)));
        }
      writeFileSync(join(root, "of a WIM"), noise(10_000));
      setAttribute(join(root, "of a WIM"), "system.ntfs_reparse_data", reparse(0x80000017, u32(1, 1, 1, 0)));
      writeFileSync(join(root, "deduplicated"), noise(10_000));
      setAttribute(join(root, "deduplicated"), "system.ntfs_reparse_data", reparse(0x80000013, Buffer.alloc(32)));
    }, "streams_interface=windows");
    t.true(contents.size >= 12);
    const fileSystem = image.open();
    const { files, errors } = walk(fileSystem);
    for (const [path, data] of contents) {
      const found = files.get(path)!;
      t.is(found.attributes.kind, "file");
      t.is(found.attributes.size, data.length);
      t.true(found.attributes.allocated < data.length + 512, `${path} takes ${found.attributes.allocated}`);
      t.is(found.hash, createHash("sha256").update(data).digest("hex"), path);
      t.deepEqual(
        [...found.xattrs.keys()].filter((name) => name.startsWith("user.")),
        ["user.other"],
      );
      t.deepEqual(
        fileSystem.streams!(found.id).map((name) => Buffer.from(name).toString()),
        ["other"],
      );
      const stream = fileSystem.stream!(found.id, Buffer.from("other"))!;
      const bytes = Buffer.alloc(100);
      t.is(bytes.toString("latin1", 0, stream.read(0, bytes)), "another stream");
      // In any order, and across the edges of chunks.
      for (const position of [data.length - 1, data.length >> 1, 4095, 0, 32767].filter((at) => at < data.length)) {
        const length = Math.min(5000, data.length - position);
        const part = Buffer.alloc(length);
        for (let at = 0; at < length; ) at += fileSystem.read(found.id, position + at, part.subarray(at));
        t.true(part.equals(data.subarray(position, position + length)), `${path} at ${position}`);
      }
    }
    t.regex(errors.get("/deduplicated") ?? "", /deduplicated by Windows Server/);
    t.regex(errors.get("/of a WIM") ?? "", /in a WIM file elsewhere/);
    t.is(errors.size, 2);
  },
);

serial("what was allocated and never written reads as zeros, and holes are told", (t) => {
  const image = new NtfsImage(t, 30 * MiB);
  image.fill((root) => {
    writeFileSync(join(root, "file"), Buffer.alloc(100_000, "x"));
    const file = openSync(join(root, "sparse"), "w");
    writeSync(file, "end", 10_000_000);
    closeSync(file);
  });
  // Its valid size, 56 bytes into the attribute: found by the three sizes that are the same now.
  const bytes = readFileSync(image.path);
  const sizes = Buffer.alloc(24);
  sizes.writeUInt32LE(102_400, 0);
  sizes.writeUInt32LE(100_000, 8);
  sizes.writeUInt32LE(100_000, 16);
  const at = bytes.indexOf(sizes);
  t.true(at > 0);
  const descriptor = openSync(image.path, "r+");
  writeSync(descriptor, u32(50_001), 0, 4, at + 16);
  closeSync(descriptor);
  const fileSystem = equalsNtfs3g(t, image);
  const file = fileSystem.lookup(fileSystem.root, Buffer.from("file"))!;
  t.deepEqual(fileSystem.extentAt!(file, 0), { hole: false, length: 50_001 });
  t.deepEqual(fileSystem.extentAt!(file, 50_001), { hole: true, length: 49_999 });
  const sparse = fileSystem.lookup(fileSystem.root, Buffer.from("SPARSE"))!;
  t.deepEqual(fileSystem.extentAt!(sparse, 0), { hole: true, length: 9_998_336 });
  t.deepEqual(fileSystem.extentAt!(sparse, 9_998_336), { hole: false, length: 1667 });
});

serial("names are found as they are written first, then whatever their case, then as short DOS names", (t) => {
  const image = new NtfsImage(t, 30 * MiB);
  image.fill((root) => {
    for (const name of ["Foo", "foo", "Bär", "a long name.text"]) writeFileSync(join(root, name), name);
    setAttribute(join(root, "a long name.text"), "system.ntfs_dos_name", Buffer.from("ALONGN~1.TEX"));
  });
  const fileSystem = image.open();
  const find = (name: string) => {
    const file = fileSystem.lookup(fileSystem.root, Buffer.from(name));
    if (file === undefined) return undefined;
    const bytes = Buffer.alloc(50);
    return bytes.toString("utf8", 0, fileSystem.read(file, 0, bytes));
  };
  t.is(find("Foo"), "Foo");
  t.is(find("foo"), "foo");
  t.true(["Foo", "foo"].includes(find("FOO")!));
  t.is(find("bÄR"), "Bär");
  t.is(find("ALONGN~1.TEX"), "a long name.text");
  t.is(find("alongn~1.tex"), "a long name.text");
  t.is(find("bar"), undefined);
  t.not(find("$MFT"), undefined, "the system's files are found");
  const names = [...fileSystem.list(fileSystem.root)].map(({ name }) => Buffer.from(name).toString());
  t.deepEqual(names.sort(), ["Bär", "Foo", "a long name.text", "foo"]);
});

serial("sleuthkit's icat reads the same bytes", (t) => {
  if (spawnSync("icat", ["-V"]).error) {
    t.log("skipped: icat is not installed (apt install sleuthkit)");
    t.pass();
    return;
  }
  const image = new NtfsImage(t, 60 * MiB);
  image.fill((root) => fillWithOddities(root, true));
  const fileSystem = image.open();
  let compared = 0;
  for (const [path, { attributes, hash }] of walk(fileSystem).files) {
    if (attributes.kind !== "file" || path.startsWith("/many/")) continue;
    const theirs = spawnSync("icat", [image.path, String(attributes.inode)], { maxBuffer: 1 << 28 });
    t.is(hash ?? "none", createHash("sha256").update(theirs.stdout).digest("hex"), path);
    compared++;
  }
  t.log(`${compared} files`);
});

serial("a directory of 20,000 entries is listed and every name found", (t) => {
  const image = new NtfsImage(t, 100 * MiB);
  image.fill((root) => {
    for (let index = 0; index < 20_000; index++) writeFileSync(join(root, `entry with a name ${index}`), "");
  });
  const fileSystem = image.open();
  const files = new Set<number>();
  for (const { name, file } of fileSystem.list(fileSystem.root)) {
    files.add(file);
    if (fileSystem.lookup(fileSystem.root, name) !== file) t.fail(`${Buffer.from(name)} is another file`);
  }
  t.is(files.size, 20_000);
});

/** Structures that only a mount can write: compression of both kinds, links, many names and streams of one file. */
serial("whatever field of the metadata is wrong, only errors in words come out, in bounded steps", (t) => {
  const image = new NtfsImage(t, 12 * MiB, ["-c", "512"]);
  const large = variedData(100_001);
  image.fill((root) => {
    writeFileSync(join(root, "file"), text(100));
    mkdirSync(join(root, "compressed"));
    setAttribute(join(root, "compressed"), "system.ntfs_attrib", Buffer.from([0, 8, 0, 0]));
    writeFileSync(join(root, "compressed", "text"), text(3000));
    writeFileSync(join(root, "compressed", "mixed"), Buffer.concat([text(2000), noise(70_000), Buffer.alloc(300_000)]));
    for (let index = 0; index < 40; index++) {
      setAttribute(join(root, "file"), `user.stream ${index}`, noise(200, index));
      linkSync(join(root, "file"), join(root, "compressed", `${"long name ".repeat(10)}${index}`));
    }
    mkdirSync(join(root, "link"));
    setAttribute(join(root, "link"), "system.ntfs_reparse_data", junction("\\??\\C:\\compressed\\text"));
  });
  if (!noWimlib)
    image.fill((root) => {
      for (const [name, number, method, chunkSize] of systemCompressions) {
        const path = join(root, name);
        writeFileSync(`${path}:WofCompressedData`, packedByWimlib(t, large, method, chunkSize)!);
        truncateSync(path, large.length);
        setAttribute(path, "system.ntfs_reparse_data", reparse(0x80000017, u32(1, 2, 1, number)));
      }
    }, "streams_interface=windows");
  const sample = { name: "ntfs-3g's", format: ntfs, bytes: readFileSync(image.path) };
  const places = placesOf(sample);
  let opened = 0;
  const runs = Number(process.env.SPINDLE_HOSTILE_RUNS ?? 150);
  fc.assert(
    fc.property(lies, (told) => {
      if (meet(sample, changed(sample, places, told)).names !== undefined) opened++;
    }),
    { numRuns: runs },
  );
  t.log(`${opened} of ${runs} could be opened`);
  t.true(opened > runs / 2);
});

for (const driver of drivers)
  serialFor(people[0])(`all of these volumes are shown by a mount as ntfs-3g shows them (${driver})`, async (t) => {
    await trees.compare(t, new Workspace(t, people[0]!, driver));
  });
