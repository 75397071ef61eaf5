/** What a command may say, and to whom: results on stdout, everything else on stderr. */
export interface Terminal {
  /** Whether `--json` was given: the result is then one JSON document on stdout and no progress bar is drawn. */
  readonly json: boolean;
  /** The command's result: `data` with `--json`, otherwise the words that `text` makes of it. Called once. */
  result<T>(data: T, text: (data: T) => string): void;
  /**
   * A part of a result of any length, straight to stdout: the names in it are as the image has them, unless `interactive`
   * asks for escaped ones. Resolves when there is room for more; false when nobody reads any further, and the command is
   * to stop quietly.
   * @throws ImageError `system` when stdout can't be written
   */
  write(part: string | Uint8Array): Promise<boolean>;
  /** Whether stdout is a terminal, which names from an image must not steer. */
  readonly interactive: boolean;
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
