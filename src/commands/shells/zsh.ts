/** The completion of zsh, by _arguments: a function that is found in $fpath as `_spindle`, or sourced after compinit. */
import type { DescribedCommand, DescribedOption, DescribedPositional } from "../described.js";
import { generalOptions } from "../described.js";

/** @param commands of the table, in its order */
export function zshCompletion(commands: readonly DescribedCommand[], version: string): string {
  return `#compdef spindle
# Completion of spindle ${version} in zsh, made by: spindle completion zsh

# The places where Spindle has mounted something.
_spindle_mounts() {
  local line
  local -a points
  [[ -r /proc/self/mountinfo ]] || return 1
  while read -r line; do
    [[ $line == *' - fuse.spindle '* ]] && points+=("\${(g:o:)\${line[(w)5]}}")
  done < /proc/self/mountinfo
  _wanted mounts expl 'mount point' compadd -f -a points
}

_spindle_nothing() { return 1 }

_spindle_commands() {
  local -a commands=(
${commands.map(({ name, summary }) => `    ${quoted(`${name}:${summary.replace(/[\\:]/g, "\\$&")}`)}`).join("\n")}
    'help:Explain a command'
  )
  _describe -t commands 'command' commands
}

_spindle() {
  local curcontext=$curcontext state line ret=1
  local -A opt_args
  _arguments -C ${generalOptions.flatMap(optionSpecs).join(" ")} \\
    '1:command:_spindle_commands' '*::argument:->arguments' && ret=0
  [[ $state == arguments ]] || return ret
  curcontext=\${curcontext%:*:*}:spindle-$words[1]:
  case $words[1] in
${commands.map(commandCase).join("\n")}
    help) _arguments '1:command:_spindle_commands' && ret=0 ;;
  esac
  return ret
}

# Found in $fpath, this file is the function's body; sourced, it only tells of it.
if [[ $funcstack[1] == _spindle ]]; then _spindle "$@"; else compdef _spindle spindle; fi
`;
}

function commandCase({ name, options, positionals, singleDash }: DescribedCommand): string {
  const specs = [...options.flatMap(optionSpecs), ...positionals.map(positionalSpec)];
  // Letters may be joined (-la) unless one dash begins a whole name.
  const flags = singleDash ? "-S" : "-s -S";
  return `    ${name})\n      _arguments ${flags} \\\n        ${specs.join(" \\\n        ")} && ret=0\n      ;;`;
}

const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

function optionSpecs({ names, describe, value, optional, repeatable, ...of }: DescribedOption): string[] {
  const text = describe.replace(/[\\[\]:]/g, "\\$&");
  const action = value === undefined ? "" : `${optional ? "::" : ":"}${value.toLowerCase()}:${actionOf(of)}`;
  const others = repeatable ? "*" : names.length > 1 ? `(${names.join(" ")})` : "";
  return names.map((name) => {
    // `=` stands for `--name=VALUE` and `--name VALUE`, `=-` for the first alone, `+` for `-nVALUE` and `-n VALUE`.
    const joint = name.startsWith("--") ? (optional ? "=-" : "=") : name.length === 2 ? "+" : "";
    return quoted(`${others}${name}${value === undefined ? "" : joint}[${text}]${action}`);
  });
}

/** A blank action tells what is wanted, but keeps a begun option from being completed where a positional may stand. */
function positionalSpec({ key, rest, ...of }: DescribedPositional): string {
  const action = actionOf(of);
  return quoted(`${rest ? "*" : ""}:${key}:${action === " " ? "_spindle_nothing" : action}`);
}

function actionOf({ choices, completes }: Pick<DescribedOption, "choices" | "completes">): string {
  if (choices.length > 0) return `(${choices.join(" ")})`;
  return { file: "_files", folder: "_files -/", mount: "_spindle_mounts", nothing: " " }[completes];
}
