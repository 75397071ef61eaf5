/**
 * Checks who imports whom in src/. Data flows bytes -> images -> layers -> volumes -> filesystems -> view -> fuse, and
 * an import follows an arrow of the tables below or fails here with its file and line. To add an arrow, add a row with
 * its reason; src/README.md has the same in a picture.
 *
 * Imports are found by their form, not by a compiler: `from "…"`, `import "…"`, `import("…")`, `require("…")`, and
 * `new URL("….js", import.meta.url)`, by which workers are started.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";
import { fileURLToPath } from "node:url";

/** `from` and `to` are folders or files of src/, without extension; a folder stands for all that is in it. */
interface Arrow {
  readonly from: string;
  readonly to: readonly string[];
  readonly reason: string;
}

/** Within a folder imports are free, except between formats. */
const arrows: readonly Arrow[] = [
  { from: "", to: ["errors", "settings", "version"], reason: "sentences and numbers are everyone's" },
  { from: "bytes", to: ["libc"], reason: "holes of a file are found with lseek" },
  { from: "format", to: ["bytes"], reason: "a format is recognised by its bytes and uses the chunk cache" },
  {
    from: "packed",
    to: ["bytes", "libc"],
    reason: "what is packed and its content are bytes; one process writes seek points",
  },
  { from: "packed", to: ["layers/layer"], reason: "the checks of a packed file are told as a layer's" },
  { from: "images", to: ["bytes", "format"], reason: "an image is made of bytes" },
  { from: "images", to: ["layers/layer"], reason: "an image becomes a Layer; how layers meet is not its business" },
  {
    from: "images/overlay",
    to: ["layers/overlay-memory"],
    reason: "its file is what layers/overlay.ts keeps, in blocks of the same size",
  },
  { from: "layers", to: ["bytes"], reason: "a disk is bytes" },
  { from: "encryption", to: ["bytes"], reason: "an encrypted volume is bytes, and so is what it hides" },
  { from: "volumes", to: ["bytes", "format"], reason: "volumes are found in the bytes of a disk" },
  { from: "filesystems", to: ["bytes", "format"], reason: "a filesystem is read from the bytes of a volume" },
  {
    from: "view",
    to: ["bytes", "layers/disk", "layers/overlay", "volumes/volume", "filesystems/filesystem"],
    reason: "a view joins what others opened: it knows their interfaces and none of their formats",
  },
  {
    from: "fuse",
    to: ["bytes", "filesystems/filesystem", "libc"],
    reason: "FUSE serves a FileSystem, whatever it is made of, and its threads share a chunk cache",
  },
  { from: "fuse", to: ["packed/waiting"], reason: "a server tells its starter what the opening waits for" },
  { from: "fuse/pass-log", to: ["packed/index"], reason: "and its log, how a compressed image is gone through" },
  {
    from: "fuse/request",
    to: ["open", "writable", "layers/overlay"],
    reason:
      "a server opens its image itself, in its own process, and flushes what it wrote; the drivers are given a tree",
  },
  { from: "fuse/attached", to: ["volumes/volume"], reason: "the kernel is told of partitions that it doesn't find" },
  {
    from: "chain",
    to: ["bytes", "format", "images", "layers", "packed", "open-files"],
    reason: "the assembly line's first half: a path becomes a disk",
  },
  {
    from: "open-files",
    to: ["bytes", "images", "libc", "packed"],
    reason: "files are opened, unpacked where they are compressed, and known for the images that they hold",
  },
  { from: "chain", to: ["unlocking"], reason: "a disk that is encrypted as a whole is opened with the password" },
  {
    from: "unlocking",
    to: ["bytes", "encryption", "layers"],
    reason: "what is encrypted is bytes, and so is what it hides, which is a layer of the disk",
  },
  { from: "chain", to: ["recorded-files"], reason: "which of the files that an image names are opened" },
  { from: "chain", to: ["split-files"], reason: "the parts of a split file are opened as one" },
  {
    from: "split-files",
    to: ["bytes", "images/image-format", "images/raw", "packed/index"],
    reason: "parts are bytes, unless each is an image or a compressed file by itself",
  },
  {
    from: "writable",
    to: ["chain", "unlocking", "bytes", "images/overlay", "layers", "libc"],
    reason: "the writable top of a chain: a file, and the disk that it makes of the layers",
  },
  {
    from: "open",
    to: [
      "chain",
      "unlocking",
      "writable",
      "bytes",
      "format",
      "layers",
      "packed/waiting",
      "volumes",
      "filesystems",
      "view",
    ],
    reason: "the assembly line is the one place that sees all stages",
  },
  {
    from: "imaging",
    to: ["chain", "bytes", "layers", "packed/waiting", "volumes", "libc"],
    reason: "imaging reads disks that chain.ts assembled, and records their partitions",
  },
  { from: "imaging", to: ["images/spin"], reason: "imaging writes our own container, and checks a base of that kind" },
  {
    from: "browsing",
    to: ["bytes", "filesystems/filesystem", "libc"],
    reason: "files are found in a tree and copied out of it, whatever it is made of",
  },
  {
    from: "commands",
    to: ["open", "chain", "imaging", "browsing", "fuse", "libc"],
    reason: "a command gives the work to one of these",
  },
  {
    from: "commands",
    to: ["bytes", "layers", "volumes/volume", "filesystems/filesystem"],
    reason: "a command tells people what was opened, by its interface",
  },
  { from: "cli", to: ["commands"], reason: "the command line picks a command" },
  {
    from: "mount-helper",
    to: ["cli", "commands"],
    reason: "what mount(8) says is put in the words of a command, for the command line",
  },
];

