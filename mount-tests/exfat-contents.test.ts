/** What the exfat-fuse driver wrote, read by ours: contents, sizes and times of every file as the driver shows them. */
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "ava";
import { FileSource } from "../src/bytes/file.js";
import { exfat } from "../src/filesystems/exfat/exfat.js";
import { ExfatWriter, withChecksum } from "../src/filesystems/exfat/writer-test-tools.js";
import { contentsOf, hasTools, noise, run, scratchFolder, sparseFile } from "../src/filesystems/image-test-tools.js";
import { openRecognised, walk } from "../src/filesystems/shared-test-images.js";
import { DriverTrees } from "./driver-trees.js";
import { drivers, loopOver, people, releaseLoop, serialFor, Workspace } from "./helpers.js";

const trees = new DriverTrees(["size", "modified", "content"]);

for (const clusterSize of [512, 4096, 32768]) {
  test.serial(`a tree that exfat-fuse wrote in clusters of ${clusterSize} bytes reads as exfat-fuse shows it`, (t) => {
    if (process.getuid?.() !== 0 || !existsSync("/dev/fuse")) {
      t.log("skipped: exfat-fuse mounts block devices only, which takes root, /dev/fuse and a loop device");
      t.pass();
      return;
    }
    if (!hasTools(t, "exfatprogs exfat-fuse fuse3", "mkfs.exfat", "mount.exfat-fuse", "fsck.exfat")) return;
    const folder = scratchFolder(t);
    const path = sparseFile(folder, "exfat.img", 64 << 20);
    run("mkfs.exfat", ["-c", String(clusterSize), path]);
    const mounted = join(folder, "mounted");
    mkdirSync(mounted);
    const device = loopOver(t, path);
    if (device === undefined) return void t.pass(t.log("skipped: no loop device can be had") as undefined);
    run("mount.exfat-fuse", [device, mounted]);
    let expected: Map<string, string>;
    const times = new Map<string, number>();
    try {
      mkdirSync(join(mounted, "a directory/b/ç/目录"), { recursive: true });
      for (let index = 0; index < 100; index++)
        writeFileSync(
          join(mounted, "a directory", `file ${index} ${"long ".repeat(index % 30)}`),
          noise(index * 331, index),
        );
      for (let index = 0; index < 100; index += 3)
        rmSync(join(mounted, "a directory", `file ${index} ${"long ".repeat(index % 30)}`));
      // Goes into the gaps: in many pieces.
      writeFileSync(join(mounted, "pieces"), noise(900_001, 7));
      writeFileSync(join(mounted, "a directory/b/ç/目录/🎈"), noise(70_000, 8));
      utimesSync(join(mounted, "pieces"), 1_300_000_000, 1_300_000_002);
      expected = contentsOf(mounted);
      for (const name of expected.keys()) times.set(name, statSync(join(mounted, name)).mtimeMs / 1000);
      trees.keep(t, path, mounted);
    } finally {
      run("umount", [mounted]);
      releaseLoop(device, path);
    }
    t.regex(run("fsck.exfat", ["-n", path]), /clean/);
    const source = FileSource.open(path);
    t.teardown(() => source.close());
    const walked = walk(openRecognised(t, exfat, source));
    t.deepEqual([...walked.errors], []);
    const ours = [...walked.files].map(([name, { attributes, hash }]): [string, string] => [
      name,
      attributes.kind === "directory" ? "directory" : `${attributes.size} ${hash}`,
    ]);
    t.deepEqual(new Map(ours.sort()), new Map([...expected].sort()));
    t.is(times.get("/pieces"), 1_300_000_002);
    for (const [name, { attributes }] of walked.files)
      t.is(attributes.modified.seconds, Math.floor(times.get(name)!), name);
  });
}

test.serial(
  "a name of 255 characters with entries of a maker's own behind it is listed, as exfat-fuse lists it",
  (t) => {
    if (process.getuid?.() !== 0 || !existsSync("/dev/fuse")) {
      t.log("skipped: exfat-fuse mounts block devices only, which takes root, /dev/fuse and a loop device");
      t.pass();
      return;
    }
    if (!hasTools(t, "exfatprogs exfat-fuse fuse3", "mkfs.exfat", "mount.exfat-fuse")) return;
    const folder = scratchFolder(t);
    const path = sparseFile(folder, "exfat.img", 8 << 20);
    run("mkfs.exfat", ["-c", "4096", path]);
    const bytes = readFileSync(path);
    const writer = new ExfatWriter(bytes);
    const withVendorEntries = (name: string, count: number) => {
      const set = writer.file({ name, content: noise(100), isContiguous: true });
      const longer = Buffer.concat([set, Buffer.alloc(count * 32)]);
      for (let index = 0; index < count; index++) longer[set.length + index * 32] = 0xe0;
      longer[1] += count;
      return withChecksum(longer);
    };
    writer.finish([withVendorEntries("short", 1), withVendorEntries("l".repeat(255), 2), withVendorEntries("last", 0)]);
    writeFileSync(path, bytes);
    const mounted = join(folder, "mounted");
    mkdirSync(mounted);
    const device = loopOver(t, path);
    if (device === undefined) return void t.pass(t.log("skipped: no loop device can be had") as undefined);
    run("mount.exfat-fuse", ["-o", "ro", device, mounted]);
    let expected: Map<string, string>;
    try {
      expected = contentsOf(mounted);
    } finally {
      run("umount", [mounted]);
      releaseLoop(device, path);
    }
    t.is(expected.size, 3);
    const source = FileSource.open(path);
    t.teardown(() => source.close());
    const { files, errors } = walk(openRecognised(t, exfat, source));
    t.deepEqual([...errors], []);
    const ours = [...files].map(([name, { attributes, hash }]): [string, string] => [
      name,
      `${attributes.size} ${hash}`,
    ]);
    t.deepEqual(new Map(ours.sort()), new Map([...expected].sort()));
  },
);

for (const driver of drivers)
  serialFor(people[0])(
    `all of these filesystems are shown by a mount as exfat-fuse shows them (${driver})`,
    async (t) => {
      await trees.compare(t, new Workspace(t, people[0]!, driver));
    },
  );
