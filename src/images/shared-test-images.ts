/**
 * Tests only: images that other tools make, and those that they made (`../shared/images` beside the repository; its
 * README tells how INDEX.tsv is read), compared with what those tools read from them.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { ExecutionContext } from "ava";
import { type ByteSource, readFully } from "../bytes/byte-source.js";
import { FileSource } from "../bytes/file.js";
import { endToEnd } from "../bytes/joined.js";
import { LocalChunkCache } from "../bytes/local-cache.js";
import { MemorySource } from "../bytes/memory.js";
import { type OpenedLayers, openLayers } from "../chain.js";
import { ImageError } from "../errors.js";
import type { Format } from "../format.js";
import type { Disk } from "../layers/disk.js";
import type { Layer } from "../layers/layer.js";
import type { ImageFormat, ImageSurroundings } from "./image-format.js";
import { images } from "./index.js";

const repository = (() => {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json"))) folder = dirname(folder);
  return folder;
})();

const sharedFolder = join(repository, "..", "shared", "images");

/** Puts formats in front of the table of images, so that chain.ts finds them, where they aren't in it already. */
export function register(...formats: ImageFormat[]): void {
  const table = images as ImageFormat[];
  for (const format of formats) if (!table.includes(format)) table.unshift(format);
}

/** A row of INDEX.tsv by its columns' names. */
export type SharedRow = Readonly<Record<string, string>>;

export function sharedRows(): SharedRow[] {
  const index = join(sharedFolder, "INDEX.tsv");
  if (!existsSync(index)) return [];
  const [heads, ...rows] = readFileSync(index, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => line.split("\t"));
  return rows.map((cells) => Object.fromEntries(heads!.map((head, column) => [head, cells[column] ?? ""])));
}

/** The rows whose container begins with one of `families`; none, with the reason logged, where there are no images. */
export function sharedContainers(t: ExecutionContext, ...families: string[]): SharedRow[] {
  const rows = sharedRows();
  if (rows.length === 0) {
    t.log(`skipped: there are no shared images in ${sharedFolder}`);
    t.pass();
  }
  return rows.filter(({ container }) =>
    families.some(
      (family) =>
        container === family || (/^[- ]/.test(container!.slice(family.length)) && container!.startsWith(family)),
    ),
  );
}

/** What opens an encrypted volume, as its row tells: a password, or the key file beside it; undefined for what is none. */
export function sharedSecret({ file, secret, raw_reference_tool: tool }: SharedRow): Uint8Array | undefined {
  const keyFile = /kept as (\w+)/.exec(secret!)?.[1];
  if (keyFile !== undefined) return readFileSync(join(sharedFolder, dirname(file!), keyFile));
  const words = /\bpw=(\S+)/.exec(tool!)?.[1] ?? /(?:passphrase|password): (\S+)/.exec(secret!)?.[1];
  return words === undefined ? undefined : Buffer.from(words);
}

/** A folder that goes away with the test. */
export function temporaryFolder(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), "spindle-images-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/**
 * Unpacks an image, its further files and what its note names as parent into a folder; returns its path.
 *
 * @param also names of other files of its folder that it needs.
 */
export function unpackShared(t: ExecutionContext, row: SharedRow, also: readonly string[] = []): string {
  const folder = temporaryFolder(t);
  const parent = /parent (\S+\.\w+)/.exec(row.note ?? "")?.[1];
  const others = (row.more_files ?? "").split(";").filter((file) => file !== "");
  for (const name of parent ? [parent, ...also] : also) others.push(join(dirname(row.file!), name));
  for (const file of [row.file!, ...others]) {
    const stored = [file, `${file}.zst`].map((path) => join(sharedFolder, path)).find((path) => existsSync(path));
    if (!stored) throw new Error(`${file} is not among the shared images`);
    const target = join(folder, basename(stored, ".zst"));
    if (stored.endsWith(".zst")) execFileSync("zstd", ["-dq", "--long=27", "--sparse", stored, "-o", target]);
    else execFileSync("cp", [stored, target]);
  }
  return join(folder, basename(row.file!, ".zst"));
}

