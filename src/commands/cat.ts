import { readSize, stretchesOf } from "../browsing/contents.js";
import { type ByteString, byteStringOfText, escaped, textOf } from "../browsing/names.js";
import type { ByteSource } from "../bytes/byte-source.js";
import { corrupt, usage } from "../errors.js";
import type { Command } from "./command.js";
import { contentAt } from "./file-contents.js";
import { type ImageArguments, imageOptions, imagePositional, pathsInWords, withFiles } from "./image-files.js";
import type { Terminal } from "./terminal.js";

interface Arguments extends ImageArguments {
  file: string[];
}

export const cat: Command<Arguments> = {
  syntax: "cat <image> <file..>",
  summary: "Write files of an image to the standard output",
  description:
    "Writes the content of files to the standard output, one after the other. FILE:STREAM is a further stream of a file, where the filesystem (NTFS) has them and no file has that very name. " +
    `At a damaged place the file ends with a message that says which bytes are damaged; what precedes them was written. With --json the content is text in the result, or base64 where it isn't UTF-8. ${pathsInWords}`,
  positionals: { image: imagePositional, file: { completes: "nothing", describe: "The files to write", array: true } },
  options: imageOptions,
  examples: [
    ["spindle cat disk.spin /etc/fstab", "One file"],
    ["spindle cat windows.spin 'download.exe:Zone.Identifier'", "An alternate data stream"],
    ["spindle cat disk.spin /var/log/syslog.1 | grep error", "Into a pipe"],
  ],

  async run(given, terminal) {
    await withFiles(given, terminal, async (tree, problems) => {
      const buffer = Buffer.allocUnsafe(readSize);
      const results: unknown[] = [];
      for (const path of given.file.map(byteStringOfText)) {
        const source = problems.try(path, () => contentAt(tree, path));
        if (!source) continue;
        if (terminal.json) {
          const content = problems.try(path, () => contentInMemory(source, path, buffer));
          if (content) results.push({ path: textOf(path), size: content.length, ...inJson(content) });
        } else if (!(await write(source, path, buffer, terminal, problems.add))) return;
      }
      if (terminal.json) terminal.result({ files: results, problems: problems.kept }, () => "");
    });
  },
};

const zeros = Buffer.alloc(readSize);

/** Returns false when nobody reads any further. */
async function write(
  source: ByteSource,
  path: ByteString,
  buffer: Uint8Array,
  terminal: Terminal,
  problem: (path: ByteString, error: ReturnType<typeof corrupt>) => void,
): Promise<boolean> {
  for (const stretch of stretchesOf(source, buffer)) {
    if (stretch.kind === "damage") {
      problem(path, damageAt(path, stretch.position, stretch.error.message));
      return true;
    }
    if (stretch.kind === "data") {
      if (!(await terminal.write(stretch.bytes))) return false;
      continue;
    }
    for (let done = 0; done < stretch.length; done += zeros.length)
      if (!(await terminal.write(zeros.subarray(0, stretch.length - done)))) return false;
  }
  return true;
}

const damageAt = (path: ByteString, position: number, why: string) =>
  corrupt(`${escaped(path)}: damaged at byte ${position}: ${why}`);

/** The most that `--json` takes of one file: more is no use in a document. */
const mostInMemory = 64 * 1024 * 1024;

function contentInMemory(source: ByteSource, path: ByteString, buffer: Uint8Array): Buffer {
  if (source.size > mostInMemory)
    throw usage(`${escaped(path)}: has ${source.size} bytes, too many for one document; leave out --json.`);
  const content = Buffer.alloc(source.size);
  for (const stretch of stretchesOf(source, buffer)) {
    if (stretch.kind === "damage") throw damageAt(path, stretch.position, stretch.error.message);
    if (stretch.kind === "data") content.set(stretch.bytes, stretch.position);
  }
  return content;
}

function inJson(content: Buffer): { text: string } | { base64: string } {
  const text = content.toString("utf8");
  return Buffer.from(text, "utf8").equals(content) ? { text } : { base64: content.toString("base64") };
}
