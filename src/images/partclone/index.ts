import type { ByteSource } from "../../bytes/byte-source.js";
import { StridedSource } from "../../bytes/strided.js";
import { corrupt } from "../../errors.js";
import type { Format } from "../../format.js";
import type { Integrity, Layer, Run } from "../../layers/layer.js";
import { LastRun } from "../last-run.js";
import { bitmapSize, type Header, isPartclone, readHeader } from "./header.js";
import { UsedBlocks } from "./used-blocks.js";
import { hasWideChecksums, partcloneIntegrity } from "./verify.js";

/** Images of partclone, which Clonezilla makes: the used blocks of one filesystem. The others read as zeros. */
export const partclone: Format<Layer> = {
  name: "partclone",
  recognises: isPartclone,
  open: (source) => new PartcloneLayer(source),
};

class PartcloneLayer implements Layer {
  readonly format = "partclone";
  readonly parent = undefined;
  readonly integrity: Integrity | undefined;
  private readonly header: Header;
  private readonly used: UsedBlocks;
  /** The used blocks end to end, without the checksums between them. */
  private readonly data: ByteSource;
  private readonly last = new LastRun();

  constructor(private readonly source: ByteSource) {
    let header = readHeader(source);
    this.used = new UsedBlocks(source, header);
    // A wrong bit would put every block behind it in the wrong place: it is looked for before anything is served.
    const damage = this.used.damage();
    if (damage) throw corrupt(damage);
    const start = header.bitmap.position + bitmapSize(header);
    if (hasWideChecksums(source, header, start)) header = { ...header, checksum: { ...header.checksum, size: 8 } };
    this.header = header;
    const { blockSize, blocks, checksum } = header;
    // Without checksums it is one strip of as many blocks as there can be.
    const perStrip = Math.min(checksum.blocks || blocks, blocks);
    const strip = blockSize * perStrip;
    const step = strip + checksum.size;
    const count = Math.ceil(blocks / perStrip);
    this.data = new StridedSource(source.name, source, { start, step, length: strip, count });
    this.integrity = partcloneIntegrity(source, header, this.used, start);
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
