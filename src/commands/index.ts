import type { Command } from "./command.js";

/** A row of the table of commands. */
export interface CommandEntry {
  /** The word after `spindle`. */
  readonly name: string;
  /** The same line as the command's own `summary`; kept here so that `spindle --help` loads no command. */
  readonly summary: string;
  /** Loads the command's file. Only the command that was asked for is loaded: starting stays quick. */
  load(): Promise<Command<never>>;
}

/** The commands in the order of the help: making images, using them, reading their files without a mount, looking after them, getting the disk back. */
export const commands: readonly CommandEntry[] = [
  {
    name: "create",
    summary: "Make an image of a disk",
    load: async () => (await import("./create.js")).create,
  },
  {
    name: "mount",
    summary: "Show an image as a drive",
    load: async () => (await import("./mount.js")).mount,
  },
  {
    name: "unmount",
    summary: "End a mount",
    load: async () => (await import("./unmount.js")).unmount,
  },
  {
    name: "list",
    summary: "List what is mounted",
    load: async () => (await import("./list.js")).list,
  },
  {
    name: "status",
    summary: "Tell how a mount goes",
    load: async () => (await import("./status.js")).status,
  },
  {
    name: "attach",
    summary: "Show an image as a block device with partitions",
    load: async () => (await import("./attach.js")).attach,
  },
  {
    name: "detach",
    summary: "Take away a block device that attach made",
    load: async () => (await import("./detach.js")).detach,
  },
  {
    name: "boot",
    summary: "Boot an image in a virtual machine",
    load: async () => (await import("./boot.js")).boot,
  },
  {
    name: "commit",
    summary: "Make an image of what was written to a mounted one",
    load: async () => (await import("./commit.js")).commit,
  },
  {
    name: "ls",
    summary: "List files of an image",
    load: async () => (await import("./ls.js")).ls,
  },
  {
    name: "tree",
    summary: "Draw the folders of an image",
    load: async () => (await import("./tree.js")).tree,
  },
  {
    name: "cat",
    summary: "Write files of an image to the standard output",
    load: async () => (await import("./cat.js")).cat,
  },
  {
    name: "cp",
    summary: "Copy files out of an image",
    load: async () => (await import("./cp.js")).cp,
  },
  {
    name: "find",
    summary: "Find files of an image",
    load: async () => (await import("./find.js")).find,
  },
  {
    name: "stat",
    summary: "Tell all that an image knows of a file",
    load: async () => (await import("./stat.js")).stat,
  },
  {
    name: "hash",
    summary: "Checksums of files of an image",
    load: async () => (await import("./hash.js")).hash,
  },
  {
    name: "info",
    summary: "Tell what an image holds",
    load: async () => (await import("./info.js")).info,
  },
  {
    name: "diff",
    summary: "Tell what differs between two images",
    load: async () => (await import("./diff.js")).diff,
  },
  {
    name: "merge",
    summary: "Make one image of a chain",
    load: async () => (await import("./merge.js")).merge,
  },
  {
    name: "verify",
    summary: "Check an image against its checksums",
    load: async () => (await import("./verify.js")).verify,
  },
  {
    name: "restore",
    summary: "Write an image back to a disk or a file",
    load: async () => (await import("./restore.js")).restore,
  },
  {
    name: "clone",
    summary: "Copy a disk as it is",
    load: async () => (await import("./clone.js")).clone,
  },
  {
    name: "completion",
    summary: "Print the completion for a shell",
    load: async () => (await import("./completion.js")).completion,
  },
];
