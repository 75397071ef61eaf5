/**
 * NTFS, read-only, as Windows (3.0, 3.1) and ntfs-3g write it.
 *
 *     boot-sector   where $MFT is                 mft          file records, with their extensions
 *     attribute     what a record holds           runs         where the clusters of an attribute are
 *     streams       an attribute's bytes          lznt1-stream, wof   ... compressed by the file or the system
 *     index-tree    B-trees                       directory    names in them, found whatever their case
 *     reparse       what links are                links        ... and where they lead on Linux
 *
 * As ntfs-3g does: the system's own files (records below 16) aren't listed, but found by name (`/$MFT`, `/$Extend`);
 * short DOS names aren't listed, but found; alternate streams are extended attributes; Interix special files are what they
 * stand for; a directory has one link. Unlike it, names are found in other case too, after the exact one, as Windows
 * does, and the reparse points that it shows as broken links are files whose reading tells why it can't be.
 *
 * Left out: replay of $LogFile (a volume that wasn't unmounted is shown as it lies, with a warning), the chunk store of
 * Windows Server's deduplication, EFS.
 */

import type { ByteSource, Extent } from "../../bytes/byte-source.js";
import { corrupt, ImageError } from "../../errors.js";
import type { Format, Surroundings } from "../../format.js";
import type { Attributes, Entry, FileId, FileSystem, Statistics } from "../filesystem.js";
import { bytesToUtf16, utf16ToBytes } from "../utf16.js";
import {
  BITMAP,
  COMPRESSION_MASK,
  DATA,
  INDEX_ALLOCATION,
  SPARSE,
  VOLUME_INFORMATION,
  VOLUME_NAME,
} from "./attribute.js";
import { countZeroBits } from "./bitmap.js";
import { type Geometry, hasBootSector, readBootSector } from "./boot-sector.js";
import { detailsOf } from "./details.js";
import { Directories, type DirectoryEntry, INDEX_PRESENT } from "./directory.js";
import { DOS_NAME, type FileRecord, firstUserRecord, READ_ONLY } from "./file-record.js";
import { interix, kindOf, linuxMetadata } from "./kinds.js";
import { translate } from "./links.js";
import { linkTarget } from "./reparse.js";
import { SecurityDescriptors } from "./security.js";
import type { Stream } from "./streams.js";
import { UpCase } from "./upcase.js";
import { Volume } from "./volume.js";
import { wofStreamName } from "./wof.js";
import { streamNames, xattrsOf } from "./xattrs.js";

const VOLUME_FILE = 3;
const ROOT = 5;
const BITMAP_FILE = 6;
const SECURE_FILE = 9;
const UPCASE_FILE = 10;
/** In the flags of $Volume: it wasn't unmounted cleanly. */
const DIRTY = 1;

/** Added to the record number of an entry whose file is gone: all that is asked about it is answered by an error. */
const STALE = 2 ** 50;

export const ntfs: Format<FileSystem> = {
  name: "ntfs",
  recognises: hasBootSector,
  open: (source, around) => new Ntfs(source, readBootSector(source), around),
};

class Ntfs implements FileSystem {
  readonly type = "ntfs";
  readonly label: string;
  readonly root = ROOT;
  readonly facts: Record<string, unknown>;
  readonly warnings: string[];
  private readonly volume: Volume;
  private readonly directories: Directories;
  private readonly security: SecurityDescriptors | undefined;
  private readonly owner = process.getuid?.() ?? 0;
  private readonly group = process.getgid?.() ?? 0;
  private counted: Statistics | undefined;
  private lastFile: FileRecord | undefined;

  constructor(
    private readonly source: ByteSource,
    private readonly geometry: Geometry,
    around: Surroundings,
  ) {
    this.volume = new Volume(source, geometry, around);
    this.warnings = [...this.volume.mft.warnings];
    this.volume.index(this.file(ROOT), "$I30");
    if (source.size < geometry.size)
      this.warnings.push(
        `The volume has ${geometry.size} bytes by its boot sector, but only ${source.size} are there: files in the rest can't be read.`,
      );
    const upCase = this.orWarn("$UpCase, the table of upper case", () =>
      UpCase.read(this.volume.content(this.file(UPCASE_FILE))),
    );
    this.directories = new Directories(upCase ?? UpCase.ofUnicode());
    this.security = this.orWarn("$Secure, the table of security descriptors", () => this.openSecurity());
    const information = this.orWarn("$Volume, the volume's description", () => this.readVolumeFile());
    this.label = information?.label ?? "";
    this.facts = {
      uuid: geometry.serial,
      version: information?.version,
      clusterSize: geometry.clusterSize,
      recordSize: geometry.recordSize,
      dirty: information?.dirty,
    };
    if (information?.dirty)
      this.warnings.push("The volume was not unmounted cleanly; it is shown as it lies, without a replay of $LogFile.");
  }

