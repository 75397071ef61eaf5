import { availableParallelism } from "node:os";
import { openLayers } from "../chain.js";
import { exitCodes, unsupported } from "../errors.js";
import { checkedParts } from "../imaging/checked-parts.js";
import { type LayerVerdict, type Verdict, verifyLayers } from "../imaging/verify.js";
import type { Command } from "./command.js";
import { counted, wholeNumber } from "./numbers.js";
import { type OpeningArguments, opening, openingOptions } from "./opening.js";
import { humanSize } from "./sizes.js";

interface Arguments extends OpeningArguments {
  image: string;
  threads?: string;
}

export const verify: Command<Arguments> = {
  syntax: "verify <image>",
  summary: "Check an image against its checksums",
  description:
    "Unpacks every chunk of IMAGE and of all its bases and compares it with its SHA-256 digest, then the digests with the image's content root. In a full image it also checks what only zstd -d reads: the frames of zeros and the heads of index pages. Formats of other tools have checksums of their headers at most: there the tables are checked (that every entry leads somewhere, and no two to the same place) and what is packed is unpacked. A raw disk has nothing that could be checked and is refused with exit code 4. Damage is listed with the range of the disk that it hits; the rest is still checked. Exit code 5 tells of damage.",
  positionals: { image: { type: "string", describe: "the image" } },
  options: {
    ...openingOptions,
    threads: { type: "string", value: "N", describe: "worker threads (default: one a processor)" },
  },
  examples: [
    ["spindle verify tuesday.spin", "check a differential and its base"],
    ["spindle verify --json backup.spin | jq '.layers[].damages'", "the damage, for a script"],
  ],

  async run(given, terminal) {
    const threads = wholeNumber(given.threads, "--threads", 1, 256) ?? availableParallelism();
    const opened = await opening(given.image, given, (spec) =>
      // What is stored is checked, and for that an encrypted disk need not be opened.
      openLayers({ ...spec, asStored: true }, undefined, { waiting: terminal }),
    );
    try {
      if (!checkedParts(opened).some(({ integrity }) => integrity))
        throw unsupported(
          `${given.image}: ${opened.layers[0]!.format} has no checksums, nothing can be verified. Compare it with its source: cmp ${given.image} SOURCE`,
        );
      const started = performance.now();
      const bar = terminal.progress("verifying", opened.disk.size);
      let verdict: Verdict;
      try {
        verdict = await verifyLayers(opened, threads, (done, total) => bar.update((done / total) * opened.disk.size));
      } finally {
        bar.stop();
      }
      const seconds = (performance.now() - started) / 1000;
      const sound = verdict.contentRoot !== false && verdict.layers.every((layer) => layer.damages.length === 0);
      if (!sound) terminal.exitCode = exitCodes.corrupt;
      terminal.result({ image: given.image, sound, ...verdict, seconds }, () =>
        words(given.image, verdict, sound, seconds),
      );
    } finally {
      opened.close();
    }
  },
};

function layerWords({ file, format, proves, chunks, bytes, damages }: LayerVerdict): string {
  const packed = `${counted(chunks, "chunk")} (${humanSize(bytes)})`;
  const found = damages.length === 0 ? "all sound" : `${damages.length} damaged`;
  if (!proves) return `${file}: ${format} has no checksums, nothing could be checked`;
  if (proves === "content") return `${file}: ${packed} checked, ${found}`;
  const unpacked = chunks > 0 ? `, ${packed} unpacked` : "";
  return `${file}: tables checked${unpacked}, ${found}; ${format} has no checksums of the data, so that a change of them would not be seen`;
}

function words(image: string, verdict: Verdict, sound: boolean, seconds: number): string {
  // What is around a layer may prove all that is in it.
  const known = verdict.layers.map((layer, number) => {
    const around = verdict.layers[number - 1];
    return layer.proves ? true : around?.wraps && around.proves === "content";
  });
  const lines = verdict.layers.flatMap((layer, number) => (layer.proves || !known[number] ? [layerWords(layer)] : []));
  lines.push(...verdict.layers.flatMap((layer) => layer.notes.map((note) => `  ${note}`)));
  for (const { wraps, damages } of verdict.layers)
    for (const { position, length, message } of damages)
      lines.push(`  ${wraps ? "unpacked" : "disk"} bytes ${position} to ${position + length - 1}: ${message}`);
  if (verdict.contentRoot === false) lines.push(`  the digests do not give the content root that ${image} tells.`);
  const content = verdict.layers.every(({ proves }, number) => known[number] && proves !== "tables");
  const word = !sound ? "damaged" : content ? "sound" : "sound, as far as it can be told without checksums";
  lines.push(`${word} (${seconds.toFixed(1)} s)`);
  return lines.join("\n");
}
