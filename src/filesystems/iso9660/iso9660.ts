/**
 * ISO 9660 (ECMA-119) with Rock Ridge, Joliet, multi-extent files, zisofs and El Torito.
 *
 *     16 sectors for others | volume descriptors | path tables | directories and files, in extents
 *
 * An image may show the same files in several trees. Rock Ridge's is used where there is one, because it keeps what POSIX
 * knows of a file; then Joliet's, which has long names in Unicode; then the plain one. `facts.tree` tells which.
 *
 * A directory's inode is the byte at which its extent begins, so that one moved elsewhere because of its depth (Rock Ridge
 * CL) has one however it is reached; any other file's is the byte of its first directory record. An id is twice that, and one
 * more for a directory. Names and times are as Linux
 * shows them by default: plain names in lower case without `;1`, hidden files listed, associated files (resource forks) not.
 * Where no Rock Ridge tells more, directories have mode 0755, files 0644, and both belong to whoever looks.
 *
 * Left out: High Sierra (1986), interleaved files (a clear refusal), the owners and permissions of extended attribute
 * records, which no writer fills, and the extended attributes and ACLs of libburnia's AL entries.
 */
import { LRUCache } from "lru-cache";
import type { ByteSource } from "../../bytes/byte-source.js";
import { ImageError, usage } from "../../errors.js";
import type { Format } from "../../format.js";
import type { Attributes, Entry, FileId, FileKind, FileSystem, Statistics } from "../filesystem.js";
import { isUsableNameBytes, type PlacedName, PlaceIndexes } from "../place-index.js";
import { Contents } from "./contents.js";
import { hasDescriptors, labelOf, readDescriptors, type VolumeDescriptor, volumeFacts } from "./descriptors.js";
import { readBootImages } from "./el-torito.js";
import { jolietName, plainName } from "./names.js";
import { ASSOCIATED, type DirectoryRecord, ownRecord, recordAt, records } from "./record.js";
import { kindOf, type RockRidge, readRockRidge } from "./rock-ridge.js";
import { findSessions } from "./sessions.js";
import { type Extensions, noExtensions, readExtensions } from "./system-use.js";
import { shortTime } from "./times.js";
import { SECTOR, Volume } from "./volume.js";
import { PackedContents, UnpackedBlocks } from "./zisofs.js";

const nothing: RockRidge = {};

const directoryId = (extent: number): FileId => extent * 2 + 1;
const fileId = (record: number): FileId => record * 2;
const isDirectoryId = (file: FileId) => file % 2 === 1;
const positionOf = (file: FileId) => Math.floor(file / 2);

class Iso9660FileSystem implements FileSystem {
  readonly type = "iso9660";
  readonly label: string;
  readonly root: FileId;
  readonly facts: Record<string, unknown>;
  readonly warnings: readonly string[];
  readonly statistics: Statistics;
  private readonly volume: Volume;
  private readonly rootPosition: number;
  private readonly tree: "Rock Ridge" | "Joliet" | "plain";
  private readonly extensions: Extensions;
  private readonly indexes: PlaceIndexes;
  private readonly contents = new LRUCache<FileId, Contents | PackedContents>({ max: 256 });
  private readonly unpacked = new UnpackedBlocks();
  private readonly owner = process.getuid?.() ?? 0;
  private readonly group = process.getgid?.() ?? 0;

