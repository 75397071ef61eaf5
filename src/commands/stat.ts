import { attributesTold } from "../browsing/attributes.js";
import { kindWords, modeString } from "../browsing/modes.js";
import { type ByteString, byteString, byteStringOfText, escaped, told } from "../browsing/names.js";
import { findPath } from "../browsing/paths.js";
import type { FileId, FileSystem, Time } from "../filesystems/filesystem.js";
import type { Command } from "./command.js";
import { type ImageArguments, imageOptions, imagePositional, pathsInWords, pathsOf, withFiles } from "./image-files.js";

interface Arguments extends ImageArguments {
  path?: string[];
}

export const stat: Command<Arguments> = {
  syntax: "stat <image> [path..]",
  summary: "Tell all that an image knows of a file",
  description: `Tells what the filesystem keeps of a file: kind, size, mode, owner, times to the nanosecond (in local time), holes, streams and extended attributes. Symbolic links are not followed at the end of a path, except with a slash behind them. ${pathsInWords}`,
  positionals: {
    image: imagePositional,
    path: { completes: "nothing", describe: "The files; the root by default", array: true },
  },
  options: imageOptions,
  examples: [
    ["spindle stat disk.spin /bin/ping", "With its capabilities, an extended attribute"],
    ["spindle stat --json disk.spin /etc/fstab | jq -r '.files[0].modified'", "One fact, for a script"],
  ],

  async run(given, terminal) {
    await withFiles(given, terminal, async (tree, problems) => {
      const files = pathsOf(given.path).flatMap((path) => {
        const one = problems.try(path, () => fileFacts(tree, findPath(tree, path, { follow: false }).file, path));
        return one ? [one] : [];
      });
      terminal.result({ filesystem: tree.type, files: files.map(({ json }) => json), problems: problems.kept }, () =>
        files.map(({ text }) => text).join("\n"),
      );
    });
  },
};

/** Extents that are counted; a hostile file claims any number. */
const mostExtents = 1_000_000;

function fileFacts(tree: FileSystem, file: FileId, path: ByteString) {
  const attributes = tree.attributes(file);
  const target = attributes.kind === "symlink" ? byteString(tree.readLink(file)) : undefined;
  const values = [...(tree.extendedAttributes?.(file) ?? [])];
  const streams = (tree.streams?.(file) ?? []).map((name) => ({
    ...told("name", byteString(name)),
    size: tree.stream?.(file, name)?.size ?? 0,
    shown: escaped(byteString(name)),
  }));
  const details = tree.details?.(file) ?? {};
  const layout = attributes.kind === "file" && tree.extentAt ? layoutOf(tree, file, attributes.size) : undefined;
  const json = {
    ...told("path", path),
    ...attributesTold(attributes),
    ...(target === undefined ? {} : told("target", target)),
    ...(layout ? { layout } : {}),
    ...(Object.keys(details).length > 0 ? { details } : {}),
    ...(streams.length > 0 ? { streams: streams.map(({ shown: _, ...stream }) => stream) } : {}),
    extendedAttributes: values.map(([name, value]) => ({ name, ...valueTold(value) })),
  };
  const { kind, mode, inode, links, owner, group, size, allocated, device, accessed, modified, changed, born } =
    attributes;
  const lines = [
    `  File: ${escaped(path)}${target === undefined ? "" : ` -> ${escaped(target)}`}`,
    `  Size: ${size}\tBlocks: ${Math.ceil(allocated / 512)}\t${kindWords[kind]}`,
    ` Inode: ${inode}\tLinks: ${links}${device ? `\tDevice type: ${device.major},${device.minor}` : ""}`,
    `Access: (${mode.toString(8).padStart(4, "0")}/${modeString(kind, mode)})\tUid: ${owner}\tGid: ${group}`,
    `Access: ${localTime(accessed)}`,
    `Modify: ${localTime(modified)}`,
    `Change: ${localTime(changed)}`,
    ` Birth: ${born ? localTime(born) : "-"}`,
    ...(layout ? [`Layout: ${layoutText(layout)}`] : []),
    ...Object.entries(details).map(([name, value]) => `${inWords(name).padStart(6)}: ${detailText(value)}`),
    ...streams.map(({ shown, size }) => `Stream: ${shown}\t${size} bytes`),
    ...values.map(([name, value]) => `  Attr: ${escaped(byteStringOfText(name))}=${valueText(value)}`),
  ];
  return { json, text: lines.join("\n") };
}

