import { readdirSync, readFileSync } from "node:fs";
import test from "ava";
import { readSecondly } from "../images/spin/second-test-reader.js";
import { diskOf, smallest } from "../images/spin/spin-test-tools.js";
import { create, ended, spindle, verify, workspace, write } from "./imaging-test-tools.js";

const letters = `abc${".".repeat(1100)}de`;

test("a sound chain is told so, layer by layer, by any number of threads", async (t) => {
  const path = workspace(t);
  write(path("disk"), diskOf(letters));
  await create(path("disk"), path("base.spin"), { chunkSize: smallest });
  write(path("disk"), diskOf(`aX${letters.slice(2)}`, smallest, 99));
  await create(path("disk"), path("top.spin"), { base: path("base.spin") });
  for (const threads of [1, 4]) {
    const { layers, contentRoot } = await verify(path("top.spin"), threads);
    t.true(contentRoot);
    t.deepEqual(
      layers.map(({ file, chunks, damages }) => [file, chunks, damages.length]),
      [
        [path("top.spin"), 2, 0],
        [path("base.spin"), 5, 0],
      ],
    );
  }
  const { code, stdout } = await ended(spindle("verify", path("top.spin")));
  t.is(code, 0);
  t.regex(stdout, /^sound/m);
});

test("all damage of a chain is listed with its range of the disk, and the exit code tells of it", async (t) => {
  const path = workspace(t);
  write(path("disk"), diskOf(letters, smallest, 5000));
  await create(path("disk"), path("base.spin"), { chunkSize: smallest });
  write(path("disk"), diskOf(`aX${letters.slice(2)}`, smallest, 5000));
  await create(path("disk"), path("top.spin"), { base: path("base.spin") });
  const hurt = (name: string, ...chunks: number[]) => {
    const file = readFileSync(path(name));
    const view = readSecondly(file);
    for (const number of chunks) {
      const chunk = view.chunks[number]!;
      if (chunk.kind === "stored") file[chunk.at + chunk.length - 2]! ^= 1;
    }
    write(path(name), file);
  };
  hurt("top.spin", 1);
  hurt("base.spin", 0, 2, 1104);
  const { code, stdout } = await ended(spindle("verify", path("top.spin"), "--json"));
  t.is(code, 5);
  const told = JSON.parse(stdout) as {
    sound: boolean;
    layers: { file: string; damages: { file: string; position: number; length: number; message: string }[] }[];
  };
  t.false(told.sound);
  const ranges = told.layers.map(({ damages }) => damages.map(({ position, length }) => [position, length]));
  t.deepEqual(ranges, [
    [[smallest, smallest]],
    [
      [0, smallest],
      [2 * smallest, smallest],
      [1104 * smallest, 5000],
    ],
  ]);
  for (const { file, damages } of told.layers)
    for (const damage of damages)
      t.true(damage.file === file && damage.message.startsWith(`${file}: chunk `), damage.message);
  const words = await ended(spindle("verify", path("top.spin")));
  t.is(words.code, 5);
  t.regex(words.stdout, /disk bytes 0 to 16383: .*base\.spin: chunk 0/);
  t.regex(words.stdout, /^damaged/m);
});

for (const [type, message] of [
  ["SPDG", /the digest page of chunk 0 at byte \d+ fails its checksum/],
  ["SPLF", /the index page of chunk 0 at byte \d+ fails its checksum/],
  ["SPND", /the index node of level 1 for chunk 0 at byte \d+ fails its checksum/],
] as const)
  test(`a damaged ${type} page is damage, and the rest is checked`, async (t) => {
    const path = workspace(t);
    write(path("disk"), diskOf(letters));
    await create(path("disk"), path("image"), { chunkSize: smallest });
    const file = readFileSync(path("image"));
    file[file.indexOf(type) + 40]! ^= 1;
    write(path("image"), file);
    const { layers, contentRoot } = await verify(path("image"));
    t.false(contentRoot);
    t.regex(layers[0]!.damages[0]!.message, message);
    t.is(layers[0]!.chunks, type === "SPDG" ? 5 : type === "SPLF" ? 2 : 0);
  });

test("a raw disk has no checksums: it is not called sound", async (t) => {
  const path = workspace(t);
  write(path("disk"), diskOf("ab"));
  const { code, stdout, stderr } = await ended(spindle("verify", path("disk")));
  t.is(code, 4);
  t.is(stdout, "");
  t.regex(stderr, /disk: raw has no checksums, nothing can be verified/);
});

test("an image whose first bytes are damaged is not taken for a raw disk", async (t) => {
  const path = workspace(t);
  write(path("disk"), diskOf("ab"));
  await create(path("disk"), path("image"));
  const bytes = readFileSync(path("image"));
  bytes[20]! ^= 1;
  write(path("image"), bytes);
  for (const words of [
    ["verify", path("image")],
    ["restore", path("image"), path("out")],
  ]) {
    const { code, stderr } = await ended(spindle(...words));
    t.is(code, 5);
    t.regex(stderr, /image: the header at byte 8 fails its checksum/);
  }
  t.deepEqual(readdirSync(path("")).sort(), ["disk", "image"]);
});

test("an empty disk is sound", async (t) => {
  const path = workspace(t);
  write(path("disk"), Buffer.alloc(0));
  await create(path("disk"), path("image"));
  const { layers, contentRoot } = await verify(path("image"));
  t.true(contentRoot);
  t.like(layers[0], { chunks: 0, bytes: 0, damages: [] });
});
