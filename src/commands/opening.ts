/** What every command that opens an image lets the user say about it. */
import type { ImageSpec } from "../chain.js";
import { ImageError } from "../errors.js";
import type { Option } from "./command.js";
import { askPassword, mayAskPassword, readPassword } from "./password.js";

export interface OpeningArguments {
  parent?: string;
  snapshot?: string;
  disk?: string;
  format?: string;
  "password-file"?: string;
  "trust-paths"?: boolean;
}

export const openingOptions = {
  parent: { completes: "file", describe: "Where the base of the image is, when it was moved" },
  snapshot: { value: "NAME", describe: "A snapshot inside the image (qcow2), by name or id" },
  disk: {
    value: "NAME",
    describe: "Of an image that holds several disks (OVA, Clonezilla) this one, by its name there",
  },
  format: { value: "FORMAT", describe: "Take the image for this format, for example raw, whatever its content" },
  "password-file": {
    completes: "file",
    describe:
      "A file with the image's password, or its key file; otherwise SPINDLE_PASSWORD has it, or it is asked for",
  },
  "trust-paths": {
    type: "boolean",
    describe: "Follow an image that names parts or a raw base outside its own folder",
  },
} satisfies Record<string, Option>;

/**
 * Opens `image` as `given` says; `open` is called again with the password that was asked for, where the image turns out
 * to need one, nothing tells it, and somebody is at the terminal.
 */
export async function opening<T>(
  image: string,
  given: OpeningArguments,
  open: (spec: ImageSpec) => T | Promise<T>,
): Promise<T> {
  const spec: ImageSpec = {
    path: image,
    parent: given.parent,
    snapshot: given.snapshot,
    disk: given.disk,
    format: given.format,
    ...readPassword(given["password-file"]),
    trustPaths: given["trust-paths"],
  };
  try {
    return await open(spec);
  } catch (error) {
    const locked = error instanceof ImageError && error.code === "locked";
    if (!locked || spec.password !== undefined || !mayAskPassword()) throw error;
    return await open({ ...spec, password: await askPassword(image) });
  }
}