/** Where a file has data and where holes, in bytes. */
interface Layout {
  dataExtents: number;
  dataBytes: number;
  holes: number;
  holeBytes: number;
  /** Whether there are more extents than were counted. */
  truncated?: true;
}

function layoutOf(tree: FileSystem, file: FileId, size: number): Layout {
  const layout: Layout = { dataExtents: 0, dataBytes: 0, holes: 0, holeBytes: 0 };
  let last: boolean | undefined;
  for (let position = 0, count = 0; position < size; count++) {
    if (count === mostExtents) return { ...layout, truncated: true };
    const { hole, length } = tree.extentAt!(file, position);
    const within = Math.min(Math.max(1, length), size - position);
    if (hole) layout.holeBytes += within;
    else layout.dataBytes += within;
    if (hole !== last && hole) layout.holes++;
    if (hole !== last && !hole) layout.dataExtents++;
    last = hole;
    position += within;
  }
  return layout;
}

/** `ownerSid` is shown as `Owner SID`. */
function inWords(name: string): string {
  const words = name.replace(/([a-z])([A-Z])/g, (_, a, b) => `${a} ${b.toLowerCase()}`);
  return (words.slice(0, 1).toUpperCase() + words.slice(1)).replace(/\bsid$/, "SID");
}

const detailText = (value: unknown) =>
  escaped(byteStringOfText(Array.isArray(value) ? value.join(", ") || "none" : String(value)));

const layoutText = ({ dataExtents, dataBytes, holes, holeBytes, truncated }: Layout) =>
  `${dataBytes} bytes of data in ${dataExtents} ${dataExtents === 1 ? "stretch" : "stretches"}, ${holeBytes} bytes in ${holes} ${holes === 1 ? "hole" : "holes"}${truncated ? ", and more" : ""}`;

/** Text where the value is printable text, hexadecimal always. */
function valueTold(value: Uint8Array): { text?: string; hex: string } {
  const text = printableText(value);
  return { ...(text === undefined ? {} : { text }), hex: Buffer.from(value).toString("hex") };
}

/** Bytes of a value that are shown: `--json` has all. */
const shownBytes = 256;

function valueText(value: Uint8Array): string {
  const shown = value.subarray(0, shownBytes);
  const text = printableText(shown);
  const rest = value.length > shownBytes ? `… (${value.length} bytes)` : "";
  return (text === undefined ? `0x${Buffer.from(shown).toString("hex")}` : JSON.stringify(text)) + rest;
}

function printableText(value: Uint8Array): string | undefined {
  const text = Buffer.from(value).toString("utf8");
  return Buffer.from(text).equals(value) && !/[\p{C}\u2028\u2029]/u.test(text) ? text : undefined;
}

/** `2024-01-31 10:00:00.123456789 +0100`, as stat(1) writes it. */
function localTime({ seconds, nanoseconds }: Time): string {
  const fraction = String(nanoseconds).padStart(9, "0");
  const date = new Date(seconds * 1000);
  if (Number.isNaN(date.getTime())) return `@${seconds}.${fraction}`;
  const two = (value: number) => String(value).padStart(2, "0");
  const offset = -date.getTimezoneOffset();
  const zone = `${offset < 0 ? "-" : "+"}${two(Math.floor(Math.abs(offset) / 60))}${two(Math.abs(offset) % 60)}`;
  return `${String(date.getFullYear()).padStart(4, "0")}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${fraction} ${zone}`;
}