/** Files that only some may import, whatever the arrows say. */
const reserved: readonly { readonly file: string; readonly to: readonly string[]; readonly reason: string }[] = [
  { file: "images/spin/writer", to: ["imaging"], reason: "what reads images can't write one" },
  {
    file: "commands/index",
    to: ["cli", "mount-helper", "commands/completion"],
    reason: "a command does not know the others, but for the one that tells shells of them",
  },
];

/** A format may use another only where the specification of one contains the other. */
const kin: readonly Arrow[] = [
  {
    from: "volumes/gpt",
    to: ["volumes/mbr"],
    reason: "a GPT begins with an MBR, and a hybrid one describes partitions",
  },
  {
    from: "volumes/apm",
    to: ["volumes/mbr"],
    reason: "a hybrid disc has both in its first sector, and the MBR counts",
  },
];

/** Folders of formats: `index.ts` is the table, and every file or folder that it imports is a format. */
const formatFolders = ["images", "encryption", "volumes", "filesystems"];

/** Who may import what is not ours. A module that isn't here isn't used. */
const outside: readonly { readonly modules: readonly string[]; readonly from: readonly string[]; reason: string }[] = [
  {
    modules: ["node:path", "node:crypto", "node:zlib", "node:buffer", "node:util", "node:assert", "lru-cache"],
    from: [""],
    reason: "they compute, and reach nothing",
  },
  {
    modules: ["node:fs"],
    from: [
      ...["bytes", "packed", "fuse", "imaging", "browsing", "commands"],
      ...["chain", "open-files", "recorded-files", "writable", "version", "mount-helper"],
    ],
    reason: "a format reads the ByteSource it is given, and a view or a disk what is beneath it",
  },
  {
    modules: ["node:worker_threads", "node:timers", "node:events"],
    from: ["bytes", "packed", "fuse", "imaging", "commands"],
    reason: "a format works the same in every thread, and does not know of them",
  },
  {
    modules: ["node:child_process", "node:net", "node:stream", "node:readline"],
    from: ["fuse", "imaging", "commands"],
    reason: "what is read has no programs and no connections",
  },
  {
    modules: ["node:os", "node:process", "node:url", "node:perf_hooks"],
    from: ["libc", "bytes", "packed/cache-folder", "fuse", "imaging", "commands", "writable"],
    reason: "a format reads the same on every machine",
  },
  {
    modules: ["node:module"],
    from: ["libc", "bytes", "fuse", "imaging", "commands"],
    reason: "what is loaded only when it is needed",
  },
  {
    modules: ["koffi"],
    from: ["libc", "bytes/bzip2", "bytes/lzma", "bytes/inflate", "bytes/libdeflate", "bytes/libgcrypt"],
    reason: "calls of the C library are in one file, and those of other libraries in one each",
  },
  { modules: ["@node-rs/argon2"], from: ["bytes/argon2"], reason: "keys are made of passwords in one place" },
  { modules: ["@node-rs/xxhash"], from: ["bytes"], reason: "sums are made where bytes are" },
  { modules: ["fuse-native"], from: ["fuse"], reason: "the portable driver" },
  { modules: ["zstd-napi"], from: ["bytes", "images", "imaging"], reason: "chunks are packed and unpacked" },
  { modules: ["yargs"], from: ["cli", "commands"], reason: "only the command line reads arguments" },
  { modules: ["cli-progress"], from: ["commands/console"], reason: "only the terminal draws" },
];

export interface SourceFile {
  /** Path below src/ with slashes, for example `images/spin/reader.ts`. */
  readonly path: string;
  readonly text: string;
}

/** The forbidden imports among `files`, each as a line `src/FILE:LINE: FROM -> TO: why`. */
export function checkArrows(files: readonly SourceFile[]): string[] {
  const paths = new Set(files.map(({ path }) => withoutExtension(path)));
  const formats = formatsOf(files);
  const wrong: string[] = [];
  for (const file of files) {
    if (isTest(file.path)) continue;
    const from = withoutExtension(file.path);
    for (const { specifier, line } of importsOf(file.text)) {
      const found = specifier.startsWith(".")
        ? inside(from, withoutExtension(posix.join(posix.dirname(file.path), specifier)), paths, formats)
        : outsideWrong(from, specifier);
      if (found) wrong.push(`src/${file.path}:${line}: ${found}`);
    }
  }
  return wrong;
}

