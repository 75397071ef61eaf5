/** Where the password of an encrypted image comes from: never from the command line, which every user's `ps` shows. */
import { closeSync, constants, openSync, readSync } from "node:fs";
import type { ImageSpec } from "../chain.js";
import { system, usage } from "../errors.js";

/** Bytes of the longest password: key files are long. */
const longest = 8 * 1024 * 1024;

/**
 * The password of `file`, or else of the variable SPINDLE_PASSWORD. A newline at the end of a file is not part of it,
 * since editors and `echo` leave one there; `passwordInFull` is the same with it, since a key file is all of its bytes.
 *
 * @param file `-` is the standard input.
 */
export function readPassword(file: string | undefined): Pick<ImageSpec, "password" | "passwordInFull"> {
  if (file === undefined) {
    const { SPINDLE_PASSWORD: text } = process.env;
    // Empty it is as good as not there: that is how a shell takes a variable away for one command.
    return text ? { password: new TextEncoder().encode(text) } : {};
  }
  const bytes = readFile(file);
  const end = bytes.at(-1) === 10 ? (bytes.at(-2) === 13 ? 2 : 1) : 0;
  return { password: bytes.slice(0, bytes.length - end), ...(end > 0 && { passwordInFull: bytes }) };
}

function readFile(file: string): Uint8Array {
  let fd: number | undefined;
  try {
    // A pipe or /dev/fd/3 is as good as a file here.
    fd = file === "-" ? 0 : openSync(file, constants.O_RDONLY);
    const buffer = new Uint8Array(longest + 1);
    let filled = 0;
    for (let got = -1; got !== 0; filled += got) got = readSync(fd, buffer, filled, buffer.length - filled, null);
    if (filled > longest) throw usage(`--password-file ${file}: has more than ${longest} bytes; that is no password.`);
    return buffer.slice(0, filled);
  } catch (error) {
    throw system(`reading --password-file ${file}`, error);
  } finally {
    if (fd !== undefined && fd !== 0) closeSync(fd);
  }
}

export const mayAskPassword = () => process.stdin.isTTY === true && process.stderr.isTTY === true;

/** Asks at the terminal, without showing what is typed. */
export async function askPassword(image: string): Promise<Uint8Array> {
  const { stdin, stderr } = process;
  stderr.write(`Password of ${image}: `);
  stdin.setRawMode(true);
  const typed: number[] = [];
  try {
    for await (const part of stdin)
      for (const byte of part as Buffer) {
        if (byte === 10 || byte === 13) return Uint8Array.from(typed);
        if (byte === 3 || (byte === 4 && typed.length === 0)) throw usage("no password was given.");
        if (byte === 127 || byte === 8) eraseLast(typed);
        else if (byte === 21) typed.length = 0;
        else typed.push(byte);
      }
    throw usage("no password was given.");
  } finally {
    stdin.setRawMode(false);
    stderr.write("\n");
    stdin.destroy(); // nobody else reads it, and it would keep the process
  }
}

/** Takes away the last letter: bytes of UTF-8 that only continue one, and the one before them. */
function eraseLast(typed: number[]): void {
  while (((typed.pop() ?? 0) & 0xc0) === 0x80);
}
