import test from "ava";
import { checkArrows } from "./check-arrows.js";

/** A tree with a file for each stage and nothing in them, and `samples` over it. */
function check(samples: Record<string, string>): string[] {
  const names = [
    "errors.ts",
    "settings.ts",
    "libc.ts",
    "chain.ts",
    "open.ts",
    "bytes/byte-source.ts",
    "images/spin/reader.ts",
    "images/spin/writer.ts",
    "images/spin/pages.ts",
    "images/qcow2.ts",
    "images/clusters.ts",
    "layers/layer.ts",
    "layers/disk.ts",
    "volumes/volume.ts",
    "volumes/gpt.ts",
    "volumes/mbr.ts",
    "filesystems/filesystem.ts",
    "fuse/driver.ts",
    "imaging/create.ts",
    "imaging/create-worker.ts",
  ];
  const files: Record<string, string> = Object.fromEntries(names.map((name) => [name, ""]));
  files["images/index.ts"] = 'import { spin } from "./spin/reader.js";\nimport { qcow2 } from "./qcow2.js";\n';
  files["volumes/index.ts"] =
    'import { gpt } from "./gpt.js";\nimport { mbr } from "./mbr.js";\nimport type { Volume } from "./volume.js";\n';
  Object.assign(files, samples);
  return checkArrows(Object.entries(files).map(([path, text]) => ({ path, text })));
}

const allowed: [string, string, string][] = [
  ["a file of the same folder", "images/spin/reader.ts", 'import { page } from "./pages.js";'],
  ["the stage beneath", "images/qcow2.ts", 'import { readFully } from "../bytes/byte-source.js";'],
  ["the interface a format fills", "images/qcow2.ts", 'import type { Layer } from "../layers/layer.js";'],
  ["what formats share", "images/qcow2.ts", 'import { cluster } from "./clusters.js";'],
  ["errors from anywhere", "images/spin/reader.ts", 'import { corrupt } from "../../errors.js";'],
  ["an interface in the table's file", "volumes/gpt.ts", 'import type { Volume } from "./volume.js";'],
  ["the MBR of a GPT", "volumes/gpt.ts", 'import { isMbr } from "./mbr.js";'],
  ["the assembly line by imaging", "imaging/create.ts", 'import { openLayers } from "../chain.js";'],
  ["the writer by imaging", "imaging/create.ts", 'import { frame } from "../images/spin/writer.js";'],
  ["a worker by its URL", "imaging/create.ts", 'new Worker(new URL("./create-worker.js", import.meta.url));'],
  ["a package's file", "images/spin/reader.ts", 'import binding from "zstd-napi/binding.js";'],
  ["files by bytes", "bytes/file.ts", 'import { readSync } from "node:fs";'],
  ["anything in a test", "images/qcow2.test.ts", 'import { openDisk } from "../open.js";\nimport "node:fs";'],
  ["an import in a comment", "images/qcow2.ts", '// import fs from "node:fs";\n/*\nimport fs from "node:fs";\n*/'],
  ["a slash pair in a string", "images/qcow2.ts", 'const url = "https://a/*"; const b = "*/";'],
];
for (const [what, path, text] of allowed)
  test(`allowed: ${what}`, (t) => {
    t.deepEqual(check({ [path]: text }), []);
  });

const forbidden: [string, string, string, string][] = [
  [
    "a format that opens files",
    "images/qcow2.ts",
    'import { readSync } from "node:fs";',
    "1: images/qcow2 -> node:fs: ",
  ],
  ["a worker in a format", "filesystems/ext.ts", 'import "node:worker_threads";', "1: filesystems/ext -> node:worker_"],
  [
    "a format that uses another",
    "images/qcow2.ts",
    'import { page } from "./spin/pages.js";',
    "1: images/qcow2 -> images/spin/pages: a format does not import another format",
  ],
  [
    "a format in a folder that uses another",
    "images/spin/reader.ts",
    'import { qcow2 } from "../qcow2.js";',
    "1: images/spin/reader -> images/qcow2: a format does not import another format",
  ],
  [
    "a format's helper that goes back to the table",
    "volumes/mbr.ts",
    'import { gpt } from "./gpt.js";',
    "1: volumes/mbr -> volumes/gpt: a format does not import another format",
  ],
  [
    "a format that knows how layers meet",
    "images/qcow2.ts",
    '\nimport { LayeredDisk } from "../layers/disk.js";',
    "2: images/qcow2 -> layers/disk: no arrow allows it",
  ],
  [
    "against the flow",
    "bytes/file.ts",
    'import type { Layer } from "../layers/layer.js";',
    "1: bytes/file -> layers/layer: no arrow allows it",
  ],
  [
    "the assembly line from a stage",
    "fuse/driver.ts",
    'export { openDisk } from "../open.js";',
    "1: fuse/driver -> open: no arrow allows it",
  ],
  [
    "the writer by what reads",
    "open.ts",
    'import { frame } from "./images/spin/writer.js";',
    "1: open -> images/spin/writer: what reads images can't write one; only imaging may",
  ],
  [
    "the C library by a format",
    "filesystems/ext.ts",
    'const { lseek } = await import("../libc.js");',
    "1: filesystems/ext -> libc: no arrow allows it",
  ],
  [
    "a module nobody listed",
    "bytes/file.ts",
    'import x from "left-pad";',
    "1: bytes/file -> left-pad: not in the list",
  ],
  [
    "a worker of another folder by its URL",
    "fuse/driver.ts",
    'new URL("../imaging/create-worker.js", import.meta.url)',
    "1: fuse/driver -> imaging/create-worker: no arrow allows it",
  ],
  [
    "a type behind a function's type",
    "volumes/gpt.ts",
    'type Fuse = typeof import("../fuse/driver.js");',
    "1: volumes/gpt -> fuse/driver: no arrow allows it",
  ],
  ["a package by require", "images/qcow2.ts", 'const koffi = require("koffi");', "1: images/qcow2 -> koffi: calls of"],
  ["a file that isn't there", "bytes/file.ts", 'import "./no.js";', "1: bytes/file -> bytes/no: there is no such file"],
  ["a test's file", "bytes/file.ts", 'import "./x.test.js";', "1: bytes/file -> bytes/x.test: a test's file"],
  [
    "a file outside",
    "bytes/file.ts",
    'import "../../scripts/x.js";',
    "1: bytes/file -> ../scripts/x: leads out of src/",
  ],
  [
    "an import over several lines",
    "layers/disk.ts",
    'import {\n  a,\n  b,\n} from "../fuse/driver.js";',
    "4: layers/disk -> fuse/driver: no arrow allows it",
  ],
];
for (const [what, path, text, message] of forbidden)
  test(`forbidden: ${what}`, (t) => {
    const wrong = check({ [path]: text });
    t.is(wrong.length, 1);
    t.true(wrong[0]!.startsWith(`src/${path}:${message}`), wrong[0]);
  });
