/** The words of a command's `syntax`, as the command line reads them and as the help shows them. */
import type { Command } from "./command.js";

export interface PositionalWord {
  readonly key: string;
  /** As the syntax has it: `<source>`, `[target]`. */
  readonly word: string;
  readonly required: boolean;
  /** Whether it takes all words that are left: `<image..>`. */
  readonly rest: boolean;
}

/** `create <source> <image>`: source and image, both required. */
export function positionalsOf(syntax: string): PositionalWord[] {
  return [...syntax.matchAll(/([<[])([^>\]]+)[>\]]/g)].map(([word, bracket, key]) => ({
    key: key!.replace(/\.\.$/, ""),
    word,
    required: bracket === "<",
    rest: key!.endsWith(".."),
  }));
}

/** `create <source> <image>` as help shows it: `create SOURCE IMAGE`. */
export const usageLine = ({ syntax, usage }: Pick<Command<never>, "syntax" | "usage">): string =>
  usage ??
  syntax
    .replace(/<([^>]+)>/g, (_, key: string) => key.toUpperCase())
    .replace(/\[([^\]]+)\]/g, (_, key: string) => `[${key.toUpperCase()}]`)
    .replaceAll("..", "...");
