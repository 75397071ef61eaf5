import type { ByteSource } from "../../bytes/byte-source.js";
import { StridedSource } from "../../bytes/strided.js";
import { corrupt } from "../../errors.js";
import type { Integrity, Layer, Run } from "../../layers/layer.js";
import type { ImageFormat } from "../image-format.js";
import { LastRun } from "../last-run.js";
import { bitmapSize, type Header, isPartclone, readHeader } from "./header.js";
import { CheckedStrips, hasWideChecksums, Strips } from "./strips.js";
import { UsedBlocks } from "./used-blocks.js";
import { partcloneIntegrity } from "./verify.js";

/** The largest strip that is checked before one of its bytes is shown, in bytes: it takes some milliseconds. */
const quickStrip = 1 << 20;

/** Images of partclone, which Clonezilla makes: the used blocks of one filesystem. The others read as zeros. */
export const partclone: ImageFormat = {
  name: "partclone",
  recognises: isPartclone,
  lengthOf: (source) => layoutOf(source).length(),
  open: (source, { options }) => new PartcloneLayer(source, options?.copied === true),
};

/** What the start of an image tells of all of it. */
function layoutOf(source: ByteSource) {
  const told = readHeader(source);
  const used = new UsedBlocks(source, told);
  // A wrong bit would put every block behind it in the wrong place: it is looked for before anything is served.
  const damage = used.damage();
  if (damage) throw corrupt(damage);
  const start = told.bitmap.position + bitmapSize(told);
  const isWide = hasWideChecksums(source, told, start);
  const header: Header = isWide ? { ...told, checksum: { ...told.checksum, size: 8 } } : told;
  const { blockSize, blocks, checksum } = header;
  // Without checksums it is one strip of as many blocks as there can be.
  const perStrip = Math.min(checksum.blocks || blocks, blocks);
  /** Of the image, in bytes. */
  const length = () => start + used.count * blockSize + Math.ceil(used.count / perStrip) * checksum.size;
  return { header, used, start, perStrip, length };
}

class PartcloneLayer implements Layer {
  readonly format = "partclone";
  readonly parent = undefined;
  readonly integrity: Integrity | undefined;
  private readonly header: Header;
  private readonly used: UsedBlocks;
  /** The used blocks end to end, without the checksums between them. */
  private readonly data: ByteSource;
  private readonly last = new LastRun();
  /** Whether there are checksums that whoever copies the disk can't compare. */
  private readonly onlyVerified: boolean;

  /** @param copied whether larger strips than `quickStrip` are checked too when they are read */
  constructor(
    private readonly source: ByteSource,
    copied: boolean,
  ) {
    const { header, used, start, perStrip } = layoutOf(source);
    const { blockSize, blocks, checksum } = header;
    this.header = header;
    this.used = used;
    const strip = blockSize * perStrip;
    const step = strip + checksum.size;
    const count = Math.ceil(blocks / perStrip);
    const blocksOnly = new StridedSource(source.name, source, { start, step, length: strip, count });
    const strips = new Strips(source, header, used, start);
    const isChecked = strips.checkable === "alone" && (copied || strips.length <= quickStrip);
    this.data = isChecked ? new CheckedStrips(source.name, strips, blocksOnly) : blocksOnly;
    this.onlyVerified = strips.checkable === "in order";
    this.integrity = partcloneIntegrity(strips);
  }

  get name(): string {
    return this.source.name;
  }

  get size(): number {
    return this.header.size;
  }

  get facts(): Record<string, unknown> {
    const { version, writer, filesystem, blockSize, blocks, usedBlocks, checksum } = this.header;
    return {
      version,
      ...(writer && { writer: `partclone ${writer}` }),
      filesystem,
      blockSize,
      blocks,
      usedBlocks,
      checksums: checksum.kind,
      ...(checksum.blocks > 0 && { blocksPerChecksum: checksum.blocks }),
      ...(this.onlyVerified && { checksumsCompared: "by verify only" }),
    };
  }

  locate(position: number): Run {
    const known = this.last.from(position);
    if (known) return known;
    const { blockSize, blocks, size } = this.header;
    const block = Math.floor(position / blockSize);
    if (block >= blocks) return { kind: "zero", length: size - position };
    const { used, blocks: count } = this.used.stretch(block);
    const length = Math.min((block + count) * blockSize, size) - position;
    if (!used) return this.last.keep(position, { kind: "zero", length });
    const at = this.used.rank(block) * blockSize + (position - block * blockSize);
    return this.last.keep(position, { kind: "stored", length, source: this.data, at });
  }
}
