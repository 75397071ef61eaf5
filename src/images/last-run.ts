import type { Run } from "../layers/layer.js";

/** The run that was found last: reading on, or again nearby, then needs no table. */
export class LastRun {
  private start = 0;
  private end = 0;
  private run: Run = { kind: "zero", length: 0 };

  /** The rest of the last run from `position` on, if `position` is in it. */
  from(position: number): Run | undefined {
    if (position < this.start || position >= this.end) return undefined;
    const { run } = this;
    const length = this.end - position;
    if (run.kind !== "stored") return { kind: run.kind, length };
    return { kind: "stored", length, source: run.source, at: run.at + (position - this.start) };
  }

  /** Keeps the run at `position`, and returns it. */
  keep(position: number, run: Run): Run {
    this.start = position;
    this.end = position + run.length;
    this.run = run;
    return run;
  }
}
