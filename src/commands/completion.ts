import { usage } from "../errors.js";
import { version } from "../version.js";
import type { Command } from "./command.js";
import { type DescribedCommand, describedCommands } from "./described.js";
import { commands } from "./index.js";
import { bashCompletion } from "./shells/bash.js";
import { fishCompletion } from "./shells/fish.js";
import { zshCompletion } from "./shells/zsh.js";

const shells: Readonly<Record<string, (all: readonly DescribedCommand[], version: string) => string>> = {
  bash: bashCompletion,
  zsh: zshCompletion,
  fish: fishCompletion,
};

interface Arguments {
  shell: string;
}

export const completion: Command<Arguments> = {
  syntax: "completion <shell>",
  summary: "Print the completion for a shell",
  description:
    "Prints a script with which bash, zsh or fish completes the commands of spindle, their options and what belongs there: files, folders, mount points, words to choose from. Put it where your shell looks for it, as the examples do, and open a new shell. It holds the commands of this version; print it anew after an update.",
  positionals: { shell: { choices: Object.keys(shells), describe: "bash, zsh or fish" } },
  options: {},
  examples: [
    ["spindle completion bash > ~/.local/share/bash-completion/completions/spindle", "For yourself, in bash"],
    ["spindle completion zsh > ~/.zfunc/_spindle", "In zsh, where ~/.zfunc is in $fpath"],
    ["spindle completion fish > ~/.config/fish/completions/spindle.fish", "In fish"],
    ["spindle completion bash | sudo tee /etc/bash_completion.d/spindle >/dev/null", "For all users, in bash"],
  ],

  async run({ shell }, terminal) {
    const make = Object.hasOwn(shells, shell) ? shells[shell] : undefined;
    if (!make) throw usage(`${shell}: is no shell that Spindle knows; it is one of ${Object.keys(shells).join(", ")}.`);
    const script = make(await describedCommands(commands), version);
    terminal.result({ shell, script }, () => script);
  },
};
