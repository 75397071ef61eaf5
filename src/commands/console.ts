/**
 * The terminal that commands speak to: results on stdout, notes and a progress bar on stderr. The bar is drawn with
 * cli-progress, and only where somebody looks: on a terminal, without `--json`, and after a moment, so that a quick
 * command does not flash.
 */
import { fstatSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import type { SingleBar } from "cli-progress";
import { system } from "../errors.js";
import { humanSize } from "./sizes.js";
import type { Progress, Terminal } from "./terminal.js";

const require = createRequire(import.meta.url);

/** Milliseconds before a bar is first drawn. */
const patience = 300;
/** Milliseconds over which the throughput is taken: long enough to read calmly, short enough to follow a change. */
const throughputWindow = 5000;
/** Milliseconds between two samples of the throughput. */
const sampleInterval = 250;
/** Characters of the bar itself. */
const barWidth = 24;

/** A stream as a terminal uses it: `process.stdout`, or a test's. */
export interface Output {
  /** Calls `done`, where it is given, when there is room for more or writing failed. */
  write(text: string | Uint8Array, done?: (error?: Error | null) => void): unknown;
  /** Of an open file. */
  readonly fd?: number;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export interface TerminalOptions {
  readonly json: boolean;
  readonly stdout: Output;
  readonly stderr: Output;
}

/** A Terminal that must be closed, so that a command which failed leaves no bar behind. */
export interface Console extends Terminal {
  /** Removes a bar that is still drawn; idempotent. */
  close(): void;
}

export function createTerminal({ json, stdout, stderr }: TerminalOptions): Console {
  const bars = new Set<Bar>();
  const write = partWriter(stdout);
  return {
    json,
    interactive: stdout.isTTY === true,
    write(part) {
      for (const bar of bars) bar.hide();
      return write(part);
    },
    exitCode: 0,
    result(data, text) {
      for (const bar of bars) bar.hide();
      stdout.write(ended(json ? JSON.stringify(data, undefined, 2) : visible(text(data))));
    },
    note(line) {
      for (const bar of bars) bar.hide();
      stderr.write(ended(visible(line)));
    },
    progress(title, total) {
      if (json || !stderr.isTTY) return silent;
      const bar = new Bar(title, total, stderr, () => bars.delete(bar));
      bars.add(bar);
      return bar;
    },
    close() {
      for (const bar of bars) bar.stop();
    },
  };
}

/** Terminal.write for one stream. */
function partWriter(stdout: Output): Terminal["write"] {
  let closed = false;
  return async (part) => {
    if (closed) return false;
    try {
      if (isWrittenDirectly(stdout)) writeWhole(stdout.fd!, part);
      else
        await new Promise<void>((resolve, reject) => {
          stdout.write(part, (error) => (error ? reject(error) : resolve()));
        });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EPIPE") throw system("writing to the standard output", error);
      closed = true;
    }
    return !closed;
  };
}

function isWrittenDirectly({ fd, isTTY }: Output): boolean {
  if (fd === undefined || isTTY) return false;
  const stat = fstatSync(fd);
  return !stat.isFIFO() && !stat.isSocket();
}

/** Node's own stream for a file ignores that a disk which runs full takes only a part. */
function writeWhole(fd: number, part: string | Uint8Array): void {
  const bytes = typeof part === "string" ? Buffer.from(part) : part;
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done);
}

/** Text as whole lines; nothing stays nothing. */
const ended = (text: string) => (text === "" || text.endsWith("\n") ? text : `${text}\n`);

/** Control characters and marks of writing direction in letters: a label or a file name from an image must not steer the terminal. */
export function visible(text: string): string {
  return text.replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (character) => {
      const code = character.charCodeAt(0).toString(16);
      return code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`;
    },
  );
}

const silent: Progress = { update() {}, stop() {} };

class Bar implements Progress {
  private readonly begun = performance.now();
  private readonly rate = new Throughput();
  private drawn: SingleBar | undefined;
  private stopped = false;

  constructor(
    private readonly title: string,
    private readonly total: number | undefined,
    private readonly stream: Output,
    private readonly onStop: () => void,
  ) {}

  update(done: number, words = ""): void {
    const now = performance.now();
    if (this.stopped) return;
    this.rate.sample(now, done);
    if (!this.drawn) {
      if (now - this.begun < patience) return;
      this.drawn = this.create();
      this.drawn.start(this.total ?? 0, done, { words });
      return;
    }
    this.drawn.update(done, { words });
  }

  /** Gives the line free for other words; the next update draws the bar again. */
  hide(): void {
    this.drawn?.stop();
    this.drawn = undefined;
  }

  stop(): void {
    this.hide();
    this.stopped = true;
    this.onStop();
  }

  private create(): SingleBar {
    const { SingleBar } = require("cli-progress") as typeof import("cli-progress");
    return new SingleBar({
      stream: this.stream as NodeJS.WritableStream,
      format: (_options, { value }, { words }: { words: string }) =>
        progressLine({
          title: this.title,
          done: value,
          total: this.total,
          rate: this.rate.perSecond(performance.now(), value),
          words,
        }),
      clearOnComplete: true,
      // Long lines are cut by cli-progress itself; it would otherwise change a mode of the terminal.
      linewrap: true,
    });
  }
}

/** Bytes a second over the last few seconds. */
class Throughput {
  private readonly samples: { time: number; done: number }[] = [];

  /** `time` in milliseconds, `done` in bytes since the start. */
  sample(time: number, done: number): void {
    const last = this.samples.at(-1);
    if (last && time - last.time < sampleInterval) return;
    this.samples.push({ time, done });
    while (this.samples.length > 2 && time - this.samples[1]!.time > throughputWindow) this.samples.shift();
  }

  perSecond(time: number, done: number): number {
    const first = this.samples[0];
    if (!first || time <= first.time) return 0;
    return Math.max(0, ((done - first.done) * 1000) / (time - first.time));
  }
}

export interface ProgressState {
  readonly title: string;
  /** Bytes. */
  readonly done: number;
  /** Bytes; undefined where nobody knows. */
  readonly total: number | undefined;
  /** Bytes a second. */
  readonly rate: number;
  readonly words: string;
}

/** One line of progress: title, bar, share, sizes, throughput, time left, words. */
export function progressLine({ title, done, total, rate, words }: ProgressState): string {
  const parts: string[] = [];
  if (total === undefined) parts.push(`${title}  ${humanSize(done)}`);
  else {
    const share = total > 0 ? Math.min(1, done / total) : 1;
    const full = Math.round(share * barWidth);
    const bar = "#".repeat(full) + "-".repeat(barWidth - full);
    // Rounded down: 100% is said of what is complete.
    parts.push(`${title} [${bar}] ${Math.floor(share * 100)}%`, `${humanSize(done)} of ${humanSize(total)}`);
  }
  if (rate > 0) parts.push(`${humanSize(Math.round(rate))}/s`);
  if (rate > 0 && total !== undefined && done < total) parts.push(`${humanDuration((total - done) / rate)} left`);
  if (words) parts.push(words);
  return parts.join("  ");
}

/** Seconds for people: `8 s`, `2 min 05 s`, `3 h 20 min`. */
export function humanDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const minutes = Math.floor(whole / 60);
  if (minutes === 0) return `${whole} s`;
  if (minutes < 60) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}
