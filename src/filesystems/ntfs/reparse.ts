import { corrupt, type ImageError, unsupported } from "../../errors.js";
import type { FileKind } from "../filesystem.js";

/** What a reparse point stands for, by its tag ([MS-FSCC] 2.1.2.1). */
export const MOUNT_POINT = 0xa0000003;
export const SYMLINK = 0xa000000c;
export const WOF = 0x80000017;
const LX_SYMLINK = 0xa000001d;

/** Reparse points that are a kind of file of their own. */
export const kindsByTag: ReadonlyMap<number, FileKind> = new Map([
  [MOUNT_POINT, "symlink"],
  [SYMLINK, "symlink"],
  [LX_SYMLINK, "symlink"],
  [0x80000023, "socket"],
  [0x80000024, "fifo"],
  [0x80000025, "character"],
  [0x80000026, "block"],
]);

/** Files whose bytes the volume doesn't hold in a way that this program can put together. */
const elsewhere: ReadonlyMap<number, string> = new Map([
  [0x80000013, "its data was deduplicated by Windows Server; the chunks are in System Volume Information"],
  [0x80000007, "its data was moved to a single-instance store of Windows"],
  [0x80000008, "its data is in a mounted WIM file"],
  [0xc0000004, "its data was moved to another storage (HSM)"],
  [0x80000006, "its data was moved to another storage (HSM)"],
]);

/** Microsoft's names ([MS-FSCC] 2.1.2.1), where they say something. */
const names: Readonly<Record<number, string>> = {
  [MOUNT_POINT]: "junction",
  [SYMLINK]: "symbolic link",
  [WOF]: "system compression (WOF)",
  [LX_SYMLINK]: "WSL symbolic link",
  2147483683: "AF_UNIX",
  2147483684: "WSL fifo",
  2147483685: "WSL character device",
  2147483686: "WSL block device",
  2147483667: "deduplicated",
  2147483655: "single-instance store",
  2147483656: "WIM",
  2147483658: "DFS",
  2147483666: "DFSR",
  2147483668: "NFS",
  3221225476: "HSM",
  2147483654: "HSM2",
  2147483675: "app execution alias",
  2415919132: "ProjFS",
  2684354594: "ProjFS tombstone",
  2147483681: "OneDrive",
};

/** `junction (0xa0000003)`. A cloud file's tag has 16 variants. */
export function tagName(tag: number): string {
  const cloud = (tag & 0xffff0fff) >>> 0 === 0x9000001a ? "cloud file" : undefined;
  const name = names[tag] ?? cloud;
  const number = `0x${tag.toString(16).padStart(8, "0")}`;
  return name ? `${name} (${number})` : number;
}

export interface ReparsePoint {
  readonly tag: number;
  /** After the header. */
  readonly data: Buffer;
}

/** @returns undefined when even the header isn't there. */
export function parseReparsePoint(bytes: Buffer): ReparsePoint | undefined {
  if (bytes.length < 8) return undefined;
  const tag = bytes.readUInt32LE(0);
  // Microsoft's own have bit 31; others have a GUID after the header.
  const header = tag >= 0x80000000 ? 8 : 24;
  return { tag, data: bytes.subarray(header, header + bytes.readUInt16LE(4)) };
}

export function errorOfTag(name: string, tag: number, recalled: boolean): ImageError | undefined {
  const why = elsewhere.get(tag) ?? (recalled ? "its data is with a cloud service, not on this volume" : undefined);
  if (!why) return undefined;
  return unsupported(`${name}: ${why} (reparse point 0x${tag.toString(16)}), which Spindle doesn't read.`);
}

/** Where a link leads, as Windows has it. */
export type Target =
  /** From the folder of the link, with backslashes. */
  | { readonly kind: "relative"; readonly path: string }
  /** From the root of this volume. */
  | { readonly kind: "rooted"; readonly path: string }
  /** From the root of a drive, or of a volume or a server: `root` names it (`C:`, `Volume{...}`, `UNC`). */
  | { readonly kind: "absolute"; readonly root: string; readonly path: string }
  /** A path as Linux has it. */
  | { readonly kind: "linux"; readonly path: Buffer };

/** @throws ImageError `corrupt` when the data isn't that of a link. */
export function linkTarget(name: string, point: ReparsePoint): Target {
  const { tag, data } = point;
  const damaged = () => corrupt(`${name}: its reparse point is no link that can be read. The volume is damaged.`);
  if (tag === LX_SYMLINK) {
    if (data.length <= 4 || data.readUInt32LE(0) !== 2 || data.includes(0, 4)) throw damaged();
    return { kind: "linux", path: data.subarray(4) };
  }
  const paths = tag === SYMLINK ? 12 : 8;
  if (data.length < paths) throw damaged();
  const start = paths + data.readUInt16LE(0);
  const length = data.readUInt16LE(2) & ~1;
  if (length === 0 || start + length > data.length) throw damaged();
  const path = data.toString("utf16le", start, start + length);
  if (path.includes("\0")) throw damaged();
  if (tag === SYMLINK && (data.readUInt32LE(8) & 1) !== 0) {
    if (/^[^\\]:\\/.test(path)) return rooted(path);
    if (path.startsWith("\\")) return { kind: "rooted", path: path.slice(1) };
    return { kind: "relative", path };
  }
  // Paths of the kernel's: \??\C:\folder, \??\Volume{...}\, \??\UNC\server\share.
  return rooted(path.replace(/^\\(\?\?|\\\?|\\\.)\\/, ""));
}

function rooted(path: string): Target {
  const at = path.indexOf("\\");
  const root = at < 0 ? path : path.slice(0, at);
  return {
    kind: "absolute",
    root: /^[a-z]:$/.test(root) ? root.toUpperCase() : root,
    path: at < 0 ? "" : path.slice(at + 1),
  };
}
