import type { VolumeTable } from "../volumes/volume.js";
import { humanSize } from "./sizes.js";

/** One image file of a disk's chain. */
export interface ChainLink {
  /** Its path. */
  readonly file: string;
  readonly format: string;
  /** What the format tells beside that: plain JSON data. */
  readonly facts: Record<string, unknown>;
  /** What it is wrapped in, outermost first: an archive, a compression. */
  readonly wrappings?: readonly Omit<ChainLink, "wrappings">[];
}

/** A place where a filesystem may be, and what is there. */
export interface FoundPlace {
  /** Its folder in a mount: `p1`, or `disk` for a disk without partitions. */
  readonly name: string;
  /** Undefined where none was recognised, or it can't be opened. */
  readonly filesystem: FileSystemFacts | undefined;
  /** Of a place that is encrypted and was opened with the password. */
  readonly encryption?: EncryptionFacts;
  /** Why a filesystem that is there can't be opened. */
  readonly problem?: string;
  /** What is there that Spindle knows and doesn't read: its name as blkid has it, in words, and what it is called. */
  readonly unread?: { readonly type: string; readonly what: string; readonly label: string; readonly uuid: string };
}

/** What a place was encrypted with, as it was opened: plain JSON data. */
export interface EncryptionFacts {
  readonly name: string;
  readonly facts: Record<string, unknown>;
}

export interface FileSystemFacts {
  readonly type: string;
  readonly label: string;
  /** In bytes; undefined where the filesystem's own count is damaged. */
  readonly size: number | undefined;
  readonly free: number | undefined;
  /** What the format tells beside that: plain JSON data. */
  readonly facts: Record<string, unknown>;
  readonly warnings: readonly string[];
}

/** What `spindle info` finds out, as `--json` prints it. */
export interface InfoResult {
  /** As it was given. */
  readonly path: string;
  readonly format: string;
  /** Of the disk, in bytes. */
  readonly size: number;
  /** Newest first: the image itself, then what it builds on. */
  readonly chain: readonly ChainLink[];
  readonly volumes: VolumeTable;
  readonly filesystems: readonly FoundPlace[];
}

/** The result in words, aligned, without a newline at its end. */
export function infoText(info: InfoResult): string {
  const { chain, volumes } = info;
  const blocks = [
    aligned([
      ["Image", printable(info.path)],
      ["Format", printable(info.format)],
      ["Disk size", sizeInFull(info.size)],
      ["Partitions", tableInWords(volumes)],
    ]),
    ...chain.map((link, index) => chainText(link, index, chain.length)),
  ];
  const warnings = [...volumes.warnings, ...info.filesystems.flatMap(placeWarnings)];
  if (warnings.length > 0) blocks.push(warnings.map((line) => `Warning: ${printable(line)}`).join("\n"));
  if (volumes.volumes.length > 0) blocks.push(volumeText(volumes));
  for (const { name, filesystem, unread, encryption } of info.filesystems) {
    const place = volumes.volumes.length === 0 || name === "disk" ? "the whole disk" : name;
    if (encryption) blocks.push(encryptionText(place, encryption));
    if (filesystem) blocks.push(fileSystemText(place, filesystem));
    if (unread) blocks.push(unreadText(place, unread));
  }
  return blocks.join("\n\n");
}

function tableInWords({ scheme, id, sectorSize, volumes }: VolumeTable): string {
  if (scheme === "none") return "no partition table";
  const count = volumes.length === 1 ? "1 partition" : `${volumes.length} partitions`;
  return `${scheme.toUpperCase()}${id && ` ${id}`}, ${count}, sectors of ${sectorSize} bytes`;
}

function chainText(link: ChainLink, index: number, count: number): string {
  const place = count === 1 ? "" : index === 0 ? `Layer 1 of ${count}, newest: ` : `Layer ${index + 1} of ${count}: `;
  const around = (link.wrappings ?? []).flatMap((wrapping) => fileText("Within ", wrapping));
  return [...fileText(place, link), ...around].join("\n");
}

