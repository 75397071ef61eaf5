import type { OpenedLayers } from "../chain.js";
import { SpinLayer } from "../images/spin/reader.js";
import type { Layer } from "../layers/layer.js";

/**
 * The layers of a source that lie above `base` in its chain: what they leave absent is the base's, byte for byte, and need
 * not be read to know it. Undefined where the source isn't made over this base, or its disk has another size.
 */
export function layersAbove(source: OpenedLayers, base: SpinLayer): readonly Layer[] | undefined {
  const { id, contentRoot } = base.trailer;
  const at = source.layers.findIndex(
    (layer) =>
      layer instanceof SpinLayer && layer.trailer.id.equals(id) && layer.trailer.contentRoot.equals(contentRoot),
  );
  const above = source.layers.slice(0, at);
  return at > 0 && above.every((layer) => layer.size === base.size) ? above : undefined;
}

/** How many bytes from `position` on, up to `end`, all of `above` leave to what lies beneath. */
export function leftToBase(above: readonly Layer[], position: number, end: number): number {
  let at = position;
  while (at < end) {
    let length = end - at;
    for (const layer of above) {
      const run = layer.locate(at);
      if (run.kind !== "absent") return at - position;
      length = Math.min(length, run.length);
    }
    at += length;
  }
  return end - position;
}
