/**
 * The shared images, through everything that a command goes through (container, parents, partition table, filesystem):
 * each lists and hashes as independent readers say. What else they tell of a file, owners and times, is compared by each
 * filesystem's own tests.
 */
import test, { type ExecutionContext } from "ava";
import { ImageError } from "./errors.js";
import {
  compareManifest,
  type ManifestRow,
  readManifest,
  readMtree,
  type SharedImage,
  sharedImages,
  sharedPart,
  type Walk,
  walk,
} from "./filesystems/shared-test-images.js";
import { sharedSecret, unpackShared } from "./images/shared-test-images.js";
import { type OpenedFiles, openFiles, openFound } from "./open.js";

/** Names of filesystems as INDEX.tsv has them. */
const ours = /\b(ext[234]?|vfat|fat(12|16|32)?|exfat|ntfs|iso9660|udf|squashfs(?!3))/;
/** What of those isn't one, or isn't all there. */
const others = /hfs|xfs|btrfs|erofs|squashfs3|journal/;

/** Of cryptsetup's own only the boot sector was written before they were closed: the folders in them are noise. */
const isNoise = ({ container, file }: SharedImage) => /luks/.test(container) && file.startsWith("cryptsetup/");

const isOurs = ({ fs }: SharedImage) => ours.test(fs) && !others.test(fs);

test("every shared image of a filesystem that is read lists and hashes as INDEX.tsv's readers say", (t) => {
  let listings = 0;
  let files = 0;
  let images = 0;
  for (const image of sharedImages(
    t,
    (image) => (isOurs(image) || /luks/.test(image.container)) && !isNoise(image) && image.manifests.length > 0,
  )) {
    const path = unpackShared(t, image.columns);
    let compared = 0;
    for (const { volume, reader, path: manifest } of image.manifests) {
      const opened = openedVolume(t, image, path, volume);
      if (!opened) continue;
      const rows = reader === "mtree" ? readMtree(manifest) : readManifest(manifest);
      const walked = walk(opened.tree);
      opened.close();
      t.deepEqual(differences(image, opened, walked, rows, reader), [], `${image.file} ${volume} by ${reader}`);
      compared++;
      files += rows.length;
    }
    listings += compared;
    if (compared > 0) images++;
  }
  t.log(`${images} images, ${listings} listings, ${files} files`);
});

/** Undefined, with the reason logged, for encryption that isn't read (yet). */
function openedVolume(t: ExecutionContext, image: SharedImage, path: string, volume: string): OpenedFiles | undefined {
  const spec = { path, password: sharedSecret(image.columns) };
  try {
    if (volume === "whole") return openFiles(spec);
    // By its place: of logical partitions, not everybody counts from 5 on.
    const { start } = sharedPart(image, volume);
    const found = openFound(spec);
    const name = found.found.find(({ volume }) => volume?.position === start)?.name;
    found.close();
    return openFiles({ ...spec, volume: name ?? volume });
  } catch (error) {
    if (!(error instanceof ImageError) || error.code !== "unsupported" || !/luks/.test(image.container)) throw error;
    t.log(`not read: ${image.file} ${volume}: ${error.message}`);
    return undefined;
  }
}

/** What a reader lists that isn't in the tree: its own inventions, and the system's files of NTFS. */
function isExtra({ path, type }: ManifestRow, filesystem: string): boolean {
  if (type === "v" || path.startsWith("/$OrphanFiles") || path.startsWith("/[BOOT]")) return true;
  if (filesystem === "exfat") return path.startsWith("/$");
  return filesystem === "ntfs" && (/^\/(\$|\[SYSTEM\])(?!RECYCLE)/.test(path) || path.includes(":"));
}

function differences(
  { file }: SharedImage,
  { tree }: OpenedFiles,
  walked: Walk,
  all: ManifestRow[],
  reader: string,
): string[] {
  const rows = all.filter((row) => !isExtra(row, tree.type));
  const found = (path: string) => walked.files.get(path);
  const how = { reader: reader.replace("-udf", ""), times: false, owners: false, links: false, xattrs: false };
  if (tree.type === "iso9660") {
    const shows = tree.facts!.tree;
    // sleuthkit and 7-Zip show the Joliet tree, the folder of moved directories, or names without their continuation; nor
    // does sleuthkit join the extents of a file.
    if (shows === "Rock Ridge" && (reader === "tsk" || reader === "7zz")) {
      if (reader === "tsk" && file.includes("multi_extent")) return [];
      const hashes = new Set([...walked.files.values()].map(({ hash }) => hash));
      const missing = rows.filter(
        ({ content, size }) => /^[0-9a-f]{64}$/.test(content) && size !== 0 && !hashes.has(content),
      );
      return [...missing.map(({ path }) => `${path}: nothing has its content`), ...walked.errors.values()];
    }
    const same = rows.map((row) => {
      // Plain names are shown in lower case, as Linux has them.
      const path = shows === "plain" ? row.path.toLowerCase() : row.path;
      // bsdtar lists the second name of a file as an empty link to the first.
      const again = reader === "mtree" && row.size === 0 && (found(path)?.attributes.links ?? 0) > 1;
      return again ? { ...row, path, size: undefined, content: "-" } : { ...row, path };
    });
    if (reader === "tsk" && file.includes("multi_extent")) return [];
    return compareManifest(walked, same, how);
  }
  // Links of NTFS: sleuthkit and 7-Zip show the folder that one is, ntfs-3g's mount point was cut off.
  const isLink = (path: string) => tree.type === "ntfs" && found(path)?.attributes.kind === "symlink";
  return compareManifest(walked, rows, { ...how, skip: ({ path }) => isLink(path) }).filter(
    (difference) => !isLink(difference.replace(/: \S+ doesn't have it$/, "")),
  );
}

test("every shared image that is damaged, odd or little more than a superblock is opened in part or refused in words", (t) => {
  const outcomes = { refused: 0, empty: 0, damaged: 0, whole: 0 };
  const chosen = sharedImages(t, (image) => isOurs(image) && image.manifests.length === 0);
  for (const image of chosen) {
    const path = unpackShared(t, image.columns);
    try {
      const opened = openFound({ path });
      const trees = opened.found.flatMap(({ tree }) => (tree ? [tree] : []));
      for (const tree of trees) {
        const limits = { entries: 20_000, fileBytes: 20e6, totalBytes: 60e6, kindsMayDiffer: true };
        const { errors } = walk(tree, limits);
        errors.size > 0 ? outcomes.damaged++ : outcomes.whole++;
      }
      if (trees.length === 0) outcomes[opened.found.some(({ problem }) => problem) ? "refused" : "empty"]++;
      opened.close();
    } catch (error) {
      if (!(error instanceof ImageError)) throw new Error(`${image.file}: ${error}`, { cause: error });
      outcomes.refused++;
    }
  }
  t.log(`${chosen.length} images: ${JSON.stringify(outcomes)}`);
  t.pass();
});
