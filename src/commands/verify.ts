import { availableParallelism } from "node:os";
import { openLayers } from "../chain.js";
import { exitCodes, unsupported } from "../errors.js";
import { type Verdict, verifyLayers } from "../imaging/verify.js";
import type { Command } from "./command.js";
import { counted, wholeNumber } from "./numbers.js";
import { humanSize } from "./sizes.js";

interface Arguments {
  image: string;
  parent?: string;
  threads?: string;
}

export const verify: Command<Arguments> = {
  syntax: "verify <image>",
  summary: "Check an image against its checksums",
  description:
    "Unpacks every chunk of IMAGE and of all its bases and compares it with its SHA-256 digest, then the digests with the image's content root. In a full image it also checks what only zstd -d reads: the frames of zeros and the heads of index pages. An image without checksums, such as a raw disk, can't be verified and is refused with exit code 4. Damage is listed with the range of the disk that it hits; the rest is still checked. Exit code 5 tells of damage.",
  positionals: { image: { type: "string", describe: "the image" } },
  options: {
    parent: { type: "string", describe: "where the image's base is, when it was moved" },
    threads: { type: "string", describe: "worker threads (default: one a processor)" },
  },
  examples: [
    ["spindle verify tuesday.spin", "check a differential and its base"],
    ["spindle verify --json backup.spin | jq '.layers[].damages'", "the damage, for a script"],
  ],

  async run(given, terminal) {
    const threads = wholeNumber(given.threads, "--threads", 1, 256) ?? availableParallelism();
    const opened = openLayers({ path: given.image, parent: given.parent }, undefined, { waiting: terminal });
    try {
      if (!opened.layers.some((layer) => layer.integrity))
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

function words(image: string, verdict: Verdict, sound: boolean, seconds: number): string {
  const lines = verdict.layers.map((layer) =>
    layer.checked
      ? `${layer.file}: ${counted(layer.chunks, "chunk")} (${humanSize(layer.bytes)}) checked, ${layer.damages.length === 0 ? "all sound" : `${layer.damages.length} damaged`}`
      : `${layer.file}: ${layer.format} has no checksums, nothing could be checked`,
  );
  for (const damage of verdict.layers.flatMap((layer) => layer.damages))
    lines.push(`  disk bytes ${damage.position} to ${damage.position + damage.length - 1}: ${damage.message}`);
  if (verdict.contentRoot === false) lines.push(`  the digests do not give the content root that ${image} tells.`);
  lines.push(sound ? `sound (${seconds.toFixed(1)} s)` : `damaged (${seconds.toFixed(1)} s)`);
  return lines.join("\n");
}
