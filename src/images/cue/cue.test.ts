/** Compact discs as cue sheets and raw sectors: sectors written here by ECMA-130, and bchunk's reading of them. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import test, { type ExecutionContext } from "ava";
import { MemorySource } from "../../bytes/memory.js";
import { LayeredDisk } from "../../layers/disk.js";
import type { Damage } from "../../layers/layer.js";
import { isDisk, isRefused, numbers, opened, survivesDamage, testFolder } from "../qemu-test-tools.js";
import { sharedContainers, surroundings, unpackShared } from "../shared-test-images.js";
import { cue } from "./index.js";

const hasBchunk = spawnSync("bchunk", []).error === undefined;

/** An EDC bit by bit, as ECMA-130 describes it in 14.3. */
function edc(bytes: Buffer): number {
  let value = 0;
  for (const byte of bytes) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0xd8018001 : 0);
  }
  return value >>> 0;
}

const bcd = (value: number) => Math.floor(value / 10) * 16 + (value % 10);

/** A sector of 2352 bytes, number `number` of the disc; its ECC, which nobody here reads, is left zero. */
function rawSector(number: number, mode: 1 | 2, data: Buffer, submode = 0): Buffer {
  const sector = Buffer.alloc(2352);
  sector.fill(0xff, 1, 11);
  const frame = number + 150;
  sector.set([bcd(Math.floor(frame / 4500)), bcd(Math.floor(frame / 75) % 60), bcd(frame % 75), mode], 12);
  if (mode === 1) {
    data.copy(sector, 16);
    sector.writeUInt32LE(edc(sector.subarray(0, 2064)), 2064);
    return sector;
  }
  sector.set([0, 0, submode, 0, 0, 0, submode, 0], 16);
  data.copy(sector, 24);
  const end = submode & 0x20 ? 2348 : 2072;
  sector.writeUInt32LE(edc(sector.subarray(16, end)), end);
  return sector;
}

function noise(size: number, seed = 3): Buffer {
  const next = numbers(seed);
  return Buffer.from(Array.from({ length: size }, () => next(256)));
}

const sectors = 320;
const disk = noise(sectors * 2048);
const dataOf = (number: number) => disk.subarray(number * 2048, (number + 1) * 2048);
const [raw1, raw2] = ([1, 2] as const).map((mode) =>
  Buffer.concat(Array.from({ length: sectors }, (_, number) => rawSector(number, mode, dataOf(number)))),
);
const raw = (mode: 1 | 2) => Buffer.from(mode === 1 ? raw1! : raw2!);

/** What bchunk makes of the first track; undefined, with the reason logged, where it isn't installed. */
function bchunk(t: ExecutionContext, binPath: string, cuePath: string): Buffer | undefined {
  if (!hasBchunk) {
    t.log("skipped: bchunk is not installed");
    return undefined;
  }
  execFileSync("bchunk", [binPath, cuePath, `${dirname(cuePath)}/out`], { stdio: "pipe" });
  return readFileSync(`${dirname(cuePath)}/out01.iso`);
}

const sheetOf = (mode: string, name = "disc.bin") =>
  `REM made by a test\r\nFILE "${name}" BINARY\r\n  TRACK 01 ${mode}\r\n    INDEX 01 00:00:00\r\n`;

function damagesOf(path: string): readonly Damage[] {
  return opened({ path }, ({ layers: [layer] }) => {
    const damages: Damage[] = [];
    let chunks = 0;
    for (let piece = 0; piece < layer!.integrity!.pieces; piece++) {
      const report = layer!.integrity!.check(piece);
      chunks += report.chunks;
      damages.push(...report.damages);
    }
    if (chunks !== layer!.size / 2048) throw new Error(`${chunks} sectors were checked of ${layer!.size} bytes`);
    return damages;
  });
}

