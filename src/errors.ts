/**
 * Every failure that a person can do something about is an ImageError: one sentence that says which file, which byte,
 * what is wrong and what to do. Anything else that is thrown is a bug in Spindle.
 */

export type ErrorCode =
  /** The bytes break their format or their checksum. */
  | "corrupt"
  /** A valid image that this version can't read. */
  | "unsupported"
  /** A file that is needed isn't there. */
  | "missing"
  /** The command was given something that can't be meant. */
  | "usage"
  /** A base or parent that is there, but isn't the one that was recorded. */
  | "mismatch"
  /** The device, mount or file is in use. */
  | "busy"
  /** The operating system refused: no space, no permission, a read error. */
  | "system"
  /** The image is encrypted, and no password was given or a wrong one. */
  | "locked";

/** Exit codes of the `spindle` command, by kind of failure. Listed in docs/exit-codes.md. */
export const exitCodes: Record<ErrorCode, number> = {
  usage: 2,
  missing: 3,
  unsupported: 4,
  corrupt: 5,
  mismatch: 6,
  busy: 7,
  system: 8,
  locked: 9,
};

export class ImageError extends Error {
  override readonly name = "ImageError";
  /** Of a `mismatch`: the file is the recorded base, but was changed since. */
  readonly changed: boolean;
  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: { cause?: unknown; changed?: boolean },
  ) {
    super(message, options);
    this.changed = options?.changed ?? false;
  }
}

export const corrupt = (message: string, cause?: unknown) => new ImageError("corrupt", message, { cause });
export const unsupported = (message: string) => new ImageError("unsupported", message);
export const missing = (message: string) => new ImageError("missing", message);
export const usage = (message: string) => new ImageError("usage", message);
export const mismatch = (message: string) => new ImageError("mismatch", message);
export const changed = (message: string) => new ImageError("mismatch", message, { changed: true });
export const locked = (message: string) => new ImageError("locked", message);
export const busy = (message: string) => new ImageError("busy", message);

const systemWords: Record<string, string> = {
  ENOENT: "no such file or folder",
  EACCES: "permission denied; run as a user who may access it",
  EPERM: "the system does not permit this; it may need root",
  ENOSPC: "no space is left on the device; free some or choose another place",
  EDQUOT: "the disk quota is used up",
  EIO: "the device reported an input/output error",
  EROFS: "the filesystem is read-only",
  EISDIR: "it is a folder, not a file",
  ENOTDIR: "a part of the path is not a folder",
  EFBIG: "the filesystem does not allow so large a file",
  EBUSY: "it is in use",
  EMFILE: "too many files are open; raise the limit with ulimit -n",
  ENXIO: "no such device",
  ENODEV: "no such device",
  ENOMEDIUM: "there is no medium in the drive",
};

/** The operating system's error in words: `doing` names the act and the file, for example `writing /b/disk.spin`. */
export function system(doing: string, error: unknown): ImageError {
  if (error instanceof ImageError) return error;
  const code = (error as NodeJS.ErrnoException)?.code ?? "";
  const words = systemWords[code];
  const text = words ? `${words} (${code})` : error instanceof Error ? error.message : String(error);
  return new ImageError(code === "ENOENT" ? "missing" : "system", `${doing}: ${text}`, { cause: error });
}
