/**
 * Folders of this machine that are written to, one within the other. A hostile image may have a symbolic link `a -> /etc`
 * and a file `a/passwd` beside it: here every name is created in an open folder, never by a path, and no symbolic link is
 * ever opened. Nothing is written outside the folder that was given.
 */
import { closeSync, constants, fstatSync } from "node:fs";
import { system } from "../errors.js";
import { failure, mkdirat, openat } from "../libc.js";
import { type ByteString, bytesOf, escaped } from "./names.js";

/** Folders that are kept open: deeper trees than there may be open files are walked with these. */
const mostOpen = 64;

const openFolder = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

interface Level {
  readonly name: ByteString;
  /** Undefined while it is closed, because too many are open beneath it. */
  fd: number | undefined;
  readonly identity: string;
}

export class TargetFolders {
  private readonly levels: Level[] = [];

  /** @param base an open folder, which stays open; what its name is stands in messages only */
  constructor(private readonly base: number) {}

  /** The folder that is being written to, open. */
  get fd(): number {
    return this.levels.at(-1)?.fd ?? this.base;
  }

  /** The names that lead to it from the base. */
  get path(): ByteString[] {
    return this.levels.map(({ name }) => name);
  }

  /**
   * Goes into the folder `name`, which is made where it isn't there.
   * @returns whether it was made
   * @throws Error as Node throws it: `EEXIST` or `ENOTDIR` where something else has this name, a symbolic link too
   */
  enter(name: ByteString): boolean {
    const bytes = bytesOf(name);
    const made = mkdirat(this.fd, bytes, 0o700) === 0;
    if (!made) {
      const error = failure("mkdirat");
      if (error.code !== "EEXIST") throw error;
    }
    const fd = openat(this.fd, bytes, openFolder);
    if (fd < 0) throw failure("openat");
    this.levels.push({ name, fd, identity: identityOf(fd) });
    const far = this.levels[this.levels.length - 1 - mostOpen];
    if (far?.fd !== undefined) {
      closeSync(far.fd);
      far.fd = undefined;
    }
    return made;
  }

  /** Goes back to the folder around. */
  leave(): void {
    const { fd, name } = this.levels.pop()!;
    const around = this.levels.at(-1);
    if (around && around.fd === undefined) {
      const up = openat(fd!, Buffer.from(".."), openFolder);
      if (up < 0) throw system(`going back from ${escaped(name)}`, failure("openat"));
      around.fd = up;
      if (identityOf(up) !== around.identity)
        throw system(`going back from ${escaped(name)}`, new Error("somebody moved the folder meanwhile"));
    }
    closeSync(fd!);
  }

  /** Lets `act` work in a folder by the names that lead to it from the base. @throws as `enter` */
  within<T>(path: readonly ByteString[], act: (fd: number) => T): T {
    let fd = this.base;
    try {
      for (const name of path) {
        const next = openat(fd, bytesOf(name), openFolder);
        if (next < 0) throw failure("openat");
        if (fd !== this.base) closeSync(fd);
        fd = next;
      }
      return act(fd);
    } finally {
      if (fd !== this.base) closeSync(fd);
    }
  }

  close(): void {
    for (const { fd } of this.levels.splice(0)) if (fd !== undefined) closeSync(fd);
  }
}

function identityOf(fd: number): string {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev} ${ino}`;
}
