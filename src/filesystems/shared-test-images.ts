/**
 * Tests only: walks a FileSystem, and compares what it shows with the listings that independent readers made of the
 * shared images (`../shared/images` beside the repository; its README tells how INDEX.tsv and the manifests are read).
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { ExecutionContext } from "ava";
import { type ByteSource, Slice } from "../bytes/byte-source.js";
import { FileSource } from "../bytes/file.js";
import { LocalChunkCache } from "../bytes/local-cache.js";
import { ImageError } from "../errors.js";
import type { Format, Surroundings } from "../format.js";
import type { Attributes, FileId, FileSystem } from "./filesystem.js";

/** The folder of package.json. */
export const repository = (() => {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json"))) folder = dirname(folder);
  return folder;
})();

export const sharedFolder = join(repository, "..", "shared", "images");

/** What a filesystem may use of the world, for tests: an empty cache and a made-up path. */
export const testSurroundings = (path = "/test/image", cacheBytes = 16 << 20): Surroundings => ({
  path,
  cache: new LocalChunkCache(cacheBytes),
  companion: () => {
    throw new Error("a filesystem has no companions");
  },
});

/** A row of INDEX.tsv, by the names of its columns. */
export interface SharedImage {
  readonly file: string;
  readonly class: string;
  readonly container: string;
  readonly partition: string;
  readonly fs: string;
  readonly rawSize: number;
  readonly blkid: string;
  readonly columns: Readonly<Record<string, string>>;
  /** `volume` is `whole` or `p1`, `p2` ...; `reader` for example `tsk` or `kernel`. */
  readonly manifests: readonly { readonly volume: string; readonly reader: string; readonly path: string }[];
}

