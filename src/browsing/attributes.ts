import type { Attributes, Time } from "../filesystems/filesystem.js";

/** The last seconds that were asked for: files of a folder share them, and a calendar takes time. */
const known = new Map<number, string>();
const mostKnown = 1000;

/** `2024-01-31T10:00:00.123456789Z`; a time that no calendar has is `@SECONDS.NANOSECONDS`. */
export function isoTime({ seconds, nanoseconds }: Time): string {
  let whole = known.get(seconds);
  if (whole === undefined) {
    const date = new Date(seconds * 1000);
    whole = Number.isNaN(date.getTime()) ? `@${seconds}` : date.toISOString().replace(/\.\d+Z$/, "");
    if (known.size >= mostKnown) known.clear();
    known.set(seconds, whole);
  }
  return `${whole}.${String(nanoseconds).padStart(9, "0")}${whole.startsWith("@") ? "" : "Z"}`;
}

/** What a file's record tells, as JSON has it. Sizes in bytes; the mode in octal. */
export function attributesTold(attributes: Attributes) {
  const { kind, mode, inode, links, owner, group, size, allocated, device, accessed, modified, changed, born } =
    attributes;
  return {
    kind,
    mode: mode.toString(8).padStart(4, "0"),
    inode,
    links,
    owner,
    group,
    size,
    allocated,
    ...(device ? { device: { major: device.major, minor: device.minor } } : {}),
    accessed: isoTime(accessed),
    modified: isoTime(modified),
    changed: isoTime(changed),
    ...(born ? { born: isoTime(born) } : {}),
  };
}
