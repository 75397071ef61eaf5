import { type ByteSource, readExactly, readFully } from "../bytes/byte-source.js";
import { MetadataPages } from "../bytes/metadata-pages.js";
import { changed, corrupt, mismatch, unsupported } from "../errors.js";
import type { Format } from "../format.js";
import type { Integrity, Layer, ParentReference, Run } from "../layers/layer.js";
import { type BlockEntry, BlockKind, BlockMap, type BlockTable } from "./block-map.js";
import { largestDisk, tablePage, u64le } from "./fields.js";
import { mapIntegrity } from "./map-check.js";

/**
 * VirtualBox's container: a header of 512 bytes, a map of 4-byte block numbers, blocks of usually 1 MiB. A differencing
 * image knows its parent by two ids, that of the image and that of its last change, and by no path.
 */
export const vdi: Format<Layer> = {
  name: "vdi",
  recognises(source) {
    const mark = Buffer.alloc(4);
    return readFully(source, 0x40, mark) === 4 && mark.readUInt32LE(0) === signature;
  },
  open: (source) => new VdiLayer(source),
};

const signature = 0xbeda107f;
const Type = { dynamic: 1, fixed: 2, undo: 3, differencing: 4 } as const;
const typeNames: Record<number, string> = { 1: "dynamic", 2: "fixed", 4: "differencing" };
/** In the map, for a block that isn't there: left to the parent, or discarded, which is zero whatever the parent has. */
const Block = { free: 0xffffffff, zero: 0xfffffffe } as const;
const noId = "00000000-0000-0000-0000-000000000000";

class VdiLayer implements Layer, BlockTable {
  readonly format = "vdi";
  readonly noun = "block";
  readonly size: number;
  readonly blockSize: number;
  readonly parent: ParentReference | undefined;
  /** Ids of the image and of its last change. */
  readonly id: string;
  readonly changeId: string;
  readonly facts: Record<string, unknown>;
  readonly integrity: Integrity;
  private readonly pages: MetadataPages;
  private readonly mapPosition: number;
  private readonly dataPosition: number;
  private readonly extra: number;
  private readonly map: BlockMap;

  constructor(readonly source: ByteSource) {
    const { name } = source;
    const header = readExactly(source, 0, 512, "the VDI header");
    const version = header.readUInt32LE(0x44);
    if (version >>> 16 !== 1)
      throw unsupported(`${name}: is a VDI of version ${version >>> 16}.${version & 0xffff}; Spindle reads version 1.`);
    const type = header.readUInt32LE(0x4c);
    if (typeNames[type] === undefined)
      throw unsupported(`${name}: is a VDI of ${type === Type.undo ? "the undo kind" : `an unknown kind, ${type}`}.`);
    this.mapPosition = header.readUInt32LE(0x154);
    this.dataPosition = header.readUInt32LE(0x158);
    // A disk of part of a sector ends with a whole one, as QEMU has it.
    this.size = Math.ceil(u64le(header, 0x170) / 512) * 512;
    this.blockSize = header.readUInt32LE(0x178);
    this.extra = header.readUInt32LE(0x17c);
    const blocks = header.readUInt32LE(0x180);
    if (this.blockSize < 512 || this.blockSize % 512 !== 0)
      throw corrupt(`${name}: byte 376 tells blocks of ${this.blockSize} bytes. The header is damaged.`);
    if (this.size > largestDisk || blocks < Math.ceil(this.size / this.blockSize))
      throw corrupt(`${name}: ${blocks} blocks don't hold a disk of ${this.size} bytes. The header is damaged.`);
    const needed = Math.ceil(this.size / this.blockSize) * 4;
    if (this.mapPosition < 0x180 || this.mapPosition + needed > source.size)
      throw corrupt(
        `${name}: its map of ${needed} bytes should be at byte ${this.mapPosition}, but the file has ${source.size} bytes. It is truncated or damaged.`,
      );
    this.id = idAt(header, 0x188);
    this.changeId = idAt(header, 0x198);
    const link = idAt(header, 0x1a8);
    const linkChange = idAt(header, 0x1b8);
    if (type === Type.differencing) {
      if (link === noId) throw corrupt(`${name}: is a differencing image that names no parent. The header is damaged.`);
      this.parent = this.reference(link, linkChange);
    } else if (link !== noId)
      throw corrupt(`${name}: is a whole image, but names a parent, ${link}. The header is damaged.`);
    this.pages = new MetadataPages(source, tablePage.size, tablePage.kept);
    this.map = new BlockMap(this);
    this.integrity = mapIntegrity({
      name,
      size: this.size,
      blockSize: this.blockSize,
      source,
      locate: (position) => this.locate(position),
      reserved: () => [
        { position: 0, length: 512, what: "the header" },
        { position: this.mapPosition, length: needed, what: "the block map" },
      ],
    });
    this.facts = {
      subformat: typeNames[type],
      version: `${version >>> 16}.${version & 0xffff}`,
      blockSize: this.blockSize,
      id: this.id,
      changeId: this.changeId,
      ...(this.parent && { parentId: link, parentChangeId: linkChange }),
    };
  }

  get name(): string {
    return this.source.name;
  }

  get hasParent(): boolean {
    return this.parent !== undefined;
  }

  locate(position: number): Run {
    return this.map.locate(position);
  }

  entry(block: number, target: BlockEntry): void {
    const number = this.pages.bytes(this.mapPosition + block * 4, 4, "the block map").readUInt32LE(0);
    if (number === Block.free) return;
    target.kind = number === Block.zero ? BlockKind.zero : BlockKind.stored;
    // A block's extra bytes, for which there never was a use, come before its data.
    target.position = this.dataPosition + number * (this.extra + this.blockSize) + this.extra;
  }

  private reference(id: string, change: string): ParentReference {
    return {
      paths: [],
      description: `the VDI with id ${id}`,
      check: (candidate) => {
        const remedy = "Name the right file with --parent PATH; nothing is served from a wrong parent.";
        if (!(candidate instanceof VdiLayer))
          throw mismatch(
            `${this.name}: its parent is the VDI with id ${id}, but ${candidate.name} is a ${candidate.format} image. ${remedy}`,
          );
        if (candidate.id !== id)
          throw mismatch(
            `${this.name}: ${candidate.name} is not the parent it was made from: it has id ${candidate.id}, recorded is ${id}. ${remedy}`,
          );
        if (change !== noId && candidate.changeId !== change)
          throw changed(
            `${this.name}: ${candidate.name} was changed after the differencing image was made: its last change is ${candidate.changeId}, recorded is ${change}. Restore it from a copy of that time; nothing is served from a wrong parent.`,
          );
      },
    };
  }
}

/** A UUID, its first three fields little-endian. */
function idAt(bytes: Buffer, at: number): string {
  const hex = (from: number, to: number) => bytes.toString("hex", at + from, at + to);
  const first = bytes.readUInt32LE(at).toString(16).padStart(8, "0");
  const [second, third] = [4, 6].map((from) =>
    bytes
      .readUInt16LE(at + from)
      .toString(16)
      .padStart(4, "0"),
  );
  return `${first}-${second}-${third}-${hex(8, 10)}-${hex(10, 16)}`;
}