/** What is wrong with an import of one of our own files; undefined when nothing is. */
function inside(from: string, to: string, paths: ReadonlySet<string>, formats: readonly string[]): string | undefined {
  const arrow = `${from} -> ${to}`;
  if (to.startsWith("..")) return to === "../package.json" ? undefined : `${arrow}: leads out of src/`;
  if (isTest(`${to}.ts`)) return `${arrow}: a test's file is used by what is no test`;
  if (!paths.has(to)) return `${arrow}: there is no such file`;
  const guard = reserved.find(({ file }) => file === to);
  if (guard && !guard.to.some((place) => within(from, place)) && posix.dirname(from) !== posix.dirname(to))
    return `${arrow}: ${guard.reason}; only ${guard.to.join(" and ")} may`;
  const folder = to.split("/")[0]!;
  if (to.includes("/") && from.startsWith(`${folder}/`)) {
    const format = formats.find((candidate) => within(to, candidate));
    if (!format || within(from, format) || from === `${folder}/index` || allows(kin, from, to)) return undefined;
    return `${arrow}: a format does not import another format; what both need belongs in a file beside them`;
  }
  if (allows(arrows, from, to)) return undefined;
  return `${arrow}: no arrow allows it; see scripts/check-arrows.ts`;
}

function outsideWrong(from: string, specifier: string): string | undefined {
  const row = outside.find(({ modules }) => modules.some((name) => within(specifier, name)));
  const arrow = `${from} -> ${specifier}`;
  if (!row) return `${arrow}: not in the list of modules that are used; see scripts/check-arrows.ts`;
  if (row.from.some((place) => within(from, place))) return undefined;
  return `${arrow}: ${row.reason}; only ${row.from.join(", ")} may`;
}

const allows = (rows: readonly Arrow[], from: string, to: string) =>
  rows.some((row) => within(from, row.from) && row.to.some((place) => within(to, place)));

/** Whether a file is `place`, or in it; every file is in the place "". */
const within = (path: string, place: string) => place === "" || path === place || path.startsWith(`${place}/`);

const withoutExtension = (path: string) => path.replace(/\.[jt]s$/, "");

const isTest = (path: string) => /[.-]test[.-]/.test(posix.basename(path));

/** The formats that the tables name: `images/spin` for `./spin/reader.js`, `images/raw` for `./raw.js`. */
function formatsOf(files: readonly SourceFile[]): string[] {
  return formatFolders.flatMap((folder) => {
    const index = files.find(({ path }) => path === `${folder}/index.ts`);
    return importsOf(index?.text ?? "")
      .filter(({ typeOnly, specifier }) => !typeOnly && specifier.startsWith("./"))
      .map(({ specifier }) => `${folder}/${withoutExtension(specifier.slice(2)).split("/")[0]}`);
  });
}

interface Import {
  readonly specifier: string;
  readonly line: number;
  readonly typeOnly: boolean;
}

const importForms = [
  /^[ \t]*(?:import|export)\s+(type\s)?[\w\s{},*$]*?from\s*["']([^"'\n]+)["']/gm,
  /^[ \t]*import\s+()["']([^"'\n]+)["']/gm,
  /\b(typeof\s+)?import\(\s*["']([^"'\n]+)["']/g,
  /\brequire\(()\s*["']([^"'\n]+)["']/g,
  /\bnew URL\(()\s*["']([^"'\n]+\.js)["']\s*,\s*import\.meta\.url/g,
];

/** All imports of a file, in whatever form. */
function importsOf(text: string): Import[] {
  const code = withoutComments(text);
  return importForms.flatMap((form) =>
    [...code.matchAll(form)].map((match) => ({
      specifier: match[2]!,
      line: code.slice(0, match.index + match[0].lastIndexOf(match[2]!)).split("\n").length,
      typeOnly: Boolean(match[1]),
    })),
  );
}

/** Comments as spaces, so that lines stay where they are; strings, which may hold what looks like one, are kept. */
function withoutComments(text: string): string {
  const pattern = /"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`|\/\/[^\n]*|\/\*[\s\S]*?\*\//g;
  return text.replace(pattern, (found) => (found.startsWith("/") ? found.replace(/[^\n]/g, " ") : found));
}

/** All TypeScript files of the folder `src` of the repository. */
function sourceFiles(src: string): SourceFile[] {
  return readdirSync(src, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts"))
    .sort()
    .map((path) => ({ path: path.replaceAll("\\", "/"), text: readFileSync(join(src, path), "utf8") }));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  // Compiled, this file is dist/scripts/check-arrows.js.
  const files = sourceFiles(fileURLToPath(new URL("../../src", import.meta.url)));
  const wrong = checkArrows(files);
  for (const line of wrong) console.error(line);
  console.log(`${files.length} files of src/ checked, ${wrong.length} imports against the arrows`);
  process.exitCode = wrong.length > 0 ? 1 : 0;
}