for (const [mode, bytes, referenced] of [
  ["MODE1/2048", () => disk, false],
  ["MODE1/2352", () => raw(1), true],
  ["MODE2/2352", () => raw(2), true],
  ["MODE2/2336", () => Buffer.concat(Array.from({ length: sectors }, (_, n) => raw2336(n))), false],
] as const)
  test(`a data track of ${mode} is a disk of 2048-byte sectors`, (t) => {
    const path = testFolder(t);
    writeFileSync(path("disc.bin"), bytes());
    writeFileSync(path("disc.cue"), sheetOf(mode));
    isDisk(t, { path: path("disc.cue") }, disk, 2048);
    const reference = referenced ? bchunk(t, path("disc.bin"), path("disc.cue")) : disk;
    if (reference) t.true(reference.equals(disk));
    if (mode !== "MODE1/2048") t.deepEqual(damagesOf(path("disc.cue")), []);
    opened({ path: path("disc.cue") }, ({ layers: [layer] }) => {
      t.like(layer!.facts, { sectors, track: 1, tracks: [{ number: 1, mode, file: "disc.bin" }] });
      t.is(layer!.integrity === undefined, mode === "MODE1/2048");
    });
  });

function raw2336(number: number): Buffer {
  return rawSector(number, 2, dataOf(number)).subarray(16);
}

test("a .bin of raw sectors needs no sheet, whatever its name", (t) => {
  const path = testFolder(t);
  for (const mode of [1, 2] as const) {
    writeFileSync(path("disc.iso"), raw(mode));
    isDisk(t, { path: path("disc.iso") }, disk, 2048);
    t.deepEqual(damagesOf(path("disc.iso")), []);
  }
});

test("libcdio's disc of raw sectors is what bchunk makes of it, and its checksums hold", (t) => {
  for (const row of sharedContainers(t, "raw 2352-byte sectors")) {
    const path = unpackShared(t, row);
    t.deepEqual(damagesOf(path), []);
    writeFileSync(`${dirname(path)}/a.cue`, sheetOf("MODE1/2352", "isofs-m1.bin"));
    const reference = bchunk(t, path, `${dirname(path)}/a.cue`);
    if (!reference) continue;
    isDisk(t, { path }, reference, 2048);
    isDisk(t, { path: `${dirname(path)}/a.cue` }, reference, 2048);
  }
});

test("the first data track is taken, from its first sector to the next one's pregap; others are told", (t) => {
  const path = testFolder(t);
  const sound = noise(2352 * 160, 9);
  // 10 sectors of sound, then data with 2 sectors of pregap, then sound with 5.
  const pregap = [0, 1].map((n) => rawSector(n, 2, noise(2048, 70 + n)));
  writeFileSync(path("disc.bin"), Buffer.concat([sound.subarray(0, 2352 * 10), ...pregap, raw(2), sound]));
  writeFileSync(
    path("disc.cue"),
    `file disc.bin binary
       track 1 audio
         index 1 0:0:0
       track 2 mode2/2352
         pregap 00:02:00
         index 00 00:00:10
         index 01 00:00:12
       track 3 audio
         index 00 00:04:32
         index 01 00:04:37
         postgap 00:02:00`,
  );
  isDisk(t, { path: path("disc.cue") }, disk, 2048);
  t.deepEqual(damagesOf(path("disc.cue")), []);
  opened({ path: path("disc.cue") }, ({ layers: [layer] }) =>
    t.deepEqual(
      (layer!.facts.tracks as { mode: string }[]).map(({ mode }) => mode),
      ["AUDIO", "MODE2/2352", "AUDIO"],
    ),
  );
});

test("sectors of other sizes before the track are counted as such", (t) => {
  const path = testFolder(t);
  writeFileSync(path("disc.bin"), Buffer.concat([noise(2448 * 3), noise(2352 * 4), raw(1).subarray(0, 2352 * 50)]));
  const track = (number: number, mode: string, frame: number) => `TRACK ${number} ${mode}\nINDEX 01 00:00:${frame}\n`;
  const tracks = [track(1, "CDG", 0), track(2, "AUDIO", 3), track(3, "MODE1/2352", 7)];
  writeFileSync(path("disc.cue"), `FILE disc.bin BINARY\n${tracks.join("")}`);
  isDisk(t, { path: path("disc.cue") }, disk.subarray(0, 50 * 2048), 2048);
});

