/**
 * What a program that reads the mount is told when something fails, and what the log is told. Both drivers share it:
 * a damaged image is an input/output error to the reader and one line to the person who has the image.
 */
import { constants } from "node:os";
import { ImageError } from "../errors.js";

const numbers = constants.errno;

/** Error numbers of this system, positive. */
export const errno = {
  ENOENT: numbers.ENOENT,
  EINTR: numbers.EINTR,
  EIO: numbers.EIO,
  ENXIO: numbers.ENXIO,
  ENOSPC: numbers.ENOSPC,
  EOPNOTSUPP: numbers.EOPNOTSUPP,
  E2BIG: numbers.E2BIG,
  EINVAL: numbers.EINVAL,
  EROFS: numbers.EROFS,
  ERANGE: numbers.ERANGE,
  ENAMETOOLONG: numbers.ENAMETOOLONG,
  ENOSYS: numbers.ENOSYS,
  ENODATA: numbers.ENODATA,
  ESTALE: numbers.ESTALE,
} as const;

/** What the system says of a full disk or quota, which whoever writes is to be told; everything else is EIO. */
const ofWriting = ["ENOSPC", "EDQUOT", "EFBIG"] as const;

/** The number, positive, that a program is told when its write failed with `error`. */
export function numberOf(error: unknown): number {
  const { code } = ((error as Error | undefined)?.cause ?? {}) as NodeJS.ErrnoException;
  const known = ofWriting.find((each) => each === code);
  return known ? numbers[known] : numbers.EIO;
}

/** Distinct messages a log takes before it goes quiet: a damaged disk can have a message for each of its chunks. */
const MOST_MESSAGES = 1000;

/**
 * Writes each distinct failure once: a reader that tries a damaged chunk a hundred times makes one line, not a hundred.
 * An ImageError is written as its sentence; anything else is a bug in Spindle and is written with its stack.
 */
export class FailureLog {
  private readonly written = new Set<string>();

  constructor(private readonly write: (line: string) => void) {}

  add(error: unknown): void {
    if (error instanceof ImageError) this.addLine(error.message);
    else {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      this.addLine(`unexpected failure (a bug in Spindle): ${text}`);
    }
  }

  /** As `add`, for a failure that is in words already: one that came from another thread. */
  addLine(line: string): void {
    if (this.written.has(line) || this.written.size > MOST_MESSAGES) return;
    this.written.add(line);
    if (this.written.size <= MOST_MESSAGES) this.write(line);
    else this.write(`more than ${MOST_MESSAGES} different failures; further ones are not logged`);
  }
}