/** Opens an image and its parents as the commands do. */
export function openedImage(t: ExecutionContext, path: string, parent?: string): OpenedLayers {
  const opened = openLayers({ path, parent });
  t.teardown(() => opened.close());
  return opened;
}

const zeros = Buffer.alloc(1 << 20);

/** SHA-256 of a whole disk; its holes are not read, but have to be zeros to any reader. */
export function sha256OfDisk(disk: Disk): string {
  const hash = createHash("sha256");
  const buffer = Buffer.allocUnsafe(1 << 20);
  for (let position = 0; position < disk.size; ) {
    const { hole, length } = disk.extentAt(position);
    const part = Math.min(length, buffer.length, disk.size - position);
    if (!hole && readFully(disk, position, buffer.subarray(0, part)) !== part) throw new Error(`short at ${position}`);
    hash.update((hole ? zeros : buffer).subarray(0, part));
    position += part;
  }
  return hash.digest("hex");
}

/** Compares a disk with a raw copy of it, skipping what is a hole in both: the first byte that differs, or undefined. */
export function differenceFromRaw(disk: Disk, rawPath: string): string | undefined {
  const raw = FileSource.open(rawPath);
  try {
    if (disk.size !== raw.size) return `${disk.size} bytes, the copy has ${raw.size}`;
    const [ours, theirs] = [Buffer.alloc(1 << 16), Buffer.alloc(1 << 16)];
    for (let position = 0; position < disk.size; ) {
      const [a, b] = [disk.extentAt(position), raw.extentAt(position)];
      let length = Math.min(a.length, b.length, disk.size - position);
      if (!a.hole || !b.hole) {
        length = Math.min(length, ours.length);
        const [x, y] = [ours.subarray(0, length), theirs.subarray(0, length)];
        if (readFully(disk, position, x) !== length) return `short at ${position}`;
        readFully(raw, position, y);
        if (!x.equals(y)) return `differs in ${length} bytes from ${position} on`;
      }
      position += length;
    }
    return undefined;
  } finally {
    raw.close();
  }
}

/** Reads of random places and lengths, and across every edge that is a multiple of `unit`, compared with `expected`. */
export function readsLike(t: ExecutionContext, disk: ByteSource, expected: Buffer, unit: number): void {
  t.is(disk.size, expected.length);
  const check = (position: number, length: number) => {
    const target = Buffer.alloc(length, 0xee);
    const filled = readFully(disk, position, target);
    const right = expected.subarray(position, position + length);
    if (filled !== right.length || !target.subarray(0, filled).equals(right))
      t.fail(`${length} bytes at ${position} are wrong`);
  };
  check(0, expected.length);
  for (let edge = unit; edge < expected.length; edge += unit) {
    check(edge - 1, 2);
    check(edge - 700, 1500);
  }
  let seed = 12345;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  for (let nth = 0; nth < 300; nth++) check(random(expected.length), random(nth % 10 === 0 ? 200_000 : 5000) + 1);
  t.is(disk.read(expected.length, Buffer.alloc(1)), 0);
}

export const hasQemu =
  spawnSync("qemu-img", ["--version"]).status === 0 && spawnSync("qemu-io", ["--version"]).status === 0;
export const noQemu = "skipped: qemu-img and qemu-io are not installed (package qemu-utils)";

export function qemuImg(...args: string[]): string {
  return execFileSync("qemu-img", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], maxBuffer: 1 << 28 });
}

/** Runs qemu-io commands on an image, in their order: `write -P 5 64k 4k`. */
export function qemuIo(format: string, path: string, ...commands: string[]): void {
  const output = execFileSync("qemu-io", ["-f", format, ...commands.flatMap((command) => ["-c", command]), path], {
    encoding: "utf8",
  });
  if (/failed|error|invalid/i.test(output)) throw new Error(`qemu-io ${path}: ${output}`);
}

