import type { FileKind } from "../filesystems/filesystem.js";

/** Letters of `ls -l`. */
export const kindLetters: Readonly<Record<FileKind, string>> = {
  file: "-",
  directory: "d",
  symlink: "l",
  character: "c",
  block: "b",
  fifo: "p",
  socket: "s",
};

/** Kinds in words, as stat(1) has them. */
export const kindWords: Readonly<Record<FileKind, string>> = {
  file: "regular file",
  directory: "directory",
  symlink: "symbolic link",
  character: "character special file",
  block: "block special file",
  fifo: "fifo",
  socket: "socket",
};

/** S_IFMT bits of st_mode. */
export const kindBits: Readonly<Record<FileKind, number>> = {
  file: 0o100000,
  directory: 0o040000,
  symlink: 0o120000,
  character: 0o020000,
  block: 0o060000,
  fifo: 0o010000,
  socket: 0o140000,
};

/** `drwxr-xr-t`, as `ls -l` writes it. */
export function modeString(kind: FileKind, mode: number): string {
  const triple = (bits: number, special: boolean, letter: string) =>
    (bits & 4 ? "r" : "-") +
    (bits & 2 ? "w" : "-") +
    (special ? (bits & 1 ? letter : letter.toUpperCase()) : bits & 1 ? "x" : "-");
  return (
    kindLetters[kind] +
    triple(mode >> 6, (mode & 0o4000) !== 0, "s") +
    triple(mode >> 3, (mode & 0o2000) !== 0, "s") +
    triple(mode, (mode & 0o1000) !== 0, "t")
  );
}
