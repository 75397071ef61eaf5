/**
 * The files of a split one, told by their names. This is the one place where Spindle goes by names: the parts of a raw
 * disk, as split(1), dd and imaging tools cut it, have no signature and no index, so that nothing else tells them.
 *
 *   disk.001 disk.002 …                       from 0 or 1 on, with as many digits as the first has
 *   disk.raw.part1 disk.raw.part2 …           one digit is enough after "part"
 *   disk.aa disk.ab …   disk.raw.partaa …     split(1); it goes on behind yz with zaaa, and behind 89 with 9000
 *   xaa xab …                                 split(1) without a prefix
 *
 * A name is that of a part only among others: a file whose name merely ends so, in a year for example, is left alone.
 */

export type Split =
  /** All parts in order; the file that was named is the first. */
  | { readonly kind: "first"; readonly parts: readonly string[] }
  /** The file that was named is a part, but not the first. */
  | { readonly kind: "later"; readonly first: string }
  /** A part isn't there; `other` is one that is there and isn't the one that was named. */
  | { readonly kind: "gap"; readonly missing: string; readonly other: string };

/** A way to number: all that follows is about suffixes. */
interface Numbering {
  /** A name in two: what parts have in common, and the suffix. */
  readonly name: RegExp;
  readonly suffix: RegExp;
  /** What the first part may have, in `width` characters. */
  starts(width: number): readonly string[];
  /** `value` in at least `width` characters. */
  text(value: number, width: number): string;
  value(suffix: string): number;
  /** The last character of the alphabet, the one before it, and the first: where split(1) makes suffixes longer. */
  readonly ends: readonly [last: string, before: string, first: string];
  /** How far behind a gap a file is still taken for a part: `disk.xz` beside `disk.aa` is none. */
  readonly near: number;
}

const digits: Numbering = {
  name: /^(x(?=\d\d)|.*\.(?=\d\d)|.*part[._-]?)(\d{1,10})$/is,
  suffix: /^\d{1,10}$/,
  starts: (width) => ["0".padStart(width, "0"), "1".padStart(width, "0")],
  text: (value, width) => String(value).padStart(width, "0"),
  value: Number,
  ends: ["9", "8", "0"],
  near: 100,
};

const letters: Numbering = {
  name: /^(x|.*part[._-]?|.*\.)([a-z]{2,10})$/s,
  suffix: /^[a-z]{2,10}$/,
  starts: (width) => ["a".repeat(width)],
  text(value, width) {
    let text = "";
    for (let rest = value; text.length < width || rest > 0; rest = Math.floor(rest / 26))
      text = String.fromCharCode(97 + (rest % 26)) + text;
    return text;
  },
  value: (suffix) => [...suffix].reduce((value, letter) => value * 26 + letter.charCodeAt(0) - 97, 0),
  ends: ["z", "y", "a"],
  near: 26,
};

/**
 * What the file `name` is a part of, judged by the names in its folder.
 * @param folder is asked for those names only where `name` can be a part's
 * @returns undefined for a file that is no part of several
 */
export function splitOf(name: string, folder: () => readonly string[]): Split | undefined {
  for (const numbering of [digits, letters]) {
    const [, prefix, suffix] = numbering.name.exec(name) ?? [];
    if (prefix === undefined || suffix === undefined) continue;
    const present = folder().flatMap((other) => (other.startsWith(prefix) ? [other.slice(prefix.length)] : []));
    const split = judge(numbering, suffix, new Set([...present, suffix]));
    if (split?.kind === "first") return { ...split, parts: split.parts.map((part) => prefix + part) };
    if (split?.kind === "later") return { ...split, first: prefix + split.first };
    if (split) return { ...split, missing: prefix + split.missing, other: prefix + split.other };
  }
  return undefined;
}

function judge(numbering: Numbering, suffix: string, present: ReadonlySet<string>): Split | undefined {
  const { width, start } = startOf(numbering, suffix, present);
  const chain = present.has(start) ? chainFrom(numbering, start, present) : [];
  const behind = partsBehind(numbering, chain.at(-1) ?? start, width, present);
  const other = [...chain, ...behind].find((part) => part !== suffix);
  if (other === undefined || ![...chain, ...behind].includes(suffix)) return undefined;
  if (chain.length === 0) return { kind: "gap", missing: start, other };
  if (behind.length > 0) return { kind: "gap", missing: successors(numbering, chain.at(-1)!, width)[0]!, other };
  return suffix === start ? { kind: "first", parts: chain } : { kind: "later", first: start };
}

/** The first part's suffix and how many characters it has: the longest that is there, else as long as `suffix`. */
function startOf(numbering: Numbering, suffix: string, present: ReadonlySet<string>): { width: number; start: string } {
  for (let width = suffix.length; width > 0; width--) {
    const start = numbering.starts(width).find((one) => present.has(one));
    if (start !== undefined) return { width, start };
  }
  return { width: suffix.length, start: numbering.starts(suffix.length).at(-1)! };
}

/** The suffixes from `start` on, as far as one follows the other. */
function chainFrom(numbering: Numbering, start: string, present: ReadonlySet<string>): string[] {
  const chain = [start];
  for (;;) {
    const next = successors(numbering, chain.at(-1)!, start.length).find((suffix) => present.has(suffix));
    if (next === undefined) return chain;
    chain.push(next);
  }
}

/** What may follow a suffix: the next number, or the longer suffix with which split(1) goes on. */
function successors({ ends, text, value }: Numbering, suffix: string, width: number): string[] {
  const [last, before, first] = ends;
  const next = [text(value(suffix) + 1, Math.max(width, suffix.length))];
  const used = new RegExp(`^(${last}*)${before}${last}+$`).exec(suffix);
  if (used) next.push((used[1]! + last).padEnd(suffix.length + 2, first));
  return next;
}

/** The suffixes a little behind `suffix`: parts, though one before them isn't there. */
function partsBehind(numbering: Numbering, suffix: string, width: number, present: ReadonlySet<string>): string[] {
  const end = numbering.value(suffix);
  return [...present].filter((one) => {
    if (!numbering.suffix.test(one)) return false;
    const value = numbering.value(one);
    return value > end && value <= end + numbering.near && numbering.text(value, width) === one;
  });
}