  get statistics(): Statistics {
    this.counted ??= this.count();
    return this.counted;
  }

  attributes(id: FileId): Attributes {
    const file = this.file(id);
    const kind = kindOf(this.volume, file);
    const linux = linuxMetadata(this.volume, file);
    const isDirectory = kind === "directory";
    const plain = isDirectory ? 0o755 : kind === "symlink" ? 0o777 : (file.flags & READ_ONLY) !== 0 ? 0o444 : 0o644;
    let names = 0;
    for (const { namespace } of file.names()) if (namespace !== DOS_NAME) names++;
    return {
      kind,
      mode: kind === "symlink" ? plain : (linux?.mode ?? plain),
      inode: file.number,
      links: isDirectory ? 1 : Math.max(1, names),
      owner: linux?.owner ?? this.owner,
      group: linux?.group ?? this.group,
      size: kind === "file" || isDirectory ? this.sizeOf(file) : kind === "symlink" ? this.linkSize(id) : 0,
      allocated: this.allocatedOf(file),
      device:
        kind === "character" || kind === "block"
          ? (linux?.device ?? interix(this.volume, file)?.device ?? { major: 0, minor: 0 })
          : undefined,
      accessed: file.accessed,
      modified: file.modified,
      changed: file.changed,
      born: file.born,
    };
  }

  lookup(directory: FileId, name: Uint8Array): FileId | undefined {
    const text = bytesToUtf16(name);
    if (text === undefined) return undefined;
    const entry = this.find(directory, text);
    return entry && this.idOf(entry);
  }

  *list(directory: FileId): Iterable<Entry> {
    for (const entry of this.directories.entries(this.volume.index(this.file(directory), "$I30"))) {
      // Short names are second names of files that are listed by their long ones.
      if (entry.namespace === DOS_NAME || entry.record < firstUserRecord) continue;
      yield { name: utf16ToBytes(entry.name), file: this.idOf(entry), kind: this.kindOfEntry(entry) };
    }
  }

  read(id: FileId, position: number, target: Uint8Array): number {
    return this.content(id).read(position, target);
  }

  readLink(id: FileId): Uint8Array {
    const file = this.file(id);
    const special = interix(this.volume, file);
    if (special?.target !== undefined) return utf16ToBytes(special.target);
    const point = this.volume.reparsePoint(file);
    if (!point) throw corrupt(`${file.label} is no link. The volume is damaged.`);
    return translate(file.label, file.number, linkTarget(file.label, point), {
      root: ROOT,
      parentOf: (number) => this.parentOf(number),
      step: (number, name) => {
        const entry = this.find(number, name);
        if (!entry) return undefined;
        return { name: entry.name, directory: this.kindOfEntry(entry) === "directory" ? this.idOf(entry) : undefined };
      },
    });
  }

  extentAt(id: FileId, position: number): Extent {
    return this.content(id).extentAt(position);
  }

  extendedAttributes(id: FileId): ReadonlyMap<string, Uint8Array> {
    return xattrsOf(this.volume, this.file(id), this.security);
  }

  details(id: FileId): Record<string, unknown> {
    return detailsOf(this.volume, this.file(id), this.security);
  }

  streams(id: FileId): readonly Uint8Array[] {
    return streamNames(this.volume, this.file(id)).map(utf16ToBytes);
  }

  stream(id: FileId, name: Uint8Array): ByteSource | undefined {
    const file = this.file(id);
    const text = bytesToUtf16(name);
    const names = streamNames(this.volume, file);
    const found = text === undefined ? undefined : names.find((name) => name === text);
    return found === undefined ? undefined : this.volume.named(file, DATA, found);
  }

  private content(id: FileId): Stream {
    if (this.lastFile?.number === id) return this.volume.content(this.lastFile);
    this.lastFile = this.file(id);
    return this.volume.content(this.lastFile);
  }

