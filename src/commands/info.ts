import { openImage } from "../open.js";
import type { Command } from "./command.js";
import { type InfoResult, infoText } from "./info-text.js";

interface Arguments {
  image: string;
  parent?: string;
}

export const info: Command<Arguments> = {
  syntax: "info <image>",
  summary: "Tell what an image holds",
  description:
    "Tells the image's format, the disk's size, every layer of the chain with what it records (id, content root, source, label, comment), and the partitions. Nothing but the index is read.",
  positionals: { image: { type: "string", describe: "the image" } },
  options: { parent: { type: "string", describe: "where the image's base is, when it was moved" } },
  examples: [
    ["spindle info tuesday.spin", "the image, its base, its partitions"],
    ["spindle info --json backup.spin | jq .size", "one fact, for a script"],
  ],

  async run(given, terminal) {
    const opened = openImage({ path: given.image, parent: given.parent });
    try {
      const result: InfoResult = {
        path: given.image,
        format: opened.layers[0]!.format,
        size: opened.disk.size,
        chain: opened.layers.map(({ name, format, facts }) => ({ file: name, format, facts })),
        volumes: opened.table,
      };
      terminal.result(result, infoText);
    } finally {
      opened.close();
    }
  },
};
