/**
 * Patterns of the shell: `*`, `?`, `[a-z]`, `[!a]`, and a backslash before what is meant as it is. A `*` matches `/` and
 * a leading point too, as in find(1). Time grows with pattern times name, never more: names come from hostile images.
 */
import { usage } from "../errors.js";

type Part = { readonly kind: "any" } | { readonly kind: "one"; readonly matches: (character: string) => boolean };

/** @throws ImageError `usage` for a `[` that nothing closes; `option` names the option in the message. */
export function glob(pattern: string, option: string, ignoreCase = false): (name: string) => boolean {
  const fold = (text: string) => (ignoreCase ? text.toLowerCase() : text);
  const parts = partsOf(pattern, option, fold);
  return (name) => matches(parts, [...fold(name)]);
}

function partsOf(pattern: string, option: string, fold: (text: string) => string): Part[] {
  const characters = [...pattern];
  const parts: Part[] = [];
  for (let at = 0; at < characters.length; at++) {
    const character = characters[at]!;
    if (character === "*") parts.push({ kind: "any" });
    else if (character === "?") parts.push({ kind: "one", matches: () => true });
    else if (character === "[") {
      const { end, matches } = setOf(characters, at, fold);
      if (end < 0) throw usage(`${option} ${pattern}: its [ is not closed. Write \\[ for the character itself.`);
      parts.push({ kind: "one", matches });
      at = end;
    } else {
      const meant = fold(character === "\\" && at + 1 < characters.length ? characters[++at]! : character);
      // Folding may change how many characters there are.
      for (const one of meant) parts.push({ kind: "one", matches: (other) => other === one });
    }
  }
  return parts;
}

/** The set that opens at `start`; `end` is where it closes, or -1. */
function setOf(characters: readonly string[], start: number, fold: (text: string) => string) {
  let at = start + 1;
  const negated = characters[at] === "!" || characters[at] === "^";
  if (negated) at++;
  const ranges: [string, string][] = [];
  const first = at;
  for (; at < characters.length && (characters[at] !== "]" || at === first); at++) {
    if (characters[at] === "\\" && at + 1 < characters.length) at++;
    const from = characters[at]!;
    if (characters[at + 1] === "-" && at + 2 < characters.length && characters[at + 2] !== "]") {
      ranges.push([from, characters[at + 2]!]);
      at += 2;
    } else ranges.push([from, from]);
  }
  const within = (character: string) =>
    ranges.some(([from, to]) => fold(from) <= character && character <= fold(to)) !== negated;
  return { end: at < characters.length ? at : -1, matches: within };
}

/** At a mismatch the last `*` takes one character more; an earlier one never needs to. */
function matches(parts: readonly Part[], name: readonly string[]): boolean {
  let part = 0;
  let at = 0;
  let star = -1;
  let starAt = 0;
  while (at < name.length) {
    const here = parts[part];
    if (here?.kind === "any") {
      star = part++;
      starAt = at;
    } else if (here?.kind === "one" && here.matches(name[at]!)) {
      part++;
      at++;
    } else if (star >= 0) {
      part = star + 1;
      at = ++starAt;
    } else return false;
  }
  while (parts[part]?.kind === "any") part++;
  return part === parts.length;
}