  private file(id: FileId): FileRecord {
    if (id >= STALE)
      throw corrupt(
        `${this.source.name}: a directory's entry refers to file record ${id - STALE}, which belongs to another file now or to none. The volume is damaged.`,
      );
    return this.volume.mft.file(id);
  }

  private find(directory: FileId, name: string): DirectoryEntry | undefined {
    return this.directories.find(directory, this.volume.index(this.file(directory), "$I30"), name);
  }

  /** A record that was freed, and perhaps used anew, has another sequence number than the entry. */
  private idOf(entry: DirectoryEntry): FileId {
    try {
      return this.file(entry.record).sequence === entry.sequence ? entry.record : entry.record + STALE;
    } catch (error) {
      if (error instanceof ImageError) return entry.record;
      throw error;
    }
  }

  /** Where the record can't be read, what the directory says: whoever asks more gets the error. */
  private kindOfEntry(entry: DirectoryEntry): Attributes["kind"] {
    try {
      return kindOf(this.volume, this.file(entry.record));
    } catch (error) {
      if (error instanceof ImageError) return (entry.flags & INDEX_PRESENT) !== 0 ? "directory" : "file";
      throw error;
    }
  }

  private parentOf(number: number): number {
    const file = this.file(number);
    let parent: number | undefined;
    for (const name of file.names()) if (parent === undefined || name.namespace !== DOS_NAME) parent ??= name.parent;
    if (parent === undefined) throw corrupt(`${file.label} has no name. The volume is damaged.`);
    return parent;
  }

  /** Of a directory, the size of its index. */
  private sizeOf(file: FileRecord): number {
    const attribute = file.isDirectory ? file.find(INDEX_ALLOCATION, "$I30") : file.find(DATA);
    return !attribute ? 0 : attribute.resident ? attribute.value.length : attribute.size;
  }

  private allocatedOf(file: FileRecord): number {
    const attribute = file.isDirectory
      ? file.find(INDEX_ALLOCATION, "$I30")
      : (file.find(DATA, wofStreamName) ?? file.find(DATA));
    if (!attribute) return 0;
    // A resident value takes room in its record. Not 0: tar would take such a file for one large hole.
    if (attribute.resident) return (attribute.value.length + 7) & ~7;
    return (attribute.flags & (COMPRESSION_MASK | SPARSE)) !== 0 ? attribute.stored : attribute.allocated;
  }

  private linkSize(id: FileId): number {
    try {
      return this.readLink(id).length;
    } catch (error) {
      // Reading it tells.
      if (error instanceof ImageError) return 0;
      throw error;
    }
  }

  private count(): Statistics {
    const { source, geometry, volume } = this;
    const blocks = Math.min(geometry.clusters, Math.ceil(source.size / geometry.clusterSize));
    const files = volume.mft.count;
    return {
      blockSize: geometry.clusterSize,
      blocks: geometry.clusters,
      // What can't be read isn't free.
      freeBlocks: countZeroBits(() => volume.content(this.file(BITMAP_FILE)), blocks),
      files,
      freeFiles: countZeroBits(() => volume.named(this.file(0), BITMAP, ""), files),
      nameLength: 255,
    };
  }

  private openSecurity(): SecurityDescriptors | undefined {
    const file = this.file(SECURE_FILE);
    const descriptors = this.volume.named(file, DATA, "$SDS");
    // Version 1 has no such file: each file has its own descriptor.
    if (!descriptors || !file.find(0x90, "$SII")) return undefined;
    return new SecurityDescriptors(file.label, this.volume.index(file, "$SII"), descriptors);
  }

  private readVolumeFile(): { label: string; version: string | undefined; dirty: boolean } {
    const file = this.file(VOLUME_FILE);
    const information = file.resident(VOLUME_INFORMATION)?.value;
    const known = information && information.length >= 12 ? information : undefined;
    return {
      label: file.resident(VOLUME_NAME)?.value.toString("utf16le") ?? "",
      version: known && `${known[8]}.${known[9]}`,
      dirty: known !== undefined && (known.readUInt16LE(10) & DIRTY) !== 0,
    };
  }

  /** The volume can be shown without these: what is lost is said. */
  private orWarn<T>(what: string, read: () => T): T | undefined {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      this.warnings.push(`${what}, can't be read: ${error.message}`);
      return undefined;
    }
  }
}
