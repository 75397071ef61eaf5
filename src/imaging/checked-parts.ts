import type { OpenedLayers } from "../chain.js";
import type { Integrity } from "../layers/layer.js";

/** Something of a chain that may have checksums: a layer, or what one is wrapped in. */
export interface CheckedPart {
  readonly name: string;
  readonly format: string;
  readonly integrity?: Integrity;
  /** Whether it is a wrapping: damages are then ranges of the image within, not of the disk. */
  readonly wraps: boolean;
}

/** The layers, newest first, each after those of its wrappings that have checksums: the same list in every thread. */
export function checkedParts({ layers, wrappings }: Pick<OpenedLayers, "layers" | "wrappings">): CheckedPart[] {
  return layers.flatMap((layer, number) => [
    ...wrappings[number]!.filter(({ integrity }) => integrity).map((wrapping) => part(wrapping, true)),
    part(layer, false),
  ]);
}

const part = ({ name, format, integrity }: Omit<CheckedPart, "wraps">, wraps: boolean): CheckedPart => ({
  name,
  format,
  wraps,
  ...(integrity && { integrity }),
});
