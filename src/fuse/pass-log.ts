/** Tells the log of a mount how a compressed image is gone through in the background. */
import type { PassState } from "../packed/index.js";

/** Milliseconds between two looks. */
const lookInterval = 1000;
/** A line for each such part of the file. */
const part = 0.1;

/**
 * Lines while passes are under way: after each tenth of the file, at the end, and what is found to be wrong. Says nothing of
 * what is done before the first look.
 * @returns ends it
 */
export function logPasses(passes: () => readonly PassState[], log: (line: string) => void): () => void {
  const pending = new Map<string, number>();
  for (const { path, state } of passes()) if (state === "under way") pending.set(path, 0);
  if (pending.size === 0) return () => {};
  const begun = performance.now();
  const timer = setInterval(() => {
    for (const { path, done, total, state, problem } of passes()) {
      const told = pending.get(path);
      if (told === undefined) continue;
      const seconds = ((performance.now() - begun) / 1000).toFixed(0);
      const parts = Math.floor(done / total / part);
      if (state === "under way") {
        if (parts > told)
          log(`${path}: gone through to ${Math.round(parts * part * 100)} % after ${seconds} s; reads beyond wait`);
        pending.set(path, Math.max(parts, told));
        continue;
      }
      log(problem ?? `${path}: gone through after ${seconds} s; any place in it is read at once now`);
      pending.delete(path);
    }
    if (pending.size === 0) clearInterval(timer);
  }, lookInterval);
  timer.unref();
  return () => clearInterval(timer);
}
