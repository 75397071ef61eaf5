import { totalmem } from "node:os";
import { settings } from "../settings.js";

const { share, least, most } = settings.mountCache;

/** Bytes for unpacked chunks where nothing is said, by the memory of the machine, or of the container. */
export function usualCacheBytes(): number {
  const memory = Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
  return Math.min(most, Math.max(least, Math.floor(memory * share)));
}
