/** The thread that runs a pass, or follows another process that does: see builder.ts. */
import { workerData } from "node:worker_threads";
import { FileSource } from "../bytes/file.js";
import { type BuilderStart, lock, publishKept, unlock } from "./builder.js";
import { packings } from "./packings.js";
import { openParts } from "./parts.js";
import { RunningPass } from "./pass.js";
import type { Survey } from "./piece-table.js";
import { Progress } from "./progress.js";

/** Milliseconds between two looks at what the other process has written. */
const lookInterval = 50;

function work({ parts, packing, files, key }: BuilderStart, progress: Progress): void {
  const sources = parts.map(({ fd, path }) => FileSource.over(fd, path));
  const { file } = openParts(sources, packings.find(({ name }) => name === packing)!);
  let known: Survey | undefined;
  for (let locked = false; !locked; ) {
    locked = lock(files);
    // What is seen with the lock held is all there is.
    known = publishKept(files, key, progress, known);
    if (known.ending || progress.stopping) return;
    if (!locked) progress.wait(progress.moment, lookInterval);
  }
  const pass = new RunningPass(file, files, key, progress);
  if (pass.run(() => progress.stopping)) unlock(files);
  else pass.close();
}

const start = workerData as BuilderStart;
const progress = new Progress(start.progress);
try {
  work(start, progress);
} catch (error) {
  progress.fail(error);
} finally {
  progress.manned = false;
}
