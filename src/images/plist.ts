import { type ByteSource, readFully } from "../bytes/byte-source.js";
import { corrupt } from "../errors.js";

/*
 * Apple's property lists in XML (PropertyList-1.0.dtd): `<plist>` with one value, which is a dictionary, an array, a string,
 * a number, true, false, a date, or bytes in base64.
 *
 * A reader for this and not for all XML: a list may be hundreds of megabytes long (the tables of a large disk image are in
 * it), so it is read through a window, and of bytes only their place is kept. Entities other than XML's own five, which
 * could be made to expand without end, mean a refusal, and so do CDATA sections and a DTD of the file's own.
 */

export type PlistValue = string | number | boolean | PlistData | readonly PlistValue[] | PlistDictionary;
export type PlistDictionary = ReadonlyMap<string, PlistValue>;

/** Where in the file the base64 text of bytes is. */
export class PlistData {
  constructor(
    readonly position: number,
    readonly length: number,
  ) {}
}

const windowSize = 64 * 1024;
const deepest = 32;
/** Values of a list. The longest are licences in many languages, with some hundreds. */
const mostValues = 100_000;
/** Bytes of a string or number. */
const longestText = 64 * 1024;
/** Bytes of a tag with its attributes, or of a declaration. */
const longestTag = 1024;

/**
 * Reads the property list in the bytes from `position` to `position + length` of `source`.
 * @throws ImageError `corrupt` with the byte in `source` at which it is wrong.
 */
export function readPlist(source: ByteSource, position: number, length: number): PlistValue {
  return new Reader(source, position, position + length).list();
}

export const isDictionary = (value: PlistValue | undefined): value is PlistDictionary => value instanceof Map;

interface Tag {
  readonly name: string;
  readonly kind: "start" | "end" | "empty";
  /** Where it begins. */
  readonly at: number;
}

class Reader {
  private readonly window = Buffer.allocUnsafe(windowSize);
  private windowAt = 0;
  private windowLength = 0;
  private values = 0;

  constructor(
    private readonly source: ByteSource,
    /** Where the next byte is read. */
    private at: number,
    private readonly end: number,
  ) {}

  list(): PlistValue {
    if (this.follows("\xef\xbb\xbf")) this.at += 3;
    const start = this.tag();
    if (start.name !== "plist" || start.kind !== "start") throw this.wrong(start.at, "it doesn't begin with <plist>");
    const value = this.value(this.tag(), 0);
    const end = this.tag();
    if (end.name !== "plist" || end.kind !== "end") throw this.wrong(end.at, "it has more than one value");
    return value;
  }

  /** The value that begins with `tag`. */
  private value(tag: Tag, depth: number): PlistValue {
    if (depth > deepest) throw this.wrong(tag.at, `it has more than ${deepest} levels`);
    if (++this.values > mostValues) throw this.wrong(tag.at, `it has more than ${mostValues} values`);
    if (tag.kind === "end") throw this.wrong(tag.at, `</${tag.name}> ends what did not begin`);
    const isEmpty = tag.kind === "empty";
    switch (tag.name) {
      case "dict":
        return isEmpty ? new Map() : this.dictionary(depth);
      case "array":
        return isEmpty ? [] : this.array(depth);
      case "string":
      case "date":
      case "real":
        return isEmpty ? "" : this.text(tag);
      case "integer":
        return this.integer(tag);
      case "data":
        return isEmpty ? new PlistData(tag.at, 0) : this.data(tag);
      case "true":
      case "false":
        if (!isEmpty) this.close(tag);
        return tag.name === "true";
      default:
        throw this.wrong(tag.at, `<${tag.name}> is no value`);
    }
  }

  private dictionary(depth: number): PlistDictionary {
    const result = new Map<string, PlistValue>();
    for (;;) {
      const tag = this.tag();
      if (tag.kind === "end" && tag.name === "dict") return result;
      if (tag.name !== "key" || tag.kind === "end")
        throw this.wrong(tag.at, "a dictionary has something else than a key");
      const key = tag.kind === "empty" ? "" : this.text(tag);
      if (result.has(key)) throw this.wrong(tag.at, "a dictionary has a key twice");
      result.set(key, this.value(this.tag(), depth + 1));
    }
  }

  private array(depth: number): PlistValue[] {
    const result: PlistValue[] = [];
    for (;;) {
      const tag = this.tag();
      if (tag.kind === "end" && tag.name === "array") return result;
      result.push(this.value(tag, depth + 1));
    }
  }

