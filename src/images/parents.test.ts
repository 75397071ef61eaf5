/**
 * Parents that moved, changed or are missing, for every format that has parents: found, or refused in words that name both
 * files and say what to do.
 */

import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import test, { type ExecutionContext } from "ava";
import { images } from "./index.js";
import { haveQemu, isRefused, qemuImg, qemuIo, testFolder, wholeDisk } from "./qemu-test-tools.js";
import { imageOf, layerOf } from "./spin/spin-test-tools.js";
import { makeDiffer, vdiAt } from "./vdi-test-tools.js";
import { makeVhd } from "./vhd/vhd-test-tools.js";
import { guids, makeVhdx } from "./vhdx/vhdx-test-tools.js";

const MiB = 1 << 20;

type Path = (name: string) => string;

interface Kind {
  readonly format: string;
  /** What the format records of its parent: nothing but a path, what it is, or also what state it was in. */
  readonly records: "path" | "identity" | "state";
  /** Whether the child records where its parent is. */
  readonly recordsNoPath?: boolean;
  /** Makes an image of its own at `base`, and `child` over it; each call makes another base, with other bytes. */
  make(path: Path, base: string, child: string): void;
  /** Changes the base as a write to it would. */
  change(path: string): void;
}

const vhdIds = ["base-base-base-1", "base-base-base-2"];
const qemuChain = (format: string) => (path: Path, base: string, child: string) => {
  qemuImg("create", "-q", "-f", format, path(base), `${MiB}`);
  qemuIo(path(base), format, [`write -P ${1 + (randomBytes(1)[0]! % 200)} 0 1M`]);
  qemuImg("create", "-q", "-f", format, "-b", base, "-F", format, path(child));
};
const qemuChange = (format: string) => (path: string) => qemuIo(path, format, ["write -P 250 4k 4k"]);

const kinds: readonly Kind[] = [
  {
    format: "spin",
    records: "state",
    make(path, base, child) {
      const disk = Buffer.concat([randomBytes(100), Buffer.alloc(70_000, 1)]);
      const image = imageOf(disk);
      writeFileSync(path(base), image);
      disk[50_000]! ^= 1;
      writeFileSync(path(child), imageOf(disk, { base: [layerOf(image, base)] }));
    },
    change: (path) =>
      writeFileSync(path, imageOf(Buffer.alloc(70_100, 7), { id: layerOf(readFileSync(path)).trailer.id })),
  },
  ...["qcow2", "qcow", "qed"].map(
    (format): Kind => ({ format, records: "path", make: qemuChain(format), change: qemuChange(format) }),
  ),
  { format: "vmdk", records: "state", make: qemuChain("vmdk"), change: qemuChange("vmdk") },
  {
    format: "vhd",
    records: "identity",
    make(path, base, child) {
      const id = vhdIds.reverse()[0]!;
      writeFileSync(path(base), makeVhd({ blocks: "ab", id }));
      writeFileSync(
        path(child),
        makeVhd({ blocks: ".c", id: "a child in a row", parent: { id, time: 0, name: base } }),
      );
    },
    change: (path) => writeFileSync(path, makeVhd({ blocks: "xb", id: vhdIds[0]! })),
  },
  {
    format: "vhdx",
    records: "state",
    make(path, base, child) {
      const id = `${randomBytes(4).toString("hex")}-2222-3333-4444-555555555555`;
      const parent = { parent_linkage: `{${id}}`, relative_path: `.\\${base}` };
      writeFileSync(path(base), makeVhdx({ blocks: "ab", id }));
      writeFileSync(path(child), makeVhdx({ blocks: ".c", id: guids.top, parent }));
    },
    change: (path) => writeFileSync(path, makeVhdx({ blocks: "xb", id: guids.middle })),
  },
  {
    format: "vdi",
    records: "state",
    recordsNoPath: true,
    make(path, base, child) {
      for (const name of [base, child]) {
        qemuImg("create", "-q", "-f", "vdi", path(name), `${2 * MiB}`);
        qemuIo(path(name), "vdi", [`write -P ${1 + (randomBytes(1)[0]! % 200)} ${name === base ? 0 : MiB} 1M`]);
      }
      makeDiffer(path(child), { path: path(base), disk: wholeDisk({ path: path(base) }) });
    },
    change(path) {
      const file = readFileSync(path);
      file[vdiAt.change]! ^= 1;
      writeFileSync(path, file);
    },
  },
];

test("every format of the table that has parents is here", (t) => {
  const without = ["raw", "unread", "parallels", "iso", "cue"];
  const own = kinds.map(({ format }) => format);
  // Formats that hold whole disks have no parents; one that comes to have them belongs in this test.
  for (const { name } of images)
    if (["spin", "qcow", "qed", "vhd", "vhdx", "vdi", "vmdk", "qcow2"].includes(name)) t.true(own.includes(name));
  t.false(own.some((name) => without.includes(name)));
});

