/** The disk that is measured: GPT with an empty EFI partition and an ext4 full of this machine's own files. */
import {
  chmodSync,
  closeSync,
  copyFileSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { FileSource } from "../../src/bytes/file.js";
import { BenchError, run } from "./programs.js";

const MiB = 1024 * 1024;

export interface TestDisk {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Bytes that are no hole. */
  readonly data: number;
  /** Files that were copied. */
  readonly files: number;
  /** One large file, a tar archive of some of them: its path in the ext4, and its size in bytes. */
  readonly large: { readonly path: string; readonly size: number };
  /** First byte of the ext4. */
  readonly volume: number;
  /** The stretch with all but a hundredth of the ext4's data; random reads go there. Multiples of 1 MiB. */
  readonly used: { readonly position: number; readonly length: number; readonly data: number };
}

/**
 * Makes the disk in `folder`, without root: `size` bytes, about `content` of them files of /usr, a quarter of those in
 * one large file.
 */
export async function makeTestDisk(folder: string, size: number, content: number): Promise<TestDisk> {
  const path = join(folder, "disk.raw");
  const tree = join(folder, "tree");
  const files = copySample("/usr", tree, content * 0.75);
  const large = await makeLargeFile(tree, Math.floor(content / 4));
  closeSync(openSync(path, "w"));
  truncateSync(path, size);
  const first = 65;
  const blocks = size / MiB - first - 1;
  const table = `label: gpt\nstart=1MiB, size=64MiB, type=U\nstart=${first}MiB, size=${blocks}MiB, type=L\n`;
  await run("bash", "-c", 'sfdisk --quiet "$1" <<< "$2"', "bash", path, table);
  const ext4 = ["-q", "-F", "-t", "ext4", "-d", tree, "-L", "bench", "-E", `offset=${first * MiB},root_owner=0:0`];
  await run("mke2fs", ...ext4, path, `${blocks}m`);
  rmSync(tree, { recursive: true });
  return { path, size, files, large, volume: first * MiB, ...usage(path, first * MiB) };
}

/** An archive packs as well as the files in it, and is read like any large file. It ends where `size` is reached. */
async function makeLargeFile(tree: string, size: number): Promise<TestDisk["large"]> {
  const path = "large.tar";
  const command = 'tar cf - --exclude="./$2" . 2>/dev/null | head -c "$3" > "$2"';
  await run("bash", "-c", `cd "$1" && { ${command}; }`, "bash", tree, path, `${size}`);
  return { path, size: statSync(join(tree, path)).size };
}

/**
 * Copies files of `from`, evenly over all of its folders, until they have `bytes`; the same ones on every run. Links are
 * copied as links; files that this user can't read are left out.
 */
function copySample(from: string, to: string, bytes: number): number {
  const found: { path: string; size: number; link: boolean }[] = [];
  const pending = [""];
  for (let folder = pending.pop(); folder !== undefined; folder = pending.pop()) {
    let names: string[];
    try {
      names = readdirSync(join(from, folder)).sort();
    } catch {
      continue;
    }
    for (const name of names) {
      const path = join(folder, name);
      const stat = lstatSync(join(from, path), { throwIfNoEntry: false });
      if (stat?.isDirectory()) pending.push(path);
      else if (stat?.isFile() || stat?.isSymbolicLink())
        found.push({ path, size: stat.size, link: stat.isSymbolicLink() });
    }
  }
  // One large file must not take the place of all others.
  const wanted = found.filter((file) => file.size <= bytes / 10);
  const share = Math.min(1, bytes / wanted.reduce((sum, file) => sum + file.size, 0));
  let seen = 0;
  let taken = 0;
  let files = 0;
  for (const { path, size, link } of wanted) {
    const behind = taken <= seen * share;
    seen += size;
    if (!behind) continue;
    const target = join(to, path);
    mkdirSync(dirname(target), { recursive: true });
    try {
      if (link) symlinkSync(readlinkSync(join(from, path)), target);
      else {
        copyFileSync(join(from, path), target);
        chmodSync(target, 0o644);
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EACCES") continue;
      throw error;
    }
    taken += size;
    files++;
  }
  return files;
}

function usage(path: string, volume: number): Pick<TestDisk, "data" | "used"> {
  const source = FileSource.open(path);
  const pieces: { position: number; length: number }[] = [];
  for (let position = 0; position < source.size; ) {
    const { hole, length } = source.extentAt(position);
    if (!hole) pieces.push({ position, length });
    position += length;
  }
  source.close();
  const sum = (list: typeof pieces) => list.reduce((total, piece) => total + piece.length, 0);
  const inVolume = pieces.filter(({ position }) => position >= volume);
  const wanted = sum(inVolume) * 0.99;
  let data = 0;
  for (const { position, length } of inVolume) {
    data += length;
    if (data >= wanted) {
      const end = Math.floor((position + length) / MiB) * MiB;
      return { data: sum(pieces), used: { position: volume, length: end - volume, data } };
    }
  }
  throw new BenchError(`${path}: the test disk has no data; its filesystem doesn't tell holes`);
}
