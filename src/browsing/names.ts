/**
 * Names and paths are bytes. Here they are kept as strings of one character a byte (Node calls that `latin1`): small,
 * quick to join, and `<` sorts them by bytes.
 */

/** A name or a path, one character a byte. */
export type ByteString = string;

export const byteString = (bytes: Uint8Array): ByteString =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");

/** A word of the command line, which Node has read as UTF-8. */
export const byteStringOfText = (text: string): ByteString => Buffer.from(text, "utf8").toString("latin1");

export const bytesOf = (name: ByteString): Buffer => Buffer.from(name, "latin1");

const plain = /^[\x20-\x7e]*$/;

/** The name as text; bytes that aren't UTF-8 become U+FFFD. */
export const textOf = (name: ByteString): string => (plain.test(name) ? name : bytesOf(name).toString("utf8"));

/** For JSON: `path` as text, and as hexadecimal bytes too where the text doesn't tell them. */
export function told<Key extends string>(
  key: Key,
  name: ByteString,
): Record<Key, string> & Partial<Record<`${Key}Bytes`, string>> {
  const text = textOf(name);
  const exact = text === name || byteStringOfText(text) === name;
  return { [key]: text, ...(exact ? {} : { [`${key}Bytes`]: bytesOf(name).toString("hex") }) } as never;
}

/** Control characters and marks of writing direction, which could steer or mislead a terminal. */
const unsafe = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\\\ufffd]/;
/** One character of UTF-8, or a byte that belongs to none. */
const character = /[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}|[\s\S]/g;
const letters: Record<string, string> = {
  "\x07": "\\a",
  "\b": "\\b",
  "\t": "\\t",
  "\n": "\\n",
  "\v": "\\v",
  "\f": "\\f",
  "\r": "\\r",
  "\\": "\\\\",
};

/**
 * The name as a person may see it: as `ls -b` writes it, except that spaces stay. Bytes that are no UTF-8, control
 * characters and marks of writing direction become `\377`, `\n`; a backslash becomes two.
 */
export function escaped(name: ByteString): string {
  if (plain.test(name) && !name.includes("\\")) return name;
  return name.replace(character, (bytes) => {
    const text = bytesOf(bytes).toString("utf8");
    if (!unsafe.test(text)) return text;
    return letters[text] ?? bytes.replace(/[\s\S]/g, (byte) => `\\${byte.charCodeAt(0).toString(8).padStart(3, "0")}`);
  });
}

const escapes = /\\(?:x([0-9a-fA-F]{2})|([0-3][0-7]{2})|([abtnvfr\\ ]))/g;

/** What `escaped` wrote, back again; `\xff` is understood too. Anything else stays as it is. */
export function unescaped(name: ByteString): ByteString {
  return name.replace(escapes, (_, hex?: string, octal?: string, letter?: string) => {
    if (hex) return String.fromCharCode(Number.parseInt(hex, 16));
    if (octal) return String.fromCharCode(Number.parseInt(octal, 8));
    return Object.keys(letters).find((key) => letters[key] === `\\${letter}`) ?? letter!;
  });
}

/** The path of `name` in the folder `path`. */
export const joined = (path: ByteString, name: ByteString): ByteString =>
  path === "" || path.endsWith("/") ? path + name : `${path}/${name}`;
