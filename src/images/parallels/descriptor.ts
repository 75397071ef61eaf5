/**
 * DiskDescriptor.xml of a Parallels bundle (docs/interop/prl-xml.txt of QEMU): which files hold which stretch of the disk,
 * and which snapshot of it each is of.
 *
 *   <Disk_Parameters> <Disk_size>…sectors… <Padding>0
 *   <StorageData> <Storage> <Start>…sector… <End>… <Image> <GUID>{…} <Type>Compressed|Plain <File>…
 *   <Snapshots> <TopGUID>{…} <Shot> <GUID>{…} <ParentGUID>{…}
 */
import { type ByteSource, readExactly } from "../../bytes/byte-source.js";
import { corrupt, unsupported } from "../../errors.js";
import { largestDisk } from "../fields.js";

export const descriptorName = "DiskDescriptor.xml";
export const noGuid = "00000000-0000-0000-0000-000000000000";
/** The state that a machine writes to, where the descriptor doesn't name it. */
const usualTop = "5fbaabe3-6958-40ff-92a7-860e329aab41";
const sector = 512;
/** Far beyond what snapshots take. */
const longestDescriptor = 1 << 20;

export interface Storage {
  /** The stretch of the disk, in bytes. */
  readonly start: number;
  readonly end: number;
  readonly images: readonly { readonly guid: string; readonly plain: boolean; readonly file: string }[];
}

export interface BundleDescriptor {
  /** Of the disk, in bytes. */
  readonly size: number;
  /** They follow each other, and cover the disk. */
  readonly storages: readonly Storage[];
  /** By a snapshot's GUID that of its parent, which is `noGuid` for the root. */
  readonly parents: ReadonlyMap<string, string>;
  /** The snapshot that is the present state. */
  readonly top: string;
}

export function isDescriptor(source: ByteSource): boolean {
  const start = readExactly(source, 0, Math.min(source.size, 1024), "the start").toString("latin1");
  return /^(\xef\xbb\xbf)?\s*</.test(start) && start.includes("<Parallels_disk_image");
}

/** @throws ImageError `corrupt` or `unsupported`, naming the element. */
export function readDescriptor(source: ByteSource): BundleDescriptor {
  const { name } = source;
  const damaged = (what: string) => corrupt(`${name}: ${what}. The descriptor is damaged.`);
  if (source.size > longestDescriptor)
    throw corrupt(`${name}: is ${source.size} bytes long, too long for a Parallels bundle's descriptor.`);
  const xml = withoutComments(readExactly(source, 0, source.size, "the descriptor").toString("utf8"));
  // Elements without attributes, found by their tags: no text of a descriptor has a < in it.
  const text = (within: string, tag: string): string => {
    const value = textOf(within, tag);
    if (value === undefined) throw damaged(`it has no ${tag} where one belongs`);
    return value;
  };
  const parts = (within: string, tag: string) =>
    within
      .split(`<${tag}>`)
      .slice(1)
      .map((part) => part.split(`</${tag}>`)[0]!);
  const number = (within: string, tag: string) => {
    const value = text(within, tag);
    const bytes = Number(value) * sector;
    if (!/^\d+$/.test(value) || bytes > largestDisk) throw damaged(`its ${tag} is ${value}`);
    return bytes;
  };
  const guid = (within: string, tag: string) => text(within, tag).replace(/[{}]/g, "").toLowerCase();
  const size = number(xml, "Disk_size");
  if (Number(textOf(xml, "Padding") ?? 0) !== 0)
    throw unsupported(`${name}: has a disk with padding, which Spindle doesn't know.`);
  if (/[1-9a-f]/i.test(textOf(xml, "Engine") ?? ""))
    throw unsupported(`${name}: is encrypted, which Spindle doesn't decrypt. Decrypt it with prl_disk_tool first.`);
  const storages = parts(xml, "Storage").map((part) => ({
    start: number(part, "Start"),
    end: number(part, "End"),
    images: parts(part, "Image").map((image) => {
      const type = text(image, "Type");
      if (type !== "Compressed" && type !== "Plain")
        throw unsupported(`${name}: has an image of the type ${type}; Compressed and Plain are known.`);
      return { guid: guid(image, "GUID"), plain: type === "Plain", file: text(image, "File") };
    }),
  }));
  storages.sort((a, b) => a.start - b.start);
  let end = 0;
  for (const storage of storages) {
    if (storage.start !== end || storage.end <= storage.start)
      throw damaged(`its storage from byte ${storage.start} to ${storage.end} of the disk doesn't begin at ${end}`);
    end = storage.end;
  }
  if (end !== size || size === 0) throw damaged(`its storages hold ${end} bytes, where the disk has ${size}`);
  const parents = new Map(parts(xml, "Shot").map((shot) => [guid(shot, "GUID"), guid(shot, "ParentGUID")]));
  const top = xml.includes("<TopGUID>") ? guid(xml, "TopGUID") : usualTop;
  return { size, storages, parents, top: parents.size === 0 ? (storages[0]!.images[0]?.guid ?? top) : top };
}

function textOf(within: string, tag: string): string | undefined {
  const start = within.indexOf(`<${tag}>`);
  if (start < 0) return undefined;
  const end = within.indexOf("<", start + tag.length + 2);
  if (end < 0 || !within.startsWith(`</${tag}>`, end)) return undefined;
  const value = within.slice(start + tag.length + 2, end).trim();
  return value.replace(/&(lt|gt|amp|quot|apos);/g, (_, entity: string) => entities[entity]!);
}

function withoutComments(xml: string): string {
  let kept = "";
  for (let at = 0; ; ) {
    const start = xml.indexOf("<!--", at);
    const end = start < 0 ? -1 : xml.indexOf("-->", start);
    if (end < 0) return kept + xml.slice(at);
    kept += xml.slice(at, start);
    at = end + 3;
  }
}

const entities: Record<string, string> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };
