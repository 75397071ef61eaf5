import { createHash } from "node:crypto";
import { basename } from "node:path";
import { type ByteSource, readExactly, readFully } from "../../bytes/byte-source.js";
import type { PackedChunks } from "../../bytes/chunk-cache.js";
import { JoinedSource } from "../../bytes/joined.js";
import { unpackLzma } from "../../bytes/lzma.js";
import { unpackZlib } from "../../bytes/zlib.js";
import { corrupt, ImageError, missing, unsupported, usage } from "../../errors.js";
import type { Format, Surroundings } from "../../format.js";
import type { Damage, Integrity, Layer, PieceReport, Run } from "../../layers/layer.js";
import { type BlockEntry, BlockKind, BlockMap, type BlockTable } from "../block-map.js";
import { largestDisk, largestPacked } from "../fields.js";
import { AffContents, digests, signature } from "./segments.js";

/** The Advanced Forensic Format, version 3, of AFFLIB: one file, or the files of an AFD folder. */
export const aff: Format<Layer> = {
  name: "aff",
  recognises: isAff,
  open: (source, around) => new AffLayer(source, around),
};

function isAff(source: ByteSource): boolean {
  return source.size >= signature.length && readExactly(source, 0, signature.length, "the signature").equals(signature);
}

/** Arguments of a page: whether it is packed, and by what (afflib.h, `AF_PAGE_…`). */
const packedFlag = 1;
const methodMask = 0xf0;
const Method = { zlib: 0, lzma: 0x20, zero: 0x30 } as const;

/** Files that an AFD folder may have by AFFLIB's naming. */
const mostFiles = 1000;

class AffLayer implements Layer, BlockTable, PackedChunks {
  readonly format = "aff";
  readonly parent = undefined;
  readonly hasParent = false;
  readonly noun = "page";
  readonly name: string;
  readonly size: number;
  readonly chunkSize: number;
  readonly facts: Record<string, unknown>;
  readonly integrity: Integrity;
  readonly unpacked: ByteSource;
  /** All files, joined. */
  readonly source: JoinedSource;
  private readonly contents = new AffContents();
  private readonly map: BlockMap;
  /** A page as it is kept, and as it is unpacked where the disk ends within it. */
  private packed = Buffer.alloc(0);
  private whole: Uint8Array | undefined;

  constructor(file: ByteSource, around: Surroundings) {
    this.name = file.name;
    this.source = new JoinedSource(file.name);
    this.takeFiles(file, around);
    const { contents, name } = this;
    const { pageSize } = contents;
    if (pageSize < 512 || pageSize > largestPacked)
      throw corrupt(
        `${name}: tells of pages of ${pageSize} bytes; 512 to ${largestPacked} are possible. The file is damaged.`,
      );
    this.chunkSize = pageSize;
    this.size = this.diskSize();
    if (this.size === 0 || this.size > largestDisk)
      throw corrupt(`${name}: tells of a disk of ${this.size} bytes, which can't be. The file is damaged.`);
    this.facts = this.describe();
    this.unpacked = around.cache.source(this);
    this.map = new BlockMap(this);
    this.integrity = this.makeIntegrity();
  }

  get blockSize(): number {
    return this.chunkSize;
  }

  locate(position: number): Run {
    return this.map.locate(position);
  }

  entry(block: number, target: BlockEntry): void {
    const page = this.page(block);
    const needed = this.lengthOf(block);
    if ((page.argument & packedFlag) === 0) {
      if (page.length < needed) throw this.damaged(block, page.position, `it has only ${page.length} bytes`);
      target.kind = BlockKind.stored;
      target.position = page.position;
      return;
    }
    const method = page.argument & methodMask;
    if (method === Method.zero) {
      const zeros = page.length === 4 ? readExactly(this.source, page.position, 4, "a page").readUInt32BE(0) : 0;
      if (zeros < needed) throw this.damaged(block, page.position, `it tells of ${zeros} zeros only`);
      target.kind = BlockKind.zero;
      return;
    }
    if (method !== Method.zlib && method !== Method.lzma)
      throw this.damaged(block, page.position, `it is packed by method ${method >> 4}, which isn't in use`);
    target.kind = BlockKind.packed;
  }

  isStored(chunk: number): boolean {
    const found: BlockEntry = { kind: BlockKind.absent, position: 0 };
    this.entry(chunk, found);
    return found.kind === BlockKind.packed;
  }

  unpack(chunk: number, target: Uint8Array): void {
    const { position, length, argument } = this.page(chunk);
    try {
      // AFFLIB packs only what gets shorter by it.
      if (length > 2 * this.chunkSize) throw corrupt(`it takes ${length} bytes packed, which can't be`);
      if (this.packed.length < length) this.packed = Buffer.allocUnsafe(length);
      const packed = this.packed.subarray(0, length);
      if (readFully(this.source, position, packed) !== length) throw corrupt("the file ends within it");
      const unpack = (argument & methodMask) === Method.lzma ? unpackLzma : unpackZlib;
      const full = target.length === this.chunkSize;
      if (!full) this.whole ??= new Uint8Array(this.chunkSize);
      const into = full ? target : this.whole!;
      const got = unpack(packed, into);
      if (got < target.length) throw corrupt(`it unpacks to ${got} bytes instead of ${target.length}`);
      if (!full) target.set(into.subarray(0, target.length));
    } catch (error) {
      if (!(error instanceof ImageError) || error.code !== "corrupt") throw error;
      throw this.damaged(chunk, position, error.message, error);
    }
  }

  /** One file; or, beginning with `file_000.aff`, all that an AFD folder has. */
  private takeFiles(first: ByteSource, around: Surroundings): void {
    const { contents, source } = this;
    const own = /^file_(\d{3})\.aff$/.exec(basename(around.path))?.[1];
    if (own !== undefined && own !== "000" && companion(around, "file_000.aff"))
      throw usage(`${first.name}: is one of the files of an AFD folder. Open the first of them, file_000.aff.`);
    contents.take(first, source.add(first));
    if (own === "000")
      for (let number = 1; number < mostFiles; number++) {
        const file = companion(around, `file_${String(number).padStart(3, "0")}.aff`);
        if (!file) break;
        if (!isAff(file)) throw corrupt(`${file.name}: belongs to an AFD folder by its name, and is no AFF file.`);
        contents.take(file, source.add(file));
      }
    if (contents.values.get("aff_file_type")?.toString("latin1") === "AFM" || contents.pages.count === 0)
      throw unsupported(
        `${first.name}: holds no pages: it only tells of a disk that is in files beside it (AFM). Open those: as one file it is a raw disk.`,
      );
    // Of a folder whose last files are gone nothing would tell that the disk went on.
    if (source.count > 1 && !contents.values.has("imagesize"))
      throw missing(
        `${first.name}: none of the ${source.count} files of this AFD folder tells the disk's size, as the last does. Put the others, file_${String(source.count).padStart(3, "0")}.aff and on, beside them.`,
      );
    for (const list of [contents.pages, ...Object.values(contents.hashes)]) {
      const twice = list.sort();
      if (twice !== undefined)
        throw corrupt(`${first.name}: has page ${twice}, or a digest of it, twice. It is damaged.`);
    }
  }

  private page(number: number) {
    const page = this.contents.pages.find(number);
    if (page) return page;
    throw this.lost(number, this.contents.pages.next(number) ?? Number.POSITIVE_INFINITY);
  }

  private lost(from: number, to: number) {
    const start = from * this.chunkSize;
    const end = Math.min(to * this.chunkSize, this.size);
    return corrupt(
      `${this.name}: has no pages for disk bytes ${start} to ${end - 1}: the image was never finished, or is damaged. All else can be read.`,
    );
  }

  private damaged(page: number, at: number, what: string, cause?: unknown) {
    const start = page * this.chunkSize;
    const { part, position } = this.source.partAt(at);
    return corrupt(
      `${part.name}: page ${page} at byte ${position} is damaged, ${what}: bytes ${start} to ${start + this.lengthOf(page) - 1} of the disk are lost here. Restore the file from another copy; spindle verify lists all damage.`,
      cause,
    );
  }

  /** Bytes of the disk in a page. */
  private lengthOf(page: number): number {
    return Math.min(this.chunkSize, this.size - page * this.chunkSize);
  }

  /** As `imagesize` tells it, low half first; where an image was never finished, to its last page's end. */
  private diskSize(): number {
    const { values, pages } = this.contents;
    const told = values.get("imagesize");
    if (told?.length === 8) return told.readUInt32BE(4) * 2 ** 32 + told.readUInt32BE(0);
    const last = pages.highest!;
    const { position, length, argument } = pages.find(last)!;
    const before = last * this.chunkSize;
    if ((argument & packedFlag) === 0) return before + Math.min(length, this.chunkSize);
    const method = argument & methodMask;
    if (length > 2 * this.chunkSize) return before;
    const packed = readExactly(this.source, position, length, "the last page");
    if (method === Method.zero) return before + Math.min(length === 4 ? packed.readUInt32BE(0) : 0, this.chunkSize);
    return before + (method === Method.lzma ? unpackLzma : unpackZlib)(packed, new Uint8Array(this.chunkSize));
  }

  private describe(): Record<string, unknown> {
    const { values, sectorSize, pageSize } = this.contents;
    const text = (name: string) => values.get(name)?.toString("utf8").replace(/\0.*$/s, "").trim() || undefined;
    const hex = (name: string) => values.get(name)?.toString("hex") || undefined;
    const quad = values.get("badsectors");
    return {
      pageSize,
      ...(this.source.count > 1 && { files: this.source.count }),
      logicalSectorSize: sectorSize,
      software: text("afflib_version")?.replace(/^"?(.*?)"?$/, "AFFLIB $1"),
      ...(!values.has("imagesize") && { incomplete: "it doesn't tell the disk's size: it was never finished" }),
      caseNumber: text("case_num"),
      acquired: text("acquisition_date"),
      examiner: text("acquisition_technician"),
      notes: text("acquisition_notes"),
      device: text("acquisition_device"),
      manufacturer: text("device_manufacturer"),
      model: text("device_model"),
      serialNumber: text("device_sn"),
      imageId: hex("image_gid"),
      ...(quad?.length === 8 && quad.readUInt32BE(0) > 0 && { badSectors: quad.readUInt32BE(0) }),
      ...Object.fromEntries(digests.map((name) => [name, hex(name)])),
    };
  }

  /** A piece is a page: unpacked where it is packed, and compared with its digests where it has some. */
  private makeIntegrity(): Integrity {
    const { pages, hashes } = this.contents;
    const pieces = Math.ceil(this.size / this.chunkSize);
    const target = { kind: BlockKind.absent as number, position: 0 };
    let buffer: Buffer | undefined;

    const check = (piece: number): PieceReport => {
      const position = piece * this.chunkSize;
      const damages: Damage[] = [];
      const damage = (length: number, message: string) => damages.push({ file: this.name, position, length, message });
      if (!pages.find(piece)) {
        const next = Math.min(pages.next(piece) ?? pieces, pieces);
        damage(Math.min(next * this.chunkSize, this.size) - position, this.lost(piece, next).message);
        return { chunks: 0, bytes: 0, damages, pieces: next - piece };
      }
      const length = this.lengthOf(piece);
      const known = digests.filter((name) => hashes[name].find(piece));
      let bytes = 0;
      try {
        this.entry(piece, target);
        if (target.kind !== BlockKind.packed && known.length === 0) return { chunks: 0, bytes: 0, damages };
        buffer ??= Buffer.alloc(this.chunkSize);
        const page = buffer.subarray(0, length);
        bytes = length;
        if (target.kind === BlockKind.packed) this.unpack(piece, page);
        else if (target.kind === BlockKind.zero) page.fill(0);
        else readFully(this.source, target.position, page);
        for (const name of known) {
          const stored = hashes[name].find(piece)!;
          const digest = createHash(name).update(page).digest();
          const right =
            stored.length === digest.length
              ? readExactly(this.source, stored.position, digest.length, "a digest")
              : undefined;
          if (!right?.equals(digest))
            throw this.damaged(piece, pages.find(piece)!.position, `its ${name} is not the recorded one`);
        }
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
        damage(length, error.message);
      }
      return { chunks: 1, bytes, damages };
    };

    return { pieces, check };
  }
}

/** Another file of the folder, where it is there. */
function companion(around: Surroundings, name: string): ByteSource | undefined {
  try {
    return around.companion(name);
  } catch (error) {
    if (error instanceof ImageError && error.code === "missing") return undefined;
    throw error;
  }
}
