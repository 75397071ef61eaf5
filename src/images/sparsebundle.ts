import { type ByteSource, readFully } from "../bytes/byte-source.js";
import { corrupt, ImageError, unsupported } from "../errors.js";
import type { Surroundings } from "../format.js";
import type { Layer, Run } from "../layers/layer.js";
import { largestDisk } from "./fields.js";
import type { ImageFormat } from "./image-format.js";
import { isDictionary, readPlist } from "./plist.js";

/*
 * Apple's sparse bundles (.sparsebundle, UDSB): a folder with the disk cut into files.
 *
 *   Info.plist     a property list: size of the disk, size of a band, in bytes
 *   bands/HEX      the bands by number, without leading zeros. One that isn't there, and what one is short of, is zeros
 *   token          what the bands are encrypted with, or empty
 *
 * The image is the folder; the file that is opened is its Info.plist (chain.ts).
 */
export const sparsebundle: ImageFormat = {
  name: "sparsebundle",
  isFolder: true,
  fileOf: (names) => (names.has("Info.plist") && names.has("bands") ? "Info.plist" : undefined),
  recognises(source) {
    if (source.size > longestList) return false;
    const start = Buffer.alloc(Math.min(source.size, 2048));
    readFully(source, 0, start);
    const text = start.toString("latin1");
    return text.includes("<plist") && text.includes(bundleType);
  },
  open: (source, around) => new SparseBundleLayer(source, around),
};

const bundleType = "com.apple.diskimage.sparsebundle";
const longestList = 64 * 1024;
/** Bands of a disk, whether they are there or not: a look for each. With hdiutil's 8 MiB these are 8 TiB. */
const mostBands = 2 ** 20;

class SparseBundleLayer implements Layer {
  readonly format = "sparsebundle";
  readonly parent = undefined;
  readonly size: number;
  readonly facts: Record<string, unknown>;
  private readonly bandSize: number;
  /** The bands that are there, in ascending order, with their numbers. */
  private readonly numbers: number[] = [];
  private readonly bands: ByteSource[] = [];

  constructor(
    private readonly list: ByteSource,
    around: Surroundings,
  ) {
    const { name } = list;
    const values = readPlist(list, 0, Math.min(list.size, longestList));
    const number = (key: string): number => {
      const value = isDictionary(values) ? values.get(key) : undefined;
      const found = typeof value === "string" && /^\d+$/.test(value) ? Number(value) : value;
      if (typeof found !== "number" || found < 0 || found > largestDisk)
        throw corrupt(`${name}: tells no ${key} that can be. The file is damaged.`);
      return found;
    };
    this.size = number("size");
    this.bandSize = number("band-size");
    if (this.bandSize < 512)
      throw corrupt(`${name}: tells of bands of ${this.bandSize} bytes, which is too few. The file is damaged.`);
    const count = Math.ceil(this.size / this.bandSize);
    if (count > mostBands)
      throw unsupported(
        `${name}: is a disk of ${this.size} bytes in bands of ${this.bandSize}, which are more than ${mostBands}.`,
      );
    checkToken(name, around);
    for (let band = 0; band < count; band++) {
      const source = companion(around, `bands/${band.toString(16)}`);
      if (!source || source.size === 0) continue;
      this.numbers.push(band);
      this.bands.push(source);
    }
    this.facts = { bandSize: this.bandSize, bands: this.bands.length };
  }

  get name(): string {
    return this.list.name;
  }

  locate(position: number): Run {
    const { bandSize, numbers, size } = this;
    const band = Math.floor(position / bandSize);
    const index = this.indexFrom(band);
    if (numbers[index] !== band) {
      const next = numbers[index];
      return { kind: "zero", length: (next === undefined ? size : next * bandSize) - position };
    }
    const source = this.bands[index]!;
    const at = position - band * bandSize;
    const rest = Math.min(bandSize - at, size - position);
    if (at >= source.size) return { kind: "zero", length: rest };
    const extent = source.extentAt?.(at) ?? { hole: false, length: source.size - at };
    const length = Math.min(extent.length, source.size - at, rest);
    return extent.hole ? { kind: "zero", length } : { kind: "stored", length, source, at };
  }

  /** Index of the first band that is there from `band` on. */
  private indexFrom(band: number): number {
    let low = 0;
    for (let high = this.numbers.length; low < high; ) {
      const middle = (low + high) >> 1;
      if (this.numbers[middle]! < band) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Another file of the bundle; undefined where it isn't there. */
function companion(around: Surroundings, path: string): ByteSource | undefined {
  try {
    return around.companion(path);
  } catch (error) {
    if (error instanceof ImageError && error.code === "missing") return undefined;
    throw error;
  }
}

function checkToken(name: string, around: Surroundings): void {
  const token = companion(around, "token");
  const mark = Buffer.alloc(8);
  if (token && readFully(token, 0, mark) === 8 && mark.toString("latin1") === "encrcdsa")
    throw unsupported(
      `${name}: is of an encrypted sparse bundle, which this Spindle does not read. Decrypt it first with hdiutil convert.`,
    );
}
