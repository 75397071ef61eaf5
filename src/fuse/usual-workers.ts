import { availableParallelism } from "node:os";
import { settings } from "../settings.js";

/** How many threads answer a mount's requests where nothing is said, by the machine's processors, or the container's. */
export function usualWorkers(processors = availableParallelism()): number {
  return Math.min(Math.max(processors, settings.leastUsualWorkers), settings.mostUsualWorkers);
}