/** The images that `choose` takes and that unpack to at most 1 GiB; none, with the reason logged, where they're absent. */
export function sharedImages(t: ExecutionContext, choose: (image: SharedImage) => boolean): SharedImage[] {
  if (!existsSync(join(sharedFolder, "INDEX.tsv"))) {
    t.log(`skipped: there are no shared images in ${sharedFolder}`);
    t.pass();
    return [];
  }
  const [heads, ...rows] = readFileSync(join(sharedFolder, "INDEX.tsv"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => line.split("\t"));
  const images = rows.map((cells): SharedImage => {
    const columns = Object.fromEntries(heads!.map((head, index) => [head, cells[index] ?? ""]));
    const manifests = (columns.manifests ?? "").split(";").filter((path) => path !== "");
    return {
      file: columns.file!,
      class: columns.class!,
      container: columns.container!,
      partition: columns.partition!,
      fs: columns.fs!,
      rawSize: Number(columns.raw_size),
      blkid: columns.blkid!,
      columns,
      manifests: manifests.map((path) => {
        const [, volume, reader] = /\.(whole|p\d+)\.([^.]+)\.[^.]+$/.exec(path) ?? [];
        return { volume: volume ?? "", reader: reader ?? "", path: join(sharedFolder, path) };
      }),
    };
  });
  const chosen = images.filter((image) => choose(image));
  for (const image of chosen.filter(({ rawSize }) => rawSize > 2 ** 30))
    t.log(`skipped: ${image.file} unpacks to ${image.rawSize} bytes`);
  return chosen.filter(({ rawSize }) => rawSize <= 2 ** 30);
}

/** Unpacks a raw image (sparsely, to a folder that goes away with the test) and opens it. */
export function openSharedImage(t: ExecutionContext, image: SharedImage): FileSource {
  let path = join(sharedFolder, image.file);
  if (image.columns.pack === "zst") {
    const folder = mkdtempSync(join(tmpdir(), "spindle-shared-"));
    t.teardown(() => rmSync(folder, { recursive: true }));
    const unpacked = join(folder, basename(image.file, ".zst"));
    execFileSync("zstd", ["-d", "-q", "--long=27", "--sparse", path, "-o", unpacked]);
    path = unpacked;
  }
  const source = FileSource.open(path, image.file);
  t.teardown(() => source.close());
  return source;
}

/** Where a partition lies, in bytes, as *.parts.json tells it. */
export function sharedPart(image: SharedImage, volume: string): { readonly start: number; readonly size: number } {
  const path = join(sharedFolder, `${image.file.replace(/\.zst$/, "")}.parts.json`);
  const parts = JSON.parse(readFileSync(path, "utf8")) as { n: number; start: number; size: number }[];
  const part = parts.find(({ n }) => `p${n}` === volume);
  if (!part) throw new Error(`${path} has no ${volume}`);
  return part;
}

/** The volume that a manifest's name means: `whole`, or a partition. */
export function sharedVolume(image: SharedImage, source: ByteSource, volume: string): ByteSource {
  if (volume === "whole") return source;
  const part = sharedPart(image, volume);
  return new Slice(`${image.file} > ${volume}`, source, part.start, part.size);
}

/** A file as a walk found it. */
export interface Walked {
  readonly id: FileId;
  readonly attributes: Attributes;
  /** SHA-256 of a file's content in hex; undefined for what isn't a file, or is larger than the walk's limit. */
  readonly hash?: string;
  readonly link?: string;
  readonly xattrs: ReadonlyMap<string, Uint8Array>;
}

export interface Walk {
  /** By path: `/folder/name`; bytes that aren't UTF-8 are written `\xNN`. The root is not among them. */
  readonly files: Map<string, Walked>;
  /** What couldn't be read: the ImageError's sentence, by path. */
  readonly errors: Map<string, string>;
  /** Whether a limit ended the walk. */
  cut: boolean;
}

export interface WalkLimits {
  readonly entries?: number;
  /** A larger file isn't read. */
  readonly fileBytes?: number;
  /** Bytes of all files together that are read before the walk ends. */
  readonly totalBytes?: number;
  readonly depth?: number;
  /** A directory's own note of an entry's kind may be wrong: in a damaged filesystem that keeps it twice. */
  readonly kindsMayDiffer?: boolean;
}

/**
 * Lists every directory once, and reads every file, link and attribute. ImageErrors are noted and the walk goes on; any
 * other error is a bug and thrown. Every name that is listed is looked up too, and has to be found.
 */
export function walk(fileSystem: FileSystem, limits: WalkLimits = {}): Walk {
  const { entries = 1e6, fileBytes = 200e6, totalBytes = 4e9, depth = 200 } = limits;
  const result: Walk = { files: new Map(), errors: new Map(), cut: false };
  const seen = new Set<FileId>([fileSystem.root]);
  let listed = 0;
  let read = 0;

  const guarded = <T>(path: string, act: () => T): T | undefined => {
    try {
      return act();
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      result.errors.set(path, error.message);
      return undefined;
    }
  };
  const visit = (path: string, id: FileId, kind: Attributes["kind"], level: number): void => {
    guarded(path, () => {
      const file = lookAt(fileSystem, id);
      const { attributes } = file;
      if (attributes.kind !== kind && !limits.kindsMayDiffer)
        throw new Error(`${path} is listed as ${kind} and is a ${attributes.kind}`);
      const wanted = attributes.kind === "file" && attributes.size <= fileBytes && read + attributes.size <= totalBytes;
      if (attributes.kind === "file" && !wanted) result.cut ||= attributes.size <= fileBytes;
      result.files.set(path, file);
      if (!wanted) return;
      read += attributes.size;
      result.files.set(path, { ...file, hash: hashOf(fileSystem, id, attributes.size) });
    });
    if (kind !== "directory" || seen.has(id)) return;
    seen.add(id);
    if (level >= depth) result.cut = true;
    else list(path, id, level);
  };
  const list = (path: string, directory: FileId, level: number): void => {
    guarded(path || "/", () => {
      for (const entry of fileSystem.list(directory)) {
        if (++listed > entries) {
          result.cut = true;
          return;
        }
        const child = `${path}/${textOf(entry.name)}`;
        if (fileSystem.lookup(directory, entry.name) === undefined)
          throw new Error(`${child} is listed, but not found`);
        visit(child, entry.file, entry.kind, level + 1);
      }
    });
  };
  list("", fileSystem.root, 0);
  return result;
}

/** All of a file but its content. */
export function lookAt(fileSystem: FileSystem, id: FileId): Walked {
  const attributes = fileSystem.attributes(id);
  const xattrs = fileSystem.extendedAttributes?.(id) ?? new Map<string, Uint8Array>();
  const link = attributes.kind === "symlink" ? textOf(fileSystem.readLink(id)) : undefined;
  return { id, attributes, link, xattrs };
}

const buffer = Buffer.allocUnsafe(1 << 18);

/** SHA-256 of a file, which has to end where its size says. */
export function hashOf(fileSystem: FileSystem, id: FileId, size: number): string {
  const hash = createHash("sha256");
  for (let position = 0; position < size; ) {
    const count = fileSystem.read(id, position, buffer);
    if (count === 0) throw new Error(`file ${id} ends at byte ${position} of ${size}`);
    hash.update(buffer.subarray(0, count));
    position += count;
  }
  if (fileSystem.read(id, size, buffer) !== 0) throw new Error(`file ${id} goes on after its size ${size}`);
  return hash.digest("hex");
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function textOf(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch {
    const hex = (byte: number) => (byte < 0x80 ? String.fromCharCode(byte) : `\\x${byte.toString(16)}`);
    return Array.from(bytes, hex).join("");
  }
}

/** A line of a manifest. Fields that its reader doesn't know are undefined. */
export interface ManifestRow {
  readonly path: string;
  /** f, d, l, b, c, p, s as find has it, v for sleuthkit's volume label. */
  readonly type: string;
  readonly mode: number;
  readonly owner: number;
  readonly group: number;
  readonly links: number;
  readonly size: number | undefined;
  /** Seconds and nanoseconds, as they are written. */
  readonly modified: string;
  /** SHA-256 in hex, `->target`, `major:minor`, `-` or SKIPPED-TOO-BIG. */
  readonly content: string;
  readonly xattrs: string;
}

export function readManifest(path: string): ManifestRow[] {
  const lines = readFileSync(path, "utf8").trimEnd().split("\n");
  return lines
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => {
      const [name, type, mode, owner, group, links, size, modified, content, xattrs] = line.split("\t");
      return {
        path: name!,
        type: type!,
        mode: Number.parseInt(mode!, 8),
        owner: Number(owner),
        group: Number(group),
        links: Number(links),
        size: size === "-" ? undefined : Number(size),
        modified: modified!,
        content: content ?? "-",
        xattrs: xattrs ?? "-",
      };
    });
}

/** A listing by bsdtar: `path key=value …`, with the escapes of vis(3). */
export function readMtree(path: string): ManifestRow[] {
  const plainPath = (text: string) =>
    Buffer.from(
      text.replace(/\\(\d{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8))),
      "latin1",
    ).toString();
  const lines = readFileSync(path, "utf8").replace(/\\\n/g, "").trimEnd().split("\n");
  return lines
    .filter((line) => line.startsWith("./"))
    .map((line) => {
      const [name, ...pairs] = line.split(/ +/);
      const keys = Object.fromEntries(pairs.map((pair) => pair.split(/=(.*)/s).slice(0, 2)));
      const types: Record<string, string> = { file: "f", dir: "d", link: "l", char: "c", block: "b", fifo: "p" };
      const type = types[keys.type]!;
      return {
        path: plainPath(name!.slice(1)),
        type,
        mode: Number.parseInt(keys.mode, 8),
        owner: Number(keys.uid),
        group: Number(keys.gid),
        links: Number(keys.nlink ?? 1),
        size: type === "f" ? Number(keys.size) : undefined,
        modified: keys.time,
        content: keys.link === undefined ? (keys.sha256digest ?? "-") : `->${plainPath(keys.link)}`,
        xattrs: "-",
      };
    });
}

/** Kinds as manifests have them. */
export const letters: Record<Attributes["kind"], string> = {
  file: "f",
  directory: "d",
  symlink: "l",
  character: "c",
  block: "b",
  fifo: "p",
  socket: "s",
};

export interface Comparison {
  readonly reader: string;
  /** Rows to leave out, with the reason in a comment at the caller: another reader's own inventions. */
  readonly skip?: (row: ManifestRow) => boolean;
  /** Whether modes and owners are the filesystem's own (default: of the readers that keep them, not on FAT and NTFS). */
  readonly owners?: boolean;
  readonly links?: boolean;
  readonly xattrs?: boolean;
  /** Compares times to the second only (default: of 7zz and grub, whose listings cut them). */
  readonly seconds?: boolean;
  /** Whether times are compared at all (default true). */
  readonly times?: boolean;
}

/** What differs between a walk and a manifest: sentences, none when they agree. Both ways: nothing missing, nothing more. */
export function compareManifest(walked: Walk, rows: readonly ManifestRow[], how: Comparison): string[] {
  const differences: string[] = [];
  const rest = new Map(walked.files);
  const cutTimes = how.seconds ?? (how.reader === "7zz" || how.reader === "grub");
  const own = how.owners ?? (how.reader === "kernel" || how.reader === "fsapfsmount");
  for (const row of rows) {
    if (how.skip?.(row)) continue;
    const found = rest.get(row.path);
    rest.delete(row.path);
    const differ = (what: string, ours: unknown, theirs: unknown) => {
      if (ours !== theirs) differences.push(`${row.path}: ${what} is ${ours}, ${how.reader} has ${theirs}`);
    };
    if (!found) {
      differences.push(`${row.path}: missing (${walked.errors.get(row.path) ?? "not listed"})`);
      continue;
    }
    const { attributes } = found;
    differ("type", letters[attributes.kind], row.type);
    if (row.size !== undefined) differ("size", attributes.size, row.size);
    if (own) {
      differ("mode", attributes.mode.toString(8), row.mode.toString(8));
      differ("owner", attributes.owner, row.owner);
      differ("group", attributes.group, row.group);
    }
    if (how.links ?? how.reader === "kernel") differ("links", attributes.links, row.links);
    if (how.times ?? true) {
      const { seconds, nanoseconds } = attributes.modified;
      const [theirSeconds, theirNanoseconds] = row.modified.split(".");
      if (cutTimes) differ("time", String(seconds), theirSeconds);
      else
        differ(
          "time",
          `${seconds}.${String(nanoseconds).padStart(9, "0")}`,
          `${theirSeconds}.${(theirNanoseconds ?? "").padEnd(9, "0")}`,
        );
    }
    if (row.content.startsWith("->")) {
      // 7zz writes absolute targets anew.
      if (!(how.reader === "7zz" && row.content.startsWith("->/"))) differ("target", `->${found.link}`, row.content);
    } else if (/^\d+:\d+$/.test(row.content))
      differ("device", `${attributes.device?.major}:${attributes.device?.minor}`, row.content);
    else if (/^[0-9a-f]{64}$/.test(row.content)) differ("content", found.hash, row.content);
    if (how.xattrs ?? how.reader === "kernel") differ("xattrs", xattrText(found.xattrs), xattrText(row.xattrs));
  }
  for (const path of rest.keys()) differences.push(`${path}: ${how.reader} doesn't have it`);
  for (const [path, message] of walked.errors) differences.push(`${path}: ${message}`);
  return differences;
}

/** `name=hex` in the order of names, whichever order they came in. */
export function xattrText(xattrs: ReadonlyMap<string, Uint8Array> | string): string {
  const pairs =
    typeof xattrs === "string"
      ? xattrs.split(/[;,]/)
      : [...xattrs].map(([name, value]) => `${name}=${Buffer.from(value).toString("hex")}`);
  return pairs
    .filter((pair) => pair !== "-" && pair !== "")
    .sort()
    .join(";");
}

/** Opens a volume with `format`, which has to recognise it. */
export function openRecognised(t: ExecutionContext, format: Format<FileSystem>, volume: ByteSource): FileSystem {
  t.true(format.recognises(volume), `${volume.name} is recognised as ${format.name}`);
  return format.open(volume, testSurroundings(volume.name));
}
