/**
 * Names of the trees that have no Rock Ridge names, as Linux shows them by default: of the plain tree in lower case, and
 * both without the version `;1`.
 */
import { utf16ToBytes } from "../utf16.js";
import { jolietText } from "./descriptors.js";

const DOT = 0x2e;
const SEMICOLON = 0x3b;

/** `README.TXT;1` is shown as `readme.txt`, `FOLDER.;1` as `folder`; another version stays: `a.b;2` as `a.b.2`. */
export function plainName(stored: Buffer): Buffer {
  const { length } = stored;
  const name = Buffer.allocUnsafe(length);
  let end = 0;
  for (let at = 0; at < length; at++) {
    let byte = stored[at];
    if (byte === 0) break;
    const rest = length - at;
    if (rest === 3 && byte === DOT && stored[at + 1] === SEMICOLON && stored[at + 2] === 0x31) break;
    if (rest === 2 && byte === SEMICOLON && stored[at + 1] === 0x31) break;
    if (byte >= 0x41 && byte <= 0x5a) byte |= 0x20;
    // Slashes are in the names of some images from Acorn computers.
    else if (byte === SEMICOLON || byte === 0x2f) byte = DOT;
    name[end++] = byte;
  }
  return name.subarray(0, end);
}

/** Without `;1` and without dots at the end, which Windows does not like either. */
export function jolietName(stored: Buffer): Buffer {
  const name = jolietText(stored, 0, stored.length);
  return utf16ToBytes(name.replace(/(?<=.);1$/s, "").replace(/(?<=.)\.+$/s, ""));
}
