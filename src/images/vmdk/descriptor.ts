/**
 * The descriptor of a VMDK ("Virtual Disk Format 5.0", VMware): a text of `key=value` lines and a line for each extent,
 * as a file of its own or within a sparse extent.
 *
 *   CID=fffffffe                                          changes with the disk's content
 *   parentCID=ffffffff                                    the parent's CID; ffffffff for none
 *   parentFileNameHint="base.vmdk"
 *   RW 4192256 SPARSE "disk-s001.vmdk"                    access, sectors, type, file, and for flat ones the first sector
 */
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { corrupt, unsupported } from "../../errors.js";

/** Far beyond the 20 KiB that VMware reserves, far below what hurts: some 10,000 extents. */
const longestDescriptor = 1 << 20;
const noParent = 0xffffffff;

export interface ExtentLine {
  readonly type: string;
  /** Bytes of the disk that the extent holds. */
  readonly size: number;
  /** The file as recorded; empty for `ZERO`. */
  readonly file: string;
  /** Where a flat extent begins in its file, in bytes. */
  readonly offset: number;
}

export interface Descriptor {
  readonly createType: string;
  readonly cid: number;
  /** Undefined for a disk without parent. */
  readonly parentCid: number | undefined;
  readonly parentHint: string;
  readonly extents: readonly ExtentLine[];
  /** The disk data base: `ddb.adapterType` and the like, without the `ddb.`. */
  readonly dataBase: Readonly<Record<string, string>>;
}

/** Whether `source` begins as a descriptor file does: perhaps after comments and empty lines, with its version. */
export function isDescriptor(source: ByteSource): boolean {
  const start = readExactly(source, 0, Math.min(source.size, 512), "the start").toString("latin1");
  if (/^\s*# Disk Descriptor ?File/i.test(start)) return true;
  return /^(\s|#[^\n]*\n)*version\s*=\s*[123]\s*\n/.test(start) && /^(encoding|CID|parentCID)\s*=/im.test(start);
}

/** @throws ImageError `corrupt` for a text that is no descriptor. */
export function readDescriptor(source: ByteSource, position: number, length: number): Descriptor {
  const { name } = source;
  if (length > longestDescriptor)
    throw corrupt(`${name}: its descriptor should have ${length} bytes; ${longestDescriptor} are possible.`);
  const bytes = readExactly(source, position, length, "the descriptor");
  const end = bytes.indexOf(0);
  const extents: ExtentLine[] = [];
  const values = new Map<string, string>();
  const dataBase: Record<string, string> = {};
  for (const line of bytes.toString("utf8", 0, end < 0 ? length : end).split(/\r?\n/)) {
    const text = line.trim();
    if (text === "" || text.startsWith("#")) continue;
    const extent = /^(RW|RDONLY|NOACCESS)\s+(\d+)\s+(\w+)(?:\s+"([^"]*)"(?:\s+(\d+))?)?/i.exec(text);
    if (extent) {
      extents.push(parseExtent(name, text, extent));
      continue;
    }
    const value = /^([\w.]+)\s*=\s*"?(.*?)"?$/.exec(text);
    if (!value) continue;
    const key = value[1]!.toLowerCase();
    if (key.startsWith("ddb.")) dataBase[value[1]!.slice(4)] = value[2]!;
    else values.set(key, value[2]!);
  }
  const parentCid = hex(name, "parentCID", values.get("parentcid") ?? "ffffffff");
  return {
    createType: values.get("createtype") ?? "",
    cid: hex(name, "CID", values.get("cid") ?? "0"),
    parentCid: parentCid === noParent ? undefined : parentCid,
    parentHint: values.get("parentfilenamehint") ?? "",
    extents,
    dataBase,
  };
}

function parseExtent(name: string, line: string, [, access, sectors, type, file, offset]: RegExpExecArray): ExtentLine {
  if (access!.toUpperCase() === "NOACCESS")
    throw unsupported(`${name}: has an extent that may not be read: ${line}. Its disk is kept elsewhere.`);
  const size = Number(sectors) * 512;
  const start = Number(offset ?? 0) * 512;
  if (!Number.isSafeInteger(size) || !Number.isSafeInteger(start) || size === 0)
    throw corrupt(`${name}: has an extent of an impossible size: ${line}.`);
  return { type: type!.toUpperCase(), size, file: file ?? "", offset: start };
}

function hex(name: string, key: string, text: string): number {
  const value = Number.parseInt(text, 16);
  if (!/^[0-9a-f]{1,8}$/i.test(text.trim()))
    throw corrupt(`${name}: its descriptor has ${key}=${text}, which is no number of 32 bits in hexadecimal.`);
  return value;
}