function fileText(before: string, { file, format, facts }: ChainLink): string[] {
  const rows = factRows(facts);
  return [`${before}${printable(file)} (${printable(format)})`, ...(rows.length > 0 ? [aligned(rows)] : [])];
}

const factRows = (facts: Record<string, unknown>) =>
  Object.entries(facts)
    .filter(([, value]) => value !== undefined && value !== null && value !== "")
    .flatMap(([name, value]) => factLines(name, value).map((line, index) => [index ? "" : `  ${inWords(name)}`, line]))
    .map(([name, line]): [string, string] => [name!, line!]);

/** A list of things with parts takes a line for each. */
function factLines(name: string, value: unknown): string[] {
  const isObject = (one: unknown) => typeof one === "object" && one !== null && !Array.isArray(one);
  if (!Array.isArray(value) || !value.some(isObject)) return [factText(name, value)];
  return value.map((one) =>
    isObject(one)
      ? Object.entries(one as Record<string, unknown>)
          .filter(([, part]) => part !== undefined)
          .map(([part, told]) => `${inWords(part)} ${factText(part, told)}`)
          .join(", ")
      : factText(name, one),
  );
}

const placeWarnings = ({ name, filesystem, problem }: FoundPlace) =>
  [...(problem === undefined ? [] : [problem]), ...(filesystem?.warnings ?? [])].map((line) => `${name}: ${line}`);

const encryptionText = (place: string, { name, facts }: EncryptionFacts) =>
  [`Encryption of ${place}: ${printable(name)}, opened`, aligned(factRows(facts))].join("\n");

function unreadText(place: string, { what, ...rest }: NonNullable<FoundPlace["unread"]>): string {
  return [`Not read on ${place}: ${what}`, aligned(factRows(rest))].join("\n");
}

function fileSystemText(place: string, { type, label, size, free, facts }: FileSystemFacts): string {
  const rows: [string, string][] = [];
  if (label) rows.push(["  label", printable(label)]);
  if (size !== undefined) rows.push(["  filesystem size", sizeInFull(size)]);
  if (size !== undefined && free !== undefined)
    rows.push(["  used", sizeInFull(size - free)], ["  free", sizeInFull(free)]);
  rows.push(...factRows(facts));
  const title = `Filesystem of ${place}: ${printable(type)}`;
  return [title, ...(rows.length > 0 ? [aligned(rows)] : [])].join("\n");
}

/** `contentRoot` is shown as `content root`. */
const inWords = (name: string) => printable(name.replace(/([a-z])([A-Z])/g, (_, a, b) => `${a} ${b.toLowerCase()}`));

function factText(name: string, value: unknown): string {
  if (typeof value === "number" && /size$/i.test(name)) return sizeInFull(value);
  if (Array.isArray(value) && value.every((one) => typeof one !== "object")) return printable(value.join(", "));
  return printable(typeof value === "object" ? JSON.stringify(value) : String(value));
}

function volumeText({ volumes, sectorSize }: VolumeTable): string {
  const rows = volumes.map((volume) => [
    String(volume.number),
    String(volume.position / sectorSize),
    String(volume.position),
    String(volume.size),
    humanSize(volume.size),
    printable(volume.type) + (volume.bootable ? ", bootable" : ""),
    printable(volume.label),
  ]);
  const head = ["Number", "Start sector", "Start byte", "Bytes", "Size", "Type", "Label"];
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]!.length)));
  return [head, ...rows]
    .map((row) =>
      row
        .map((cell, column) => (column < 5 ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

const sizeInFull = (bytes: number) =>
  bytes < 1024 ? `${bytes} bytes` : `${humanSize(bytes)} (${bytes.toLocaleString("en-US")} bytes)`;

export function aligned(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join("\n");
}

/**
 * Text from an image, safe to print: control characters could move the cursor or recolour the terminal, and marks of
 * writing direction could reorder what is read.
 */
export function printable(text: string): string {
  return text.replace(
    /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