  private integer(tag: Tag): number {
    const text = tag.kind === "empty" ? "" : this.text(tag).trim();
    const number = /^[+-]?(\d+|0[xX][0-9a-fA-F]+)$/.test(text) ? Number(text.replace("+", "")) : Number.NaN;
    if (!Number.isSafeInteger(number)) throw this.wrong(tag.at, "an integer is none, or too large");
    return number;
  }

  /** What is between `tag` and its end. */
  private text(tag: Tag): string {
    const start = this.at;
    const text = Buffer.from(this.characters(this.find("<", longestText)), "latin1").toString("utf8");
    this.close(tag);
    return text.replace(/&([^;]{0,10});?/g, (_, name: string) => this.entity(name, start));
  }

  private entity(name: string, at: number): string {
    const known: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };
    const code = /^#(\d+|x[0-9a-fA-F]+)$/.test(name) ? Number(`0${name.slice(1)}`) : -1;
    if (code > 0 && code <= 0x10ffff) return String.fromCodePoint(code);
    const text = Object.hasOwn(known, name) ? known[name] : undefined;
    if (text === undefined) throw this.wrong(at, "a text has an entity that isn't XML's own");
    return text;
  }

  private data(tag: Tag): PlistData {
    const start = this.at;
    this.at = this.find("<");
    const length = this.at - start;
    this.close(tag);
    return new PlistData(start, length);
  }

  private close(tag: Tag): void {
    const end = this.tag();
    if (end.kind !== "end" || end.name !== tag.name)
      throw this.wrong(end.at, `<${tag.name}> doesn't end where it should`);
  }

  /** The next tag; white space, comments and declarations before it are passed. */
  private tag(): Tag {
    for (;;) {
      while (this.at < this.end && [32, 9, 10, 13].includes(this.byte(this.at))) this.at++;
      const at = this.at;
      if (at >= this.end) throw this.wrong(at, "it ends early");
      if (this.byte(at) !== 0x3c) throw this.wrong(at, "a tag should begin here");
      if (this.follows("<!--")) this.at = this.find("-->") + 3;
      else if (this.follows("<?")) this.at = this.find("?>", longestTag) + 2;
      else if (this.follows("<!DOCTYPE")) {
        if (this.characters(this.find(">", longestTag)).includes("[")) throw this.wrong(at, "it has a DTD of its own");
        this.at++;
      } else {
        this.at++;
        const parts = /^(\/?)([A-Za-z]+)(\s[^<]*?)?(\/?)$/.exec(this.characters(this.find(">", longestTag)));
        if (!parts || (parts[1] && parts[4])) throw this.wrong(at, "a tag should be here");
        this.at++;
        return { name: parts[2]!, kind: parts[1] ? "end" : parts[4] ? "empty" : "start", at };
      }
    }
  }

  /** Where `text` begins next. @throws where it isn't among the next `most` bytes. */
  private find(text: string, most = Number.POSITIVE_INFINITY): number {
    const stop = Math.min(this.end, this.at + most);
    const first = text.charCodeAt(0);
    for (let at = this.at; at < stop; at++) {
      this.load(at);
      const index = this.window.subarray(0, this.windowLength).indexOf(first, at - this.windowAt);
      at = this.windowAt + (index < 0 ? this.windowLength - 1 : index);
      if (index >= 0 && at < stop && this.follows(text, at)) return at;
    }
    throw this.wrong(this.at, `what begins here has no end (${text})`);
  }

  /** Passes the bytes to `end`, and returns them, a character each. */
  private characters(end: number): string {
    const characters: string[] = [];
    for (; this.at < end; this.at++) characters.push(String.fromCharCode(this.byte(this.at)));
    return characters.join("");
  }

  private follows(text: string, at = this.at): boolean {
    if (at + text.length > this.end) return false;
    for (let index = 0; index < text.length; index++)
      if (this.byte(at + index) !== text.charCodeAt(index)) return false;
    return true;
  }

  private byte(at: number): number {
    if (at >= this.end) throw this.wrong(at, "it ends early");
    this.load(at);
    return this.window[at - this.windowAt]!;
  }

  private load(at: number): void {
    if (at >= this.windowAt && at < this.windowAt + this.windowLength) return;
    const length = Math.min(windowSize, this.end - at);
    this.windowAt = at;
    this.windowLength = readFully(this.source, at, this.window.subarray(0, length));
    if (this.windowLength !== length) throw this.wrong(at + this.windowLength, "the file ends early");
  }

  private wrong(at: number, what: string) {
    return corrupt(`${this.source.name}: the property list in it is damaged at byte ${at}: ${what}.`);
  }
}