  constructor(source: ByteSource, session: number) {
    const warnings: string[] = [];
    const descriptors = readDescriptors(source, session);
    const { primary, joliet, bootCatalog } = descriptors;
    const used = primary.bytes;
    this.volume = new Volume(source, primary.blockSize, used.readUInt16LE(124), used.readUInt16LE(120));
    this.extensions = this.readTree(primary, joliet === undefined, warnings);
    this.tree = this.extensions.rockRidge ? "Rock Ridge" : joliet ? "Joliet" : "plain";
    const tree = this.tree === "Joliet" ? joliet! : primary;
    // From here on the blocks of the descriptor that is used count.
    if (tree.blockSize !== primary.blockSize)
      this.volume = new Volume(source, tree.blockSize, used.readUInt16LE(124), used.readUInt16LE(120));
    this.rootPosition = tree.root;
    this.root = directoryId(tree.root);
    ownRecord(this.volume, tree.root);
    this.label = labelOf(descriptors);
    const end = (session * SECTOR) / primary.blockSize + primary.blocks;
    if (end * primary.blockSize > source.size)
      warnings.push(
        `The ISO 9660 volume has ${primary.blocks * primary.blockSize} bytes, of which the image has only ${source.size}: it is cut off.`,
      );
    const sessions = findSessions(source);
    if (session === 0 && sessions.length > 1)
      warnings.push(
        `The image holds ${sessions.length} sessions. The first is shown, as a loop mount shows it; a drive would show the last: --session ${sessions.length}.`,
      );
    const hasRockRidge = this.tree === "Rock Ridge";
    this.facts = {
      tree: this.tree,
      trees: ["plain", ...(hasRockRidge ? ["Rock Ridge"] : []), ...(joliet ? ["Joliet"] : [])],
      ...volumeFacts(primary),
      bootImages:
        bootCatalog === undefined ? undefined : readBootImages(source, bootCatalog, (what) => warnings.push(what)),
      sessions: sessions.length > 1 ? sessions.map((sector) => sector * SECTOR) : undefined,
    };
    this.warnings = warnings;
    this.statistics = {
      blockSize: primary.blockSize,
      blocks: primary.blocks,
      freeBlocks: 0,
      files: 0,
      freeFiles: 0,
      nameLength: 255,
    };
    this.indexes = new PlaceIndexes({
      names: (directory) => this.names(directory),
      nameAt: (directory, place) => {
        const record = recordAt(this.volume, positionOf(directory) + place);
        return record && this.placed(directory, record, this.rockRidgeOrNothing(record).extra);
      },
    });
  }

  /** Looks for Rock Ridge in the primary tree. A root that is damaged doesn't matter where Joliet has another. */
  private readTree({ root }: VolumeDescriptor, needed: boolean, warnings: string[]): Extensions {
    try {
      return readExtensions(this.volume, ownRecord(this.volume, root));
    } catch (error) {
      if (needed || !(error instanceof ImageError)) throw error;
      warnings.push(`The root directory of the primary tree is damaged; Joliet's is shown. ${error.message}`);
      return noExtensions;
    }
  }

  private rockRidge(record: DirectoryRecord): RockRidge {
    if (this.tree !== "Rock Ridge") return nothing;
    const { skip, rootSkip } = this.extensions;
    return readRockRidge(this.volume, record, record.position === this.rootPosition ? rootSkip : skip);
  }

  /** Where Rock Ridge's entries are damaged, a file is listed by its plain name, and the listing fails at its end. */
  private rockRidgeOrNothing(record: DirectoryRecord): { readonly extra: RockRidge; readonly error?: ImageError } {
    try {
      return { extra: this.rockRidge(record) };
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      return { extra: nothing, error };
    }
  }

  /** The record that tells of `file`: a directory's own one, or the first of any other file. */
  private record(file: FileId): DirectoryRecord {
    const position = positionOf(file);
    if (isDirectoryId(file)) return ownRecord(this.volume, position);
    const record = recordAt(this.volume, position);
    if (record?.dots !== 0) throw this.volume.corrupt(position, "a directory record should be here");
    return record;
  }

  private directory(file: FileId): DirectoryRecord {
    if (!isDirectoryId(file))
      throw usage(`${this.volume.name}: what lies at byte ${positionOf(file)} can't be listed as a directory.`);
    return ownRecord(this.volume, positionOf(file));
  }

  attributes(file: FileId): Attributes {
    const record = this.record(file);
    const extra = this.rockRidge(record);
    const recorded = shortTime(record.bytes, 18);
    const modified = extra.modified ?? recorded;
    const isDirectory = isDirectoryId(file);
    const kind = isDirectory ? "directory" : kindOf(extra);
    let size = 0;
    let allocated = 0;
    if (isDirectory) {
      size = record.size;
      allocated = Math.ceil(size / this.volume.blockSize) * this.volume.blockSize;
    } else if (kind === "symlink") size = extra.link?.size ?? 0;
    else if (kind === "file") {
      const contents = new Contents(this.volume, record);
      size = extra.packed?.size ?? contents.size;
      if (!Number.isSafeInteger(size))
        throw this.volume.corrupt(record.position, `a packed file says that it has ${size} bytes`);
      allocated = contents.allocated;
    }
    const { posix } = extra;
    return {
      kind,
      mode: posix ? posix.mode & 0o7777 : isDirectory ? 0o755 : 0o644,
      inode: this.inode(file, extra, isDirectory),
      links: Math.max(1, posix?.links ?? 1),
      owner: posix?.owner ?? this.owner,
      group: posix?.group ?? this.group,
      size,
      allocated,
      device: kind === "character" || kind === "block" ? (extra.device ?? { major: 0, minor: 0 }) : undefined,
      accessed: extra.accessed ?? modified,
      modified,
      changed: extra.changed ?? modified,
      born: extra.born,
    };
  }

  /**
   * Names of one file have the same serial number where Rock Ridge 1.12 tells one. Such numbers are set apart from the
   * positions of records, which the inodes of all other files are.
   */
  private inode(file: FileId, { posix }: RockRidge, isDirectory: boolean): number {
    const serial = posix?.serial;
    return serial && posix.links > 1 && !isDirectory ? SERIAL_BASE + serial : positionOf(file);
  }

  lookup(directory: FileId, name: Uint8Array): FileId | undefined {
    const found = this.indexes.find(directory, name);
    // A plain name is found as it is stored, too: other programs show it so.
    return found ?? (this.tree === "plain" ? this.indexes.find(directory, plainName(Buffer.from(name))) : undefined);
  }

  *list(directory: FileId): Iterable<Entry> {
    for (const { name, file, kind } of this.names(directory)) yield { name, file, kind };
  }

  private *names(directory: FileId): Generator<PlacedName & { readonly kind: FileKind }> {
    let before: DirectoryRecord | undefined;
    let damage: ImageError | undefined;
    for (const record of records(this.volume, positionOf(directory), this.directory(directory).size)) {
      const further = before?.continues && before.continuedBy(record);
      before = record;
      if (further || record.dots !== 0 || record.flags & ASSOCIATED) continue;
      const { extra, error } = this.rockRidgeOrNothing(record);
      damage ??= error;
      const placed = this.placed(directory, record, extra);
      if (placed) yield placed;
    }
    if (damage) throw damage;
  }

  /** Undefined for a record that isn't shown: of a directory that another record shows, or with a name that can't be. */
  private placed(directory: FileId, record: DirectoryRecord, extra: RockRidge) {
    if (extra.relocated) return undefined;
    const name = extra.name ?? (this.tree === "Joliet" ? jolietName(record.name) : plainName(record.name));
    if (!isUsableNameBytes(name)) return undefined;
    const place = record.position - positionOf(directory);
    if (extra.child !== undefined)
      return { place, name, file: directoryId(extra.child * this.volume.blockSize), kind: "directory" as const };
    return record.isDirectory
      ? { place, name, file: directoryId(record.extent), kind: "directory" as const }
      : { place, name, file: fileId(record.position), kind: kindOf(extra) };
  }

  read(file: FileId, position: number, target: Uint8Array): number {
    let contents = this.contents.get(file);
    if (!contents) {
      contents = this.open(file);
      this.contents.set(file, contents);
    }
    return contents.read(position, target);
  }

  private open(file: FileId): Contents | PackedContents {
    const record = this.record(file);
    const extra = this.rockRidge(record);
    if (isDirectoryId(file) || kindOf(extra) !== "file")
      throw usage(`${this.volume.name}: what lies at byte ${record.position} can't be read as a file.`);
    if (extra.sparse)
      throw this.volume.unsupported(
        record.position,
        "the file has holes in the way of Rock Ridge (SF), which isn't read",
      );
    const contents = new Contents(this.volume, record);
    return extra.packed ? new PackedContents(contents, extra.packed, this.unpacked) : contents;
  }

  readLink(link: FileId): Uint8Array {
    const record = this.record(link);
    const target = this.rockRidge(record).link;
    if (!target) throw usage(`${this.volume.name}: what lies at byte ${record.position} is no symbolic link.`);
    return target.target(this.volume, record);
  }
}

/** Above all positions of directory records: 2^32 blocks of 2 KiB, and extents of 4 GiB. */
const SERIAL_BASE = 2 ** 44;

export const iso9660: Format<FileSystem> = {
  name: "iso9660",
  recognises: (source) => hasDescriptors(source),
  open: (source, { options }) => openIso9660(source, sectorOfSession(source, options?.session ?? 1)),
};

/** @throws ImageError `usage` for a session that isn't there. */
function sectorOfSession(source: ByteSource, number: number): number {
  if (number === 1) return 0;
  const sessions = findSessions(source);
  const sector = sessions[number - 1];
  if (sector !== undefined) return sector;
  const has = sessions.length === 1 ? "only one session was" : `only ${sessions.length} sessions were`;
  throw usage(`${source.name}: ${has} found, and session ${number} is asked for.`);
}

/** @param session sector at which the session to show begins; `facts.sessions` tells those that were found, in bytes. */
export const openIso9660 = (source: ByteSource, session = 0): FileSystem => new Iso9660FileSystem(source, session);
