/**
 * The folder in which piece tables are kept from one run to the next: `$XDG_CACHE_HOME/spindle/packed`, or
 * `~/.cache/spindle/packed`. Everything in it can be made again and may be deleted at any time.
 *
 * It is the user's own (0700): what is in it decides how bytes are read. Where there is no such folder, tables live in
 * files without a name that go with the process.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  futimesSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  statfsSync,
  statSync,
  unlinkSync,
} from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { isAbsolute, join } from "node:path";
import { system, usage } from "../errors.js";
import { settings } from "../settings.js";
import type { PieceFiles } from "./piece-table.js";

const suffixes = { table: ".table", data: ".data" } as const;

/** The folder, made where it is missing; undefined where it can't be had. */
export function cacheFolder(): string | undefined {
  const { XDG_CACHE_HOME } = process.env;
  try {
    const base = XDG_CACHE_HOME && isAbsolute(XDG_CACHE_HOME) ? XDG_CACHE_HOME : join(userInfo().homedir, ".cache");
    const folder = join(base, "spindle", "packed");
    // One by one: mkdirSync's `recursive` never ends in folders like /proc, where nothing can be made.
    for (const each of [base, join(base, "spindle"), folder]) makeFolder(each);
    const stat = lstatSync(folder);
    return stat.isDirectory() && stat.uid === process.geteuid!() && (stat.mode & 0o022) === 0 ? folder : undefined;
  } catch {
    return undefined; // no home, a read-only or a full one: there is another way
  }
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
}

/** Opens or makes the files called `name`; files without a name where there is no folder for them. */
export function openPieceFiles(name: string): PieceFiles {
  const folder = cacheFolder();
  if (folder === undefined) return namelessFiles();
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
  let table: number | undefined;
  try {
    const path = join(folder, name);
    table = openSync(path + suffixes.table, flags, 0o600);
    const data = openSync(path + suffixes.data, flags, 0o600);
    // Which was used last tells which goes first.
    futimesSync(table, new Date(), new Date());
    return { table, data, name: path + suffixes.table };
  } catch {
    if (table !== undefined) closeSync(table);
    return namelessFiles();
  }
}

function namelessFiles(): PieceFiles {
  return { table: namelessFile(), data: namelessFile(), name: `a temporary file in ${placeOfNameless()}` };
}

/** Temporary folders may be in memory: the cache folder isn't. */
const placeOfNameless = () => cacheFolder() ?? tmpdir();

/** A file that nobody else can open, and that is gone when it is closed. */
export function namelessFile(): number {
  const folder = placeOfNameless();
  const path = join(folder, `.spindle-${randomBytes(12).toString("hex")}`);
  try {
    const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600);
    unlinkSync(path);
    return fd;
  } catch (error) {
    throw system(`making a temporary file in ${folder}`, error);
  }
}

/** Most bytes that all files of the folder may take on disk. */
export function cacheLimit(): number {
  const given = process.env.SPINDLE_CACHE_LIMIT;
  if (given === undefined || given === "") return settings.packedCacheBytes;
  const found = /^(\d+)([KMGT]?)$/i.exec(given);
  if (!found) throw usage(`SPINDLE_CACHE_LIMIT=${given}: give a size in bytes, or with K, M, G or T, for example 20G.`);
  return Number(found[1]) * 1024 ** " KMGT".indexOf(found[2]!.toUpperCase() || " ");
}

interface Entry {
  readonly name: string;
  readonly bytes: number;
  readonly used: number;
}

function entriesOf(folder: string): Entry[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith(suffixes.table))
    .flatMap((file) => {
      const name = file.slice(0, -suffixes.table.length);
      try {
        const table = statSync(join(folder, file));
        const data = statSync(join(folder, name + suffixes.data));
        return [{ name, bytes: (table.blocks + data.blocks) * 512, used: table.mtimeMs }];
      } catch {
        return []; // another process has just removed it
      }
    });
}

/**
 * Sees to it that the folder's files, those of `files` among them, may grow by `more` bytes: others, the least recently
 * used first, are removed. A process that has one of them open keeps it until it ends.
 *
 * @returns why there is no room, as a part of a sentence; undefined when there is
 */
export function makeRoom({ name }: PieceFiles, more: number): string | undefined {
  const folder = cacheFolder();
  const kept = folder !== undefined && name.startsWith(folder);
  const disk = statfsSync(kept ? folder : tmpdir());
  const free = disk.bavail * disk.bsize - settings.packedCacheSpare;
  const limit = cacheLimit();
  if (!kept) return more > free ? `${tmpdir()} has not enough free space` : undefined;
  const entries = entriesOf(folder).sort((a, b) => a.used - b.used);
  let taken = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  let gained = 0;
  for (const entry of entries) {
    if (taken + more <= limit && more <= free + gained) break;
    if (name === join(folder, entry.name) + suffixes.table) continue;
    for (const suffix of Object.values(suffixes)) {
      try {
        unlinkSync(join(folder, entry.name + suffix));
      } catch {
        // another process was quicker
      }
    }
    taken -= entry.bytes;
    gained += entry.bytes;
  }
  if (taken + more > limit)
    return `${folder} may not take more than ${limit} bytes (set SPINDLE_CACHE_LIMIT to change that)`;
  return more > free + gained ? `the disk with ${folder} has not enough free space` : undefined;
}
