/**
 * The shared images, through everything that a command goes through (container, parents, partition table, filesystem):
 * each is as independent readers list it, in every row and column. What a reader makes up or leaves out is counted, with
 * the reason.
 */
import { createHash } from "node:crypto";
import test, { type ExecutionContext } from "ava";
import { readExactly } from "./bytes/byte-source.js";
import { ImageError } from "./errors.js";
import type { Attributes, FileId, FileSystem } from "./filesystems/filesystem.js";
import {
  hashOf,
  letters,
  lookAt,
  type ManifestRow,
  readManifest,
  readMtree,
  type SharedImage,
  sharedImages,
  sharedPart,
  type Walk,
  type Walked,
  walk,
  xattrText,
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

test("every shared image of a filesystem that is read is in every row and column as INDEX.tsv's readers list it", (t) => {
  let listings = 0;
  let files = 0;
  let images = 0;
  const leftOut = new Map<string, number>();
  for (const { file } of sharedImages(t, (image) => isOurs(image) && isNoise(image) && image.manifests.length > 0))
    leftOut.set(`${file}, in which there is a boot sector and else noise`, 1);
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
      const listing = new Listing(image, opened.tree, walk(opened.tree), reader.replace("-udf", ""), leftOut);
      listing.compare(rows);
      opened.close();
      t.deepEqual(listing.differences, [], `${image.file} ${volume} by ${reader}`);
      compared++;
      files += rows.length;
    }
    listings += compared;
    if (compared > 0) images++;
  }
  t.log(`${images} images, ${listings} listings, ${files} files`);
  t.log(["not compared:", ...[...leftOut].sort().map(([what, count]) => `${count} × ${what}`)].join("\n  "));
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

/** The columns of a manifest, as its head line has them. */
type Column = "type" | "mode" | "owner" | "group" | "links" | "size" | "time" | "content" | "xattrs";

/** What a reader makes up or cuts off, by the reader and the filesystem it reads: which columns, and why. */
const madeUp: readonly (readonly [of: RegExp, columns: readonly Column[], why: string])[] = [
  [/^(7zz|grub|mtree|tsk|squashfuse) /, ["xattrs"], "it lists none"],
  [/^7zz /, ["mode", "owner", "group", "links"], "7-Zip's, as it extracts"],
  [/^grub /, ["mode", "owner", "group", "links"], "GRUB knows none"],
  [/^ntfs-3g /, ["mode", "owner", "group"], "its mount options'"],
  [/^tsk (ntfs|fat|exfat)/, ["mode", "owner", "group"], "sleuthkit's own rules for what isn't Unix"],
  [/^tsk iso9660/, ["mode", "owner", "group", "links", "time"], "sleuthkit leaves out Rock Ridge's, and times"],
  [/^mtree iso9660 (Joliet|plain)/, ["mode"], "bsdtar's defaults, where Linux has others"],
  [/^mtree iso9660/, ["links"], "bsdtar counts none of folders"],
  [/^7zz iso9660 Rock Ridge/, ["time"], "7-Zip's are those of the plain record, not Rock Ridge's"],
  [/^7zz iso9660 Rock Ridge l/, ["type", "size", "content"], "7-Zip shows a link as an empty file"],
  [/^(7zz|mtree) iso9660 plain d/, ["time"], "from the record in its parent; Linux takes the folder's own"],
  [/^(7zz|ntfs-3g) ntfs l/, ["size", "content"], "absolute targets weren't recorded"],
  [/^tsk ntfs l/, ["type", "size", "content"], "sleuthkit shows a link as an empty file"],
];

/** What a reader lists beside the files: why it isn't compared. */
function invention({ path, type }: ManifestRow, filesystem: string): string | undefined {
  if (type === "v") return "the label, shown as a file";
  if (path.startsWith("/$OrphanFiles")) return "sleuthkit's own folder";
  if (/^\/\[(BOOT|SYSTEM)\]$/.test(path)) return "7-Zip's own folder";
  if (path.startsWith("/[BOOT]")) return "boot images, which info lists";
  if (filesystem === "exfat" && path.startsWith("/$")) return "sleuthkit's names for what has none";
  return undefined;
}

/** The system's own files of NTFS, and streams: they aren't listed, but found by name. */
function unlisted(tree: FileSystem, path: string): Walked | undefined {
  const [, names = "", stream] = /^(?:\/\[SYSTEM\])?\/([^:]*)(?::(.*))?$/.exec(path)!;
  let id: FileId | undefined = tree.root;
  for (const name of names.split("/")) id = id === undefined ? undefined : tree.lookup(id, Buffer.from(name));
  if (id === undefined) return undefined;
  const file = lookAt(tree, id);
  const { attributes } = file;
  if (stream === undefined)
    return attributes.kind === "file" ? { ...file, hash: hashOf(tree, id, attributes.size) } : file;
  const source = tree.stream!(id, Buffer.from(stream));
  if (!source) return undefined;
  const hash = createHash("sha256")
    .update(readExactly(source, 0, source.size, path))
    .digest("hex");
  return { ...file, attributes: { ...attributes, size: source.size }, hash };
}

/** A reader's listing against ours: sentences on what differs, and how much of what kind isn't compared, and why. */
class Listing {
  readonly differences: string[] = [];
  private readonly filesystem: string;

  constructor(
    private readonly image: SharedImage,
    private readonly tree: FileSystem,
    private readonly walked: Walk,
    private readonly reader: string,
    private readonly leftOut: Map<string, number>,
  ) {
    this.filesystem = `${tree.type.replace(/^(ext|fat).*/, "$1")} ${tree.facts?.tree ?? ""}`.trim();
  }

  compare(rows: readonly ManifestRow[]): void {
    const rest = new Set(this.walked.files.keys());
    // 7-Zip and sleuthkit show Joliet's names, cut names and the folder of moved ones: a file is then told by its content.
    const byContent = this.tree.facts?.tree === "Rock Ridge" && ["7zz", "tsk"].includes(this.reader);
    for (const row of rows) {
      const found = this.find(row);
      if (found) {
        rest.delete(found[0]);
        this.compareRow(row, found[1]);
      } else {
        const why = invention(row, this.tree.type);
        if (why !== undefined) this.leave("rows", why);
        else if (byContent) this.findContent(row);
        else this.differences.push(`${row.path}: missing (${this.walked.errors.get(row.path) ?? "not listed"})`);
      }
    }
    if (!byContent) for (const path of rest) this.differences.push(`${path}: ${this.reader} doesn't have it`);
    for (const [path, message] of this.walked.errors) this.differences.push(`${path}: ${message}`);
  }

  private find(row: ManifestRow): readonly [path: string, file: Walked] | undefined {
    // Plain names are shown in lower case, as Linux has them.
    const path = this.tree.facts?.tree === "plain" ? row.path.toLowerCase() : row.path;
    const listed = this.walked.files.get(path);
    if (listed) return [path, listed];
    const file = this.tree.type === "ntfs" && !invention(row, "ntfs") ? unlisted(this.tree, row.path) : undefined;
    return file && [path, file];
  }

  private findContent(row: ManifestRow): void {
    if (!/^[0-9a-f]{64}$/.test(row.content) || row.size === 0) {
      this.leave("rows", "of folders, links and empty files that it shows by Joliet's or cut names");
      return;
    }
    this.leave("all columns but the content", "it shows Joliet's or cut names");
    if (![...this.walked.files.values()].some(({ hash }) => hash === row.content))
      this.differences.push(`${row.path}: nothing has its content`);
  }

  private compareRow(row: ManifestRow, file: Walked): void {
    const { attributes } = file;
    const { seconds, nanoseconds } = attributes.modified;
    const [theirSeconds, fraction = ""] = row.modified.split(".");
    const whole = this.tells("fraction of times", row, file);
    const ours: Record<Column, unknown> = {
      type: letters[attributes.kind],
      mode: attributes.mode.toString(8),
      owner: attributes.owner,
      group: attributes.group,
      links: attributes.links,
      size: attributes.size,
      time: `${seconds}.${whole ? String(nanoseconds).padStart(9, "0") : ""}`,
      content: file.hash ?? (file.link === undefined ? deviceText(attributes) : `->${file.link}`),
      xattrs: xattrText(this.reader === "ntfs-3g" ? userOnly(file.xattrs) : file.xattrs),
    };
    const theirs: Record<Column, unknown> = {
      ...row,
      mode: row.mode.toString(8),
      size: row.size ?? attributes.size,
      time: `${theirSeconds}.${whole ? fraction.padEnd(9, "0") : ""}`,
      xattrs: xattrText(row.xattrs),
    };
    for (const column of Object.keys(ours) as Column[])
      if (this.tells(column, row, file) && ours[column] !== theirs[column])
        this.differences.push(`${row.path}: ${column} is ${ours[column]}, ${this.reader} has ${theirs[column]}`);
  }

  /** Whether the reader knows; if it doesn't, that is counted with the reason. */
  private tells(column: Column | "fraction of times", row: ManifestRow, file: Walked): boolean {
    const why = this.reasonAgainst(column, row, file);
    if (why !== undefined) this.leave(column, why);
    return why === undefined;
  }

  private reasonAgainst(column: Column | "fraction of times", row: ManifestRow, file: Walked): string | undefined {
    const { reader, filesystem } = this;
    if (column === "fraction of times")
      return /^(7zz (?!ntfs)|grub|mtree|tsk (ext|iso9660|fat|exfat))/.test(`${reader} ${filesystem}`)
        ? "it cuts them off"
        : undefined;
    const key = `${reader} ${filesystem} ${letters[file.attributes.kind]}`;
    const known = madeUp.find(([of, columns]) => of.test(key) && columns.includes(column));
    if (known) return known[2];
    if (column === "time" && this.tree.type === "exfat") return "it leaves out the zone";
    // bsdtar lists the second name of a file as an empty link to the first.
    const isSecond = reader === "mtree" && row.size === 0 && file.attributes.links > 1;
    if (isSecond && (column === "size" || column === "content")) return "bsdtar's second name of a file";
    if (key === "7zz iso9660 Rock Ridge d" && row.type === "f") return "7-Zip shows a moved folder as an empty file";
    if (reader === "tsk" && this.image.file.includes("multi_extent") && (column === "size" || column === "content"))
      return "sleuthkit shows each extent as a file";
    if (column === "xattrs" && reader === "ntfs-3g") {
      if (file.attributes.inode < 16) return "it lists none of the system's first files";
      const streams = this.tree.streams!(file.id).map((name) => this.tree.stream!(file.id, name)!);
      if (streams.some(({ size }) => size > 65536)) return "the listing broke off where a stream is too long for one";
    }
    if (column === "content" && row.content === "SKIPPED-TOO-BIG") return "too big for the manifest";
    if (column === "content" && row.content.startsWith("ERR:")) return "the reader couldn't read it";
    return undefined;
  }

  private leave(what: string, why: string): void {
    const line = `${this.reader} on ${this.filesystem}: ${what} (${why})`;
    this.leftOut.set(line, (this.leftOut.get(line) ?? 0) + 1);
  }
}

const deviceText = ({ device }: Attributes) => (device ? `${device.major}:${device.minor}` : "-");
const userOnly = (xattrs: Walked["xattrs"]) => new Map([...xattrs].filter(([name]) => name.startsWith("user.")));

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
