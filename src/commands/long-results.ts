/** Results of any length: written while they are found, in blocks. */
import type { ByteString } from "../browsing/names.js";
import type { Terminal } from "./terminal.js";

/** Bytes gathered before they are written. */
const blockSize = 64 * 1024;

/** Writes all parts, until nobody reads any further: then it returns false. */
export async function writeParts(terminal: Terminal, parts: Iterable<ByteString>): Promise<boolean> {
  return await write(terminal, parts, "latin1");
}

/**
 * Writes one JSON document: an object with the list `key` of all items, a line each, and then what `rest` returns when
 * the last item was found.
 */
export async function writeJson(
  terminal: Terminal,
  key: string,
  items: Iterable<unknown>,
  rest: () => Record<string, unknown>,
): Promise<boolean> {
  function* parts() {
    yield `{\n  ${JSON.stringify(key)}: [`;
    let first = true;
    for (const item of items) {
      yield `${first ? "" : ","}\n    ${JSON.stringify(item)}`;
      first = false;
    }
    yield first ? "]" : "\n  ]";
    for (const [name, value] of Object.entries(rest()))
      if (value !== undefined) yield `,\n  ${JSON.stringify(name)}: ${JSON.stringify(value)}`;
    yield "\n}\n";
  }
  return await write(terminal, parts(), "utf8");
}

async function write(terminal: Terminal, parts: Iterable<string>, encoding: "latin1" | "utf8"): Promise<boolean> {
  let block: string[] = [];
  let size = 0;
  for (const part of parts) {
    block.push(part);
    size += part.length;
    if (size < blockSize) continue;
    if (!(await terminal.write(Buffer.from(block.join(""), encoding)))) return false;
    block = [];
    size = 0;
  }
  return size === 0 || (await terminal.write(Buffer.from(block.join(""), encoding)));
}