for (const kind of kinds) {
  const { format, records } = kind;
  const child = `child.${format}`;
  const base = `base.${format}`;
  /** A base, a child of it, and what the child shows. */
  const made = (t: ExecutionContext): { path: Path; spec: { path: string }; disk: Buffer } | undefined => {
    if (!haveQemu)
      return void t.pass(t.log("skipped: qemu-img and qemu-io (package qemu-utils) are not installed") as undefined);
    const path = testFolder(t);
    kind.make(path, base, child);
    return { path, spec: { path: path(child) }, disk: wholeDisk({ path: path(child) }) };
  };
  const refused = (t: ExecutionContext, path: Path, code: "missing" | "mismatch", ...words: (string | RegExp)[]) =>
    isRefused(t, code, { path: path(child) }, path(child), ...words);

  test(`${format}: a parent that is missing`, (t) => {
    const { path, spec } = made(t) ?? {};
    if (!path || !spec) return;
    rmSync(path(base));
    refused(t, path, "missing", kind.recordsNoPath ? "VDI with id" : path(base), "--parent");
    isRefused(t, "missing", { ...spec, parent: path("nothing") }, path("nothing"), "no such file");
  });

  test(`${format}: a parent that was renamed is named where it can be known, and taken where it is named`, (t) => {
    const { path, spec, disk } = made(t) ?? {};
    if (!path || !spec || !disk) return;
    renameSync(path(base), path("renamed"));
    // Without a path there is nothing else to go by than what the files say.
    if (kind.recordsNoPath) t.true(wholeDisk(spec).equals(disk));
    else if (records === "path") refused(t, path, "missing", path(base), "--parent");
    else refused(t, path, "missing", path(base), `pass --parent ${path("renamed")}`);
    t.true(wholeDisk({ ...spec, parent: path("renamed") }).equals(disk));
  });

  test(`${format}: a parent that was moved elsewhere, and a child that was`, (t) => {
    const { path, spec, disk } = made(t) ?? {};
    if (!path || !spec || !disk) return;
    mkdirSync(path("away"));
    mkdirSync(path("away/far"));
    renameSync(path(base), path(`away/far/${base}`));
    refused(t, path, "missing", kind.recordsNoPath ? "VDI with id" : path(base), "--parent");
    t.true(wholeDisk({ ...spec, parent: path(`away/far/${base}`) }).equals(disk));
    renameSync(path(child), path(`away/far/${child}`));
    t.true(wholeDisk({ path: path(`away/far/${child}`) }).equals(disk), "together they are found again");
  });

  test(`${format}: another image in the parent's place`, (t) => {
    const { path, spec } = made(t) ?? {};
    if (!path || !spec) return;
    renameSync(path(child), path("kept"));
    kind.make(path, base, "other");
    renameSync(path("kept"), path(child));
    if (records === "path") return void t.notThrows(() => wholeDisk(spec)); // nothing tells it
    if (kind.recordsNoPath) refused(t, path, "missing", "VDI with id", "--parent");
    else refused(t, path, "mismatch", path(base), "--parent");
    isRefused(t, "mismatch", { ...spec, parent: path(base) }, path(child), path(base));
  });

  test(`${format}: a plain file in the parent's place`, (t) => {
    const { path, spec } = made(t) ?? {};
    if (!path || !spec) return;
    writeFileSync(path(base), Buffer.alloc(MiB, "plain"));
    if (kind.recordsNoPath) refused(t, path, "missing", "VDI with id", "--parent");
    // Where the parent's format is recorded, a file that isn't of it is damaged.
    else if (format === "qcow2") isRefused(t, "unsupported", spec, path(child), path(base), "can't be used");
    else if (records === "path")
      return void t.notThrows(() => wholeDisk(spec)); // any bytes are a raw disk
    else refused(t, path, "mismatch", path(base), "raw", "--parent");
    if (records !== "path") isRefused(t, "mismatch", { ...spec, parent: path(base) }, path(child), path(base), "raw");
  });

  test(`${format}: a parent that was written to since`, (t) => {
    const { path, spec } = made(t) ?? {};
    if (!path || !spec) return;
    kind.change(path(base));
    if (records !== "state") return void t.notThrows(() => wholeDisk(spec)); // nothing tells it
    refused(t, path, "mismatch", path(base), "changed");
    isRefused(t, "mismatch", { ...spec, parent: path(base) }, path(child), path(base), "changed");
  });

  test(`${format}: a parent that is named and isn't wanted, or is a child itself`, (t) => {
    const { path, spec } = made(t) ?? {};
    if (!path || !spec) return;
    isRefused(t, "usage", { path: path(base), parent: path(child) }, path(base), "without parent", "--parent");
    writeFileSync(path("plain"), Buffer.alloc(MiB));
    isRefused(t, "mismatch", { ...spec, parent: path("plain") }, path("plain"), path(child));
  });
}