/** Writes that leave blocks of 64 KiB to 2 MiB out of order, some in part, and touch the last sectors of `size`. */
export function shuffledWrites(size: number): string[] {
  const sectors = size / 512;
  const places = [0.9, 0.11, 0.55, 0.5501, 0.02, 0.73, 0.3, 0.301, 0, 0.42, 0.86, 0.999];
  const writes = places.map((place, nth) => {
    const at = Math.min(Math.floor(place * sectors), sectors - 1);
    const length = Math.min([1, 37, 128, 300][nth % 4]!, sectors - at);
    return `write -P ${nth * 17 + 3} ${at * 512} ${length * 512}`;
  });
  return [...writes, `write -P 251 ${size - 512} 512`];
}

/**
 * Compares where a disk's bytes are with `qemu-img map`: what QEMU takes from a layer has to be stored in that layer, and
 * what it reads as zero has to be a hole.
 */
export function mapsLike(t: ExecutionContext, opened: OpenedLayers, path: string, ...args: string[]): void {
  const map = JSON.parse(qemuImg("map", "--output=json", ...args, path)) as {
    start: number;
    length: number;
    depth: number;
    zero: boolean;
    data: boolean;
  }[];
  for (const { start, length, depth, data } of map)
    for (let position = start; position < Math.min(start + length, opened.disk.size); ) {
      const { kind, depth: found, length: same } = answer(opened, position);
      if ((kind === "stored") !== data || (data && found !== depth))
        t.fail(`byte ${position} is ${kind} in layer ${found}, qemu-img has ${data ? "data" : "zeros"} in ${depth}`);
      position += same;
    }
  t.pass();
}

/** Which layer answers for a byte, and how. */
function answer({ layers }: OpenedLayers, position: number): { kind: string; depth: number; length: number } {
  let length = Number.POSITIVE_INFINITY;
  for (const [depth, layer] of layers.entries()) {
    if (position >= layer.size) break;
    const run = layer.locate(position);
    length = Math.min(length, run.length, layer.size - position);
    if (run.kind !== "absent") return { kind: run.kind, depth, length };
  }
  return { kind: "zero", depth: layers.length - 1, length: Math.min(length, layers[0]!.size - position) };
}

/** The surroundings of an image in memory: its companions by name, and a small cache. */
export function surroundings(path = "/images/test", companions: Record<string, ByteSource> = {}): ImageSurroundings {
  const around: ImageSurroundings = {
    path,
    cache: new LocalChunkCache(4 << 20),
    beside: () => [basename(path), ...Object.keys(companions)],
    imageIn: (source) => images.find((one) => one.recognises(source))!.open(source, around),
    imageOf: (names, { format }) => {
      const source = endToEnd(names.map((name) => around.companion(name)));
      return { layer: images.find((one) => one.name === format)!.open(source, around) };
    },
    companion(name) {
      const found = companions[name];
      if (!found) throw new ImageError("missing", `${path}: needs ${name}, which is not there.`);
      return found;
    },
  };
  return around;
}

/**
 * Opens a file that may be damaged in any way and reads some of what it tells of: an ImageError or some bytes are an
 * answer, anything else is thrown. Huge disks are read at some places only.
 */
export function survives(
  format: Format<Layer>,
  bytes: Uint8Array,
  companions: Record<string, ByteSource> = {},
): string {
  const quiet = <T>(act: () => T): T | undefined => {
    try {
      return act();
    } catch (error) {
      if (error instanceof ImageError) return undefined;
      throw error;
    }
  };
  const source = new MemorySource("/images/test", bytes);
  format.recognises(source);
  const layer = quiet(() => format.open(source, surroundings("/images/test", companions)));
  if (!layer) return "refused";
  const target = Buffer.alloc(4096);
  const visit = (position: number) =>
    quiet(() => {
      const run = layer.locate(position);
      if (!(run.length >= 1)) throw new Error(`a run of ${run.length} bytes at ${position}`);
      if (run.kind === "stored" && run.source.read(run.at, target) < 1) throw new Error(`no byte at ${position}`);
      return run.length;
    }) ?? 65536;
  for (let position = 0, steps = 0; position < layer.size && steps < 200; steps++) position += visit(position);
  for (let nth = 0; nth < 20; nth++) visit(Math.floor((layer.size - 1) * (nth / 19)));
  for (let piece = 0; piece < Math.min(layer.integrity?.pieces ?? 0, 20); piece++) layer.integrity!.check(piece);
  JSON.stringify(layer.facts);
  return "open";
}
