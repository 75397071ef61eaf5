/** The words of mount(8)'s helpers as those of `spindle mount`: flags, and one list of options of whomever. No I/O. */
import { usage } from "../errors.js";
import { knowsOption } from "../fuse/direct/mount-options.js";
import type { Option } from "./command.js";

export interface MountWords {
  readonly image: string;
  /** Arguments of `spindle`, from `mount` on. */
  readonly command: string[];
  /** -f: all but the mount itself. */
  readonly fake: boolean;
  /** -v: what was mounted is told. */
  readonly verbose: boolean;
  /** The option nofail: an image that isn't there is no error. */
  readonly mayBeAbsent: boolean;
}

/** Options of the command that make no sense in a list: its own list, and what would keep mount(8) waiting. */
const notInList = new Set(["o", "foreground"]);

/** What mount(8) and mount.fuse3(8) say of their own accord, where Spindle has no choice: it is always nodev,nosuid, and ro unless writable. */
const spokenByRote = new Set(["rw", "dev", "suid"]);

/**
 * @param argv IMAGE MOUNTPOINT and flags, as mount(8) has them
 * @param own the options of the mount command: `as=disk` in the list becomes `--as=disk`
 * @throws ImageError `usage` for words that can't be meant
 */
export function mountWords(argv: readonly string[], own: Readonly<Record<string, Option>>): MountWords {
  const names: string[] = [];
  const lists: string[] = [];
  const flags = new Set<string>();
  for (let index = 0; index < argv.length; index++) {
    const word = argv[index]!;
    if (word === "-o" || word === "-t" || word === "-N") {
      const value = argv[++index];
      if (value === undefined) throw usage(`${word} needs a value.`);
      if (word === "-o") lists.push(value);
      else if (word === "-N")
        throw usage("-N: Spindle can't mount in another namespace; go there first, with nsenter --mount.");
    } else if (/^-[sfnv]+$/.test(word)) for (const letter of word.slice(1)) flags.add(letter);
    else if (word.startsWith("-")) throw usage(`${word}: no flag that mount(8) gives to its helpers.`);
    else names.push(word);
  }
  const [image, mountpoint, ...more] = names;
  if (!image || !mountpoint || more.length > 0)
    throw usage("called as mount.fuse.spindle IMAGE MOUNTPOINT [-sfnv] [-o OPTIONS]; see mount(8).");

  const command = ["mount"];
  const others: string[] = [];
  let mayBeAbsent = false;
  for (const option of lists.flatMap(optionsOf)) {
    const [name, value] = parted(option);
    if (option === "remount") throw usage("-o remount: a mount can't be changed; unmount it and mount it again.");
    if (option === "nofail") mayBeAbsent = true;
    if (spokenByRote.has(option)) continue;
    if (Object.hasOwn(own, name) && !notInList.has(name)) command.push(ownOption(name, value, own[name]!));
    else if (!flags.has("s") || knowsOption(name, option)) others.push(option);
  }
  for (const option of others) command.push("-o", option);
  command.push("--", image, mountpoint);
  return { image, command, fake: flags.has("f"), verbose: flags.has("v"), mayBeAbsent };
}

function ownOption(name: string, value: string | undefined, { type, requiresArg }: Option): string {
  const isSwitch = type === "boolean";
  if (isSwitch && value !== undefined) throw usage(`-o ${name}=${value}: ${name} takes no value.`);
  if (!isSwitch && value === undefined && requiresArg !== false)
    throw usage(`-o ${name}: ${name} needs a value: ${name}=…`);
  return value === undefined ? `--${name}` : `--${name}=${value}`;
}

/** `as=disk` as its name and its value. */
function parted(option: string): [string, string | undefined] {
  const equals = option.indexOf("=");
  return equals < 0 ? [option, undefined] : [option.slice(0, equals), option.slice(equals + 1)];
}

/**
 * The options of a list. A comma in a value is written as mount(8) wants it, in double quotes: `parent="/a,b.spin"`; or as
 * FUSE wants it, with a backslash before it.
 */
function optionsOf(list: string): string[] {
  const options: string[] = [];
  for (const [option] of list.matchAll(/(?:\\.|"[^"]*"|[^,])+/gs))
    options.push(option.replace(/\\([,\\])/g, "$1").replace(/^([^"=]*=)"([^"]*)"$/s, "$1$2"));
  return options;
}