test("of several files only that with the data is needed", (t) => {
  const path = testFolder(t);
  writeFileSync(path("Track 02 (Données).bin"), raw(1));
  const sheet = `CATALOG 0000000000000
TITLE "Two files"
FILE "Track 01.wav" WAVE
  TRACK 01 AUDIO
    INDEX 01 00:00:00
  TRACK 02 MODE1/2352
    INDEX 00 04:00:00
FILE "Track 02 (Données).bin" BINARY
    INDEX 01 00:00:00
FILE "Track 03.wav" WAVE
  TRACK 03 AUDIO
    INDEX 01 00:00:00
`;
  writeFileSync(path("disc.cue"), sheet);
  isDisk(t, { path: path("disc.cue") }, disk, 2048);
  writeFileSync(path("old.cue"), sheet, "latin1");
  isDisk(t, { path: path("old.cue") }, disk, 2048);
});

test("sectors of form 2 give their first 2048 bytes, as bchunk has it, and are checked by their own length", (t) => {
  const path = testFolder(t);
  const film = noise(2324, 8);
  const unchecked = rawSector(3, 2, film, 0x20);
  unchecked.writeUInt32LE(0, 2348);
  const all = [rawSector(0, 2, dataOf(0)), rawSector(1, 2, film, 0x64), rawSector(2, 2, dataOf(2)), unchecked];
  writeFileSync(path("disc.bin"), Buffer.concat(all));
  writeFileSync(path("disc.cue"), sheetOf("MODE2/2352"));
  const cut = film.subarray(0, 2048);
  isDisk(t, { path: path("disc.cue") }, Buffer.concat([dataOf(0), cut, dataOf(2), cut]), 2048);
  t.deepEqual(damagesOf(path("disc.cue")), []);
  const reference = bchunk(t, path("disc.bin"), path("disc.cue"));
  if (reference) t.true(reference.equals(Buffer.concat([dataOf(0), cut, dataOf(2), cut])));
});

test("in a .bin without sheet the disk ends where sound begins", (t) => {
  const path = testFolder(t);
  for (const sound of [1, 7, 320, 3000]) {
    writeFileSync(path("disc.bin"), Buffer.concat([raw(1), Buffer.alloc(sound * 2352, 0x55)]));
    isDisk(t, { path: path("disc.bin") }, disk, 2048);
    opened({ path: path("disc.bin") }, ({ layers: [layer] }) => t.is(layer!.facts.otherSectors, sound));
  }
});

test("every sector's checksum is verified: damage is told with its place", (t) => {
  const path = testFolder(t);
  for (const mode of [1, 2] as const) {
    const bytes = raw(mode);
    bytes[2352 * 5 + 24 + 2000]! ^= 1;
    bytes[2352 * 300 + 3] = 0;
    bytes[2352 * 319 + 15] = 3 - mode;
    writeFileSync(path("disc.bin"), bytes);
    const damages = damagesOf(path("disc.bin"));
    t.deepEqual(
      damages.map(({ position, length }) => [position, length]),
      [5, 300, 319].map((sector) => [sector * 2048, 2048]),
    );
    t.true(damages[0]!.message.includes(`${path("disc.bin")}: sector 5, at byte ${2352 * 5}`));
  }
});

test("a sheet leads to no file outside its folder", (t) => {
  const path = testFolder(t);
  mkdirSync(path("in"));
  writeFileSync(path("secret.bin"), raw(1));
  for (const name of [path("secret.bin"), "../secret.bin", "x/../../secret.bin", "..\\secret.bin", "C:\\secret.bin"]) {
    writeFileSync(path("in/a.cue"), sheetOf("MODE1/2352", name));
    isRefused(t, "missing", { path: path("in/a.cue") }, path("in/a.cue"), path("in/secret.bin"));
  }
  writeFileSync(path("in/secret.bin"), raw(1));
  isDisk(t, { path: path("in/a.cue") }, disk, 2048);
  writeFileSync(path("in/a.cue"), sheetOf("MODE1/2352", ".."));
  isRefused(t, "missing", { path: path("in/a.cue") }, "without a usable name");
});

