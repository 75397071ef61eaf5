/**
 * The Rock Ridge Interchange Protocol (IEEE P1282, 1.09 to 1.12): what POSIX knows of a file, in entries of its directory
 * record. Extensions beyond it (AA, AS, AL and others) are passed over.
 */
import type { FileKind, Time } from "../filesystem.js";
import type { DirectoryRecord } from "./record.js";
import { signature, visitSystemUse } from "./system-use.js";
import { longTime, shortTime } from "./times.js";
import type { Volume } from "./volume.js";
import type { PackedFormat } from "./zisofs.js";

export interface RockRidge {
  name?: Buffer;
  posix?: {
    /** With the kind of file, as st_mode has it. */
    readonly mode: number;
    readonly links: number;
    readonly owner: number;
    readonly group: number;
    /** st_ino where it came from; undefined before version 1.12. */
    readonly serial: number | undefined;
  };
  device?: { readonly major: number; readonly minor: number };
  link?: LinkText;
  born?: Time;
  modified?: Time;
  accessed?: Time;
  changed?: Time;
  /** Block of the directory that this record stands for: it lies elsewhere, because the tree was too deep. */
  child?: number;
  /** Whether this directory is shown elsewhere, by a record with `child`. */
  relocated?: boolean;
  packed?: PackedFormat;
  /** Whether the file has holes in the way of this protocol, which no program is known to write. */
  sparse?: boolean;
}

const PX = signature("PX");
const PN = signature("PN");
const SL = signature("SL");
const NM = signature("NM");
const CL = signature("CL");
const RE = signature("RE");
const TF = signature("TF");
const SF = signature("SF");
const ZF = signature("ZF");
const Z2 = signature("Z2");

/** TF's bits in the order of its times: birth, modification, access, attribute change. Others follow and aren't shown. */
const timeFields = ["born", "modified", "accessed", "changed"] as const;

/** @throws ImageError `corrupt` for a broken chain of continuation areas. */
export function readRockRidge(volume: Volume, record: DirectoryRecord, skip: number): RockRidge {
  const found: RockRidge = {};
  const names: Buffer[] = [];
  visitSystemUse(volume, record, skip, (kind, entry) => {
    switch (kind) {
      case PX:
        if (entry.length < 36) return;
        found.posix ??= {
          mode: entry.readUInt32LE(4),
          links: entry.readUInt32LE(12),
          owner: entry.readUInt32LE(20),
          group: entry.readUInt32LE(28),
          serial: entry.length >= 44 ? entry.readUInt32LE(36) : undefined,
        };
        return;
      case PN:
        if (entry.length >= 20) found.device ??= device(entry.readUInt32LE(4), entry.readUInt32LE(12));
        return;
      case NM:
        // Flags 2 and 4 stand for `.` and `..`, which are told by the record itself.
        if (entry.length > 5 && (entry[4] & 6) === 0) names.push(entry.subarray(5));
        return;
      case SL:
        if (entry.length < 5) return;
        found.link ??= new LinkText();
        found.link.add(entry);
        return;
      case TF:
        addTimes(found, entry);
        return;
      case CL:
        if (entry.length >= 12) found.child ??= entry.readUInt32LE(4);
        return;
      case RE:
        found.relocated = true;
        return;
      case SF:
        found.sparse = true;
        return;
      case ZF:
      case Z2:
        if (entry.length >= 16) found.packed ??= packedFormat(entry);
        return;
    }
  });
  // A copy: the entries are views of pages.
  if (names.length > 0) found.name = Buffer.concat(names);
  return found;
}

/** Major and minor; or both in the lower half, in the way in which Linux's C library writes a dev_t. */
function device(high: number, low: number) {
  return high === 0 && low > 0xff
    ? { major: (low >>> 8) & 0xfff, minor: (low & 0xff) | ((low >>> 12) & 0xfff00) }
    : { major: high, minor: low };
}

function addTimes(found: RockRidge, entry: Buffer): void {
  if (entry.length < 5) return;
  const flags = entry[4];
  const size = flags & 0x80 ? 17 : 7;
  let at = 5;
  for (let bit = 0; bit < timeFields.length; bit++) {
    if (!(flags & (1 << bit))) continue;
    if (at + size > entry.length) return;
    const time = size === 7 ? shortTime(entry, at) : longTime(entry, at);
    if (time) found[timeFields[bit]] ??= time;
    at += size;
  }
}

/** ZF as zisofs-tools writes it, with `pz`; ZF or Z2 of zisofs2, with `PZ`. */
function packedFormat(entry: Buffer): PackedFormat {
  const algorithm = entry.toString("latin1", 4, 6);
  const size = entry.readUInt32LE(8) + (algorithm === "PZ" ? entry.readUInt32LE(12) * 2 ** 32 : 0);
  return { algorithm, headerSize: entry[6] * 4, blockBits: entry[7], size };
}

/** A link's target, put together from components. */
class LinkText {
  private readonly parts: Buffer[] = [];
  /** Whether the next component begins a new name, and needs a slash before it. */
  private separate = false;
  private bad = -1;

  add(entry: Buffer): void {
    for (let at = 5; at + 2 <= entry.length; ) {
      const flags = entry[at];
      const length = entry[at + 1];
      if (at + 2 + length > entry.length) return;
      if (this.separate) this.parts.push(slash);
      this.separate = true;
      const kind = flags & 0xfe;
      if (kind === 0) this.parts.push(Buffer.from(entry.subarray(at + 2, at + 2 + length)));
      else if (kind === 2) this.parts.push(dot);
      else if (kind === 4) this.parts.push(twoDots);
      else if (kind === 8) {
        this.parts.push(slash);
        this.separate = false;
      } else this.bad = flags;
      // Bit 0: the name goes on in the next component.
      if (flags & 1) this.separate = false;
      at += 2 + length;
    }
  }

  /** @throws ImageError `unsupported` for the root of a volume or the name of a host, which no path has. */
  target(volume: Volume, record: DirectoryRecord): Buffer {
    if (this.bad >= 0)
      throw volume.unsupported(
        record.position,
        `a symbolic link has a component of kind 0x${this.bad.toString(16)}, for which there is no path on this system`,
      );
    return Buffer.concat(this.parts);
  }

  get size(): number {
    return this.parts.reduce((size, part) => size + part.length, 0);
  }
}

const slash = Buffer.from("/");
const dot = Buffer.from(".");
const twoDots = Buffer.from("..");

const kinds: Record<number, FileKind> = {
  4096: "fifo",
  8192: "character",
  24576: "block",
  40960: "symlink",
  49152: "socket",
};

/** The kind of a record that isn't a directory. */
export const kindOf = ({ posix }: RockRidge): FileKind => kinds[(posix?.mode ?? 0) & 0xf000] ?? "file";
