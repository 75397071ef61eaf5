import type { ByteSource } from "../bytes/byte-source.js";
import type { Format } from "../format.js";
import type { Layer, Run } from "../layers/layer.js";

/** A plain copy of a disk: every byte where it was. Its holes are those of the file. Any bytes can be one. */
export const raw: Format<Layer> = {
  name: "raw",
  recognises: () => true,
  open: (source) => new RawLayer(source),
};

class RawLayer implements Layer {
  readonly format = "raw";
  readonly parent = undefined;
  readonly facts = {};

  constructor(private readonly source: ByteSource) {}

  get name(): string {
    return this.source.name;
  }

  get size(): number {
    return this.source.size;
  }

  locate(position: number): Run {
    const extent = this.source.extentAt?.(position) ?? { hole: false, length: this.size - position };
    return extent.hole
      ? { kind: "zero", length: extent.length }
      : { kind: "stored", length: extent.length, source: this.source, at: position };
  }
}
