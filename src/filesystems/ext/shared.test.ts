import { readlinkSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { FileSource } from "../../bytes/file.js";
import { ImageError } from "../../errors.js";
import type { FileSystem } from "../filesystem.js";
import { hasTools, run, scratchFolder } from "../image-test-tools.js";
import {
  compareManifest,
  openRecognised,
  openSharedImage,
  readManifest,
  type SharedImage,
  sharedImages,
  sharedVolume,
  testSurroundings,
  type Walk,
  walk,
} from "../shared-test-images.js";
import { ext } from "./ext.js";

const isExt = (image: SharedImage) => /\bext[234]?\b/.test(image.fs) && !image.fs.includes("journal");
const isRaw = (image: SharedImage) => image.container === "raw" || image.container === "";

test("the shared ext images list and hash as the kernel, sleuthkit and GRUB say", (t) => {
  let compared = 0;
  for (const image of sharedImages(t, (image) => isExt(image) && image.class === "good" && isRaw(image))) {
    const source = openSharedImage(t, image);
    for (const { volume, reader, path } of image.manifests) {
      const part = sharedVolume(image, source, volume);
      if (!ext.recognises(part)) continue;
      const fileSystem = openRecognised(t, ext, part);
      const differences = compareManifest(walk(fileSystem), readManifest(path), {
        reader,
        // What sleuthkit makes up, and lists for itself.
        skip: (row) => row.path.startsWith("/$OrphanFiles"),
        owners: reader === "kernel" || reader === "tsk",
        // Its listing has no fractions.
        seconds: reader !== "kernel",
      });
      t.deepEqual(differences, [], `${image.file} ${volume} by ${reader}`);
      compared++;
    }
  }
  t.log(`${compared} listings compared`);
});

/** What became of an image: bounded, and never anything but an ImageError. */
function outcome(open: () => FileSystem): string {
  try {
    const fileSystem = open();
    fileSystem.statistics;
    const { files, errors } = walk(fileSystem, {
      entries: 20_000,
      fileBytes: 20e6,
      totalBytes: 100e6,
      kindsMayDiffer: true,
    });
    return `${files.size} files, ${errors.size} errors`;
  } catch (error) {
    if (error instanceof ImageError) return error.message;
    throw error;
  }
}

test("images with damage of every sort are refused or read in part, in bounded time and memory", (t) => {
  const seen: string[] = [];
  for (const image of sharedImages(t, (image) => isExt(image) && image.class !== "good" && isRaw(image))) {
    const source = openSharedImage(t, image);
    if (!ext.recognises(source)) {
      seen.push(`${image.file}: not recognised`);
      continue;
    }
    const started = performance.now();
    t.notThrows(() => seen.push(`${image.file}: ${outcome(() => ext.open(source, testSurroundings()))}`), image.file);
    const took = performance.now() - started;
    if (took > 2000) seen.push(`${image.file}: took ${took.toFixed()} ms`);
  }
  t.log(seen.join("\n"));
});

test("the shared images with a journal to replay read as after e2fsck's replay", (t) => {
  if (!hasTools(t, "e2fsprogs", "e2fsck")) return;
  const replays = (image: SharedImage) => /\/j_(recover|corrupt)|f_jnl_|needs-recovery/.test(image.file);
  for (const image of sharedImages(t, (image) => isExt(image) && isRaw(image) && replays(image))) {
    const source = openSharedImage(t, image);
    if (!ext.recognises(source)) continue;
    const result = compareWithReplay(t, source);
    t.log(`${image.file}: ${result}`);
  }
});

/** Compares our reading of `source` with that of a copy whose journal e2fsck has replayed; tells what was compared. */
function compareWithReplay(t: ExecutionContext, source: FileSource): string {
  let ours: FileSystem;
  try {
    ours = ext.open(source, testSurroundings());
  } catch (error) {
    if (error instanceof ImageError) return `refused: ${error.message}`;
    throw error;
  }
  const copy = join(scratchFolder(t), "replayed");
  run("cp", ["--sparse=always", readlinkSync(`/proc/self/fd/${source.fd}`), copy]);
  try {
    run("e2fsck", ["-fy", "-E", "journal_only", copy]);
  } catch {
    // Its exit code tells that it changed something, or that something is left to do.
  }
  const replayed = FileSource.open(copy, source.name);
  t.teardown(() => replayed.close());
  const theirs = ext.open(replayed, testSurroundings());
  const limits = { kindsMayDiffer: true };
  const ourWalk = walk(ours, limits);
  // The order of names in a directory may be another: e2fsck puts those of fast commits where there is room.
  const inOrder = ({ files }: Walk) => [...files].sort(([one], [other]) => (one < other ? -1 : 1));
  t.deepEqual(inOrder(ourWalk), inOrder(walk(theirs, limits)), source.name);
  return `${ourWalk.files.size} files; ${ours.warnings?.join(" ")}; after e2fsck: ${theirs.warnings?.join(" ")}`;
}
