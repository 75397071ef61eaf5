/** The completion of fish, 3.0 or newer. */
import type { DescribedCommand, DescribedOption, DescribedPositional } from "../described.js";
import { generalOptions } from "../described.js";

/** @param commands of the table, in its order */
export function fishCompletion(commands: readonly DescribedCommand[], version: string): string {
  return `# Completion of spindle ${version} in fish, made by: spindle completion fish

# Whether the words before the cursor are of the command $argv[1], or of none where that is empty; and, where more is
# given, whether the cursor is at its positional of the number $argv[2], or behind it where $argv[3] is +.
function __spindle_at
    set -l words (commandline -opc)
    set -e words[1]
    set -l command ''
    set -l number 1
    set -l value no
    set -l ended no
    for word in $words
        if test $value = yes
            set value no
        else if test -z "$command"
            string match -q -- '-*' $word; or set command $word
        else if test $ended = no -a "$word" = --
            set ended yes
        else if test $ended = no; and string match -q -- '-?*' $word
            contains -- "$command $word" $__spindle_valued; and set value yes
        else
            set number (math $number + 1)
        end
    end
    test "$command" = "$argv[1]"; or return 1
    set -q argv[2]; or return 0
    test $value = no; or return 1
    if test "$argv[3]" = +
        test $number -ge $argv[2]
    else
        test $number -eq $argv[2]
    end
end

# The places where Spindle has mounted something.
function __spindle_mounts
    test -r /proc/self/mountinfo; or return
    string match -- '* - fuse.spindle *' </proc/self/mountinfo | while read -l line
        printf '%b\\n' (string split ' ' -- $line)[5]
    end
end

# Options whose next word is their value.
set -g __spindle_valued ${commands.flatMap(valuedOf).join(" ")}

complete -c spindle -e
complete -c spindle -f
${generalOptions.map((option) => optionLine("__spindle_at ''", option, false)).join("\n")}
${commands.map(({ name, summary }) => `complete -c spindle -n "__spindle_at ''" -a ${name} -d ${quoted(summary)}`).join("\n")}
complete -c spindle -n "__spindle_at ''" -a help -d 'Explain a command'
complete -c spindle -n '__spindle_at help 1' -a '${commands.map(({ name }) => name).join(" ")}'
${commands.flatMap(linesOf).join("\n")}
`;
}

const quoted = (text: string) => `'${text.replace(/[\\']/g, "\\$&")}'`;

const valuedOf = ({ name, options }: DescribedCommand) =>
  options
    .filter(({ value, optional }) => value !== undefined && !optional)
    .flatMap(({ names }) => names.map((word) => quoted(`${name} ${word}`)));

function linesOf({ name, options, positionals, singleDash }: DescribedCommand): string[] {
  return [
    ...options.map((option) => optionLine(`__spindle_at ${name}`, option, singleDash)),
    ...positionals.flatMap((positional, index) => {
      const how = positionalWords(positional);
      const place = `__spindle_at ${name} ${index + 1}${positional.rest ? " +" : ""}`;
      return how === "" ? [] : [`complete -c spindle -n '${place}' ${how}`];
    }),
  ];
}

function optionLine(condition: string, option: DescribedOption, singleDash: boolean): string {
  const names = option.names.map((word) => {
    if (word.startsWith("--")) return `-l ${word.slice(2)}`;
    return `${singleDash && word.length > 2 ? "-o" : "-s"} ${word.slice(1)}`;
  });
  // -r: a value must follow, and files may be meant; -x: a value that is no file.
  const needed = option.value === undefined || option.optional ? "" : option.completes === "file" ? " -r -F" : " -x";
  const values = option.value === undefined ? "" : wordsOf(option);
  return `complete -c spindle -n ${/'/.test(condition) ? `"${condition}"` : `'${condition}'`} ${names.join(" ")}${needed}${values === "" ? "" : ` ${values}`} -d ${quoted(option.describe)}`;
}

/** Of files an option's -F speaks, and a positional's own. */
function positionalWords(positional: DescribedPositional): string {
  return positional.completes === "file" && positional.choices.length === 0 ? "-F" : wordsOf(positional);
}

function wordsOf({ choices, completes }: Pick<DescribedOption, "choices" | "completes">): string {
  if (choices.length > 0) return `-a '${choices.join(" ")}'`;
  if (completes === "folder") return "-a '(__fish_complete_directories (commandline -ct) \"\")'";
  return completes === "mount" ? "-a '(__spindle_mounts)'" : "";
}