test("sheets that can't be are refused in words, and cut files where they end", (t) => {
  const path = testFolder(t);
  writeFileSync(path("disc.bin"), raw(1));
  const refused = (code: Parameters<typeof isRefused>[1], sheet: string, ...words: string[]) => {
    writeFileSync(path("a.cue"), sheet);
    isRefused(t, code, { path: path("a.cue") }, path("a.cue"), ...words);
  };
  const head = 'FILE "disc.bin" BINARY\nTRACK 01 MODE1/2352\n';
  refused("corrupt", head, "track 1", "no INDEX 01");
  refused("corrupt", `${head}INDEX 01 00:61:00\n`, "line 3");
  refused("corrupt", `${head}INDEX 01 00:00:75\n`, "line 3");
  refused("corrupt", `${head}TRACK 02 AUDIO\nINDEX 01 00:00:00\n`, "line 3");
  refused("corrupt", `${head}INDEX 01 00:00:50\nTRACK 02 AUDIO\nINDEX 01 00:00:10\n`, "line 5");
  refused("corrupt", `${head}INDEX 01 99:00:00\n`, "track 1 begins at byte");
  refused("corrupt", `${head}INDEX 01 00:00:00\nTRACK 02 AUDIO\nINDEX 01 00:00:00\n`, "no sectors");
  refused("corrupt", sheetOf("MODE2/2352"), "another mode");
  refused("corrupt", `TRACK 01 AUDIO\n${head}`, "in no file");
  refused("unsupported", sheetOf("MODE2/2324"), "MODE2/2324");
  refused("unsupported", sheetOf("AUDIO"), "sound only");
  refused("unsupported", sheetOf("MODE1/2352").replace("BINARY", "WAVE"), "WAVE");
  refused("missing", sheetOf("MODE1/2352", "other.bin"), path("other.bin"));
  writeFileSync(path("disc.bin"), raw(1).subarray(0, 2352 * 9 + 1000));
  isRefused(t, "corrupt", { path: path("disc.bin") }, path("disc.bin"), "truncated");
  const tail = "INDEX 01 00:00:00\nTRACK 02 AUDIO\nINDEX 01 00:04:00\n";
  writeFileSync(path("a.cue"), `${head}${tail}`);
  isRefused(t, "corrupt", { path: path("a.cue") }, path("disc.bin"), "truncated");
});

test("changed bytes and cut sheets give refusals or other bytes, nothing else", (t) => {
  const data = new MemorySource("/images/disc.bin", raw(1).subarray(0, 2352 * 20));
  survivesDamage(t, Buffer.from(sheetOf("MODE1/2352")), (bytes) => {
    const source = new MemorySource("/images/a.cue", bytes);
    cue.recognises(source);
    const layer = cue.open(source, surroundings("/images/a.cue", { "disc.bin": data }));
    new LayeredDisk(layer.name, [layer]).read(0, Buffer.alloc(100_000));
    layer.integrity?.check(0);
  });
});

test("a sheet made to be slow is not", (t) => {
  const path = testFolder(t);
  writeFileSync(path("disc.bin"), raw(1));
  for (const piece of [" ", "a ", "A", "\t\ta"])
    for (const line of ["FILE ", "TRACK 1", "INDEX "]) {
      const slow = line + piece.repeat(900_000 / piece.length);
      writeFileSync(path("a.cue"), `${sheetOf("MODE1/2352")}${slow} !\n`);
      isRefused(t, "corrupt", { path: path("a.cue") }, "line");
    }
});

test("a text that is no sheet is a raw disk", (t) => {
  const path = testFolder(t);
  for (const text of [
    "FILE of facts\nTRACK record\n",
    "TITLE x\nFILE a BINARY\n",
    "x\nFILE a BINARY\nTRACK 01 AUDIO\n",
  ]) {
    writeFileSync(path("text"), text);
    opened({ path: path("text") }, ({ layers }) => t.is(layers[0]!.format, "raw"));
  }
});
