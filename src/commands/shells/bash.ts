/**
 * The completion of bash, 4.3 or newer. It stands alone: it neither needs the package bash-completion nor runs `spindle`.
 * Names of files are left to readline, which knows how to quote them.
 */
import type { DescribedCommand, DescribedOption, DescribedPositional } from "../described.js";

/** @param commands of the table, in its order */
export function bashCompletion(commands: readonly DescribedCommand[], version: string): string {
  const names = commands.map(({ name }) => name).join(" ");
  return `# Completion of spindle ${version} in bash, made by: spindle completion bash

# Sets options to those of a command, and valued to those whose next word is their value.
_spindle_options() {
  options='' valued=''
  case $1 in
${commands.map(optionsOf).join("\n")}
  esac
}

# Sets kind to what is wanted as a command's option or as its positional of a number: file, folder, mount, or words.
_spindle_kind() {
  kind=nothing choices=''
  case "$1 $2" in
${commands.flatMap(kindsOf).join("\n")}
  esac
}

# The places where Spindle has mounted something.
_spindle_mounts() {
  local point rest
  [[ -r /proc/self/mountinfo ]] || return
  while read -r _ _ _ _ point rest; do
    [[ $rest == *' - fuse.spindle '* ]] && printf '%b\\n' "\${point//\\\\/\\\\0}"
  done < /proc/self/mountinfo
}

_spindle() {
  local words=() word command='' options valued kind choices current value='' prefix='' number=0 wanted='' ended=''
  local index line IFS=$' \\t\\n'
  # Bash takes = and : for words of their own: --as=disk is put together again.
  for ((index = 1; index <= COMP_CWORD; index++)); do
    word=\${COMP_WORDS[index]}
    if ((\${#words[@]} > 0)) && [[ $word == [=:]* || \${words[-1]} == *[=:] ]]; then words[-1]+=$word; else words+=("$word"); fi
  done
  current=\${words[-1]}
  unset 'words[-1]'
  for word in "\${words[@]}"; do
    if [[ $wanted ]]; then
      wanted=''
    elif [[ ! $command ]]; then
      [[ $word == -* ]] && continue
      command=$word
      _spindle_options "$command"
    elif [[ ! $ended && $word == -- ]]; then
      ended=1
    elif [[ ! $ended && $word == -?* ]]; then
      [[ " $valued " == *" $word "* ]] && wanted=$word
    else
      ((++number))
    fi
  done
  COMPREPLY=()
  if [[ ! $command || $command == help ]]; then
    ((number == 0)) || return
    [[ $current == -* ]] && choices='--help --version --json' || choices='${names} help'
    COMPREPLY=($(compgen -W "$choices" -- "$current"))
    return
  fi
  value=$current
  if [[ ! $wanted && ! $ended && $current == --*=* ]]; then
    wanted=\${current%%=*} value=\${current#*=}
    [[ $COMP_WORDBREAKS == *=* ]] || prefix=$wanted=
  elif [[ ! $wanted && ! $ended && $current == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$current"))
    return
  fi
  _spindle_kind "$command" "\${wanted:-$((number + 1))}"
  case $kind in
    file) compopt -o default ;;
    folder) compopt -o dirnames ;;
    mount)
      compopt -o filenames
      while IFS= read -r line; do [[ $line == "$value"* ]] && COMPREPLY+=("$line"); done < <(_spindle_mounts)
      ;;
    words) COMPREPLY=($(compgen -P "$prefix" -W "$choices" -- "$value")) ;;
  esac
}

complete -F _spindle spindle
`;
}

function optionsOf({ name, options }: DescribedCommand): string {
  const all = options.flatMap(({ names }) => names).join(" ");
  const valued = options.filter(({ value, optional }) => value !== undefined && !optional);
  return `    ${name}) options='${all}' valued='${valued.flatMap(({ names }) => names).join(" ")}' ;;`;
}

function kindsOf({ name, options, positionals }: DescribedCommand): string[] {
  const row = (patterns: readonly string[], of: DescribedOption | DescribedPositional) => {
    const kind = of.choices.length > 0 ? `kind=words choices='${of.choices.join(" ")}'` : `kind=${of.completes}`;
    return kind === "kind=nothing"
      ? []
      : [`    ${patterns.map((word) => `'${name} '${word}`).join(" | ")}) ${kind} ;;`];
  };
  return [
    ...options.filter(({ value }) => value !== undefined).flatMap((option) => row(option.names, option)),
    // A last positional that takes all words has no number but those before it have.
    ...positionals.flatMap((positional, index) => row([positional.rest ? "[0-9]*" : String(index + 1)], positional)),
  ];
}
