/** What a command may say, and to whom: results on stdout, everything else on stderr. */
export interface Terminal {
  /** Whether `--json` was given: the result is then one JSON document on stdout and no progress bar is drawn. */
  readonly json: boolean;
  /** The command's result: `data` with `--json`, otherwise the words that `text` makes of it. Called once. */
  result<T>(data: T, text: (data: T) => string): void;
  /** A line for the person at the terminal (stderr), not a result: what was found on the way, a warning. */
  note(line: string): void;
  /** A bar on stderr when that is a terminal and `--json` isn't given; silent otherwise. `total` in bytes if known. */
  progress(title: string, total: number | undefined): Progress;
  /** A failure that isn't thrown (the rest went on): sets the exit code at the end. */
  exitCode: number;
}

export interface Progress {
  /** Bytes done so far, and words to show behind the bar, for example the ratio. */
  update(done: number, words?: string): void;
  /** Removes the bar; idempotent. */
  stop(): void;
}
