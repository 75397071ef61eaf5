/** The images of other tools, from one end to the other: every command on every kind of container. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { scratch, spindle } from "./image-files-test-tools.js";

const passphrase = "open sesame";

interface Kind {
  readonly name: string;
  readonly format: string;
  readonly options?: string;
  readonly words?: readonly string[];
  /** What verify can tell of it. */
  readonly proves: "content" | "tables" | "nothing";
}

const kinds: readonly Kind[] = [
  { name: "disk.raw", format: "raw", proves: "nothing" },
  { name: "disk.qcow2", format: "qcow2", proves: "tables" },
  { name: "zlib.qcow2", format: "qcow2", words: ["-c"], proves: "tables" },
  { name: "zstd.qcow2", format: "qcow2", options: "compression_type=zstd", words: ["-c"], proves: "tables" },
  { name: "sub.qcow2", format: "qcow2", options: "extended_l2=on", proves: "tables" },
  { name: "locked.qcow2", format: "qcow2", options: "encrypt.format=luks,encrypt.iter-time=10", proves: "tables" },
  { name: "disk.qcow", format: "qcow", proves: "tables" },
  { name: "disk.qed", format: "qed", proves: "tables" },
  { name: "disk.vdi", format: "vdi", proves: "tables" },
  { name: "disk.vhd", format: "vpc", options: "force_size=on", proves: "tables" },
  { name: "fixed.vhd", format: "vpc", options: "subformat=fixed,force_size=on", proves: "tables" },
  { name: "disk.vhdx", format: "vhdx", options: "block_size=1M", proves: "tables" },
  { name: "disk.vmdk", format: "vmdk", proves: "tables" },
  { name: "stream.vmdk", format: "vmdk", options: "subformat=streamOptimized", proves: "content" },
  { name: "flat.vmdk", format: "vmdk", options: "subformat=monolithicFlat", proves: "nothing" },
  { name: "split.vmdk", format: "vmdk", options: "subformat=twoGbMaxExtentSparse", proves: "tables" },
  { name: "disk.hds", format: "parallels", proves: "tables" },
];

/** Files and a disk with them in an ext4, made once; undefined where a program for it is missing. */
const sample = (() => {
  const root = mkdtempSync(join(tmpdir(), "spindle-containers-"));
  test.after.always(() => rmSync(root, { recursive: true, force: true }));
  const [folder, disk] = [join(root, "folder"), join(root, "disk")];
  mkdirSync(join(folder, "letters"), { recursive: true });
  for (const letter of "abc") writeFileSync(join(folder, "letters", letter), Buffer.alloc(300_000, letter));
  writeFileSync(join(folder, "note"), "read me\n");
  writeFileSync(disk, Buffer.alloc(8 << 20));
  try {
    execFileSync("mke2fs", ["-q", "-F", "-t", "ext4", "-L", "sample", "-d", folder, disk]);
    execFileSync("qemu-img", ["--version"]);
    return { folder, disk };
  } catch {
    return undefined;
  }
})();

/** The sample in a container of this kind. */
function made(t: ExecutionContext, { name, format, options, words = [] }: Kind): { path: (name: string) => string } {
  const folder = scratch(t);
  const path = (file: string) => join(folder, file);
  writeFileSync(path("password"), passphrase);
  const secret = options?.includes("encrypt") ? ["--object", `secret,id=key,file=${path("password")}`] : [];
  const all = [options, secret.length > 0 && "encrypt.key-secret=key"].filter(Boolean).join();
  const convert = ["convert", "-q", ...secret, "-f", "raw", "-O", format, ...words, ...(all ? ["-o", all] : [])];
  for (let tries = 0; ; tries++)
    try {
      execFileSync("qemu-img", [...convert, sample!.disk, path(name)], { stdio: "pipe" });
      return { path };
    } catch (error) {
      // It measures its own time to choose the rounds of hashing, and gives up where the system counted none.
      if (tries > 50 || !/CPU usage/.test((error as Error).message)) throw error;
    }
}

/** What a .spin image of the raw disk tells of its bytes. */
let contentRoot: Promise<string> | undefined;
async function contentRootOf(disk: string): Promise<string> {
  contentRoot ??= spindle("create", "--json", disk, `${disk}.spin`).then(({ text }) => JSON.parse(text).contentRoot);
  return await contentRoot;
}

for (const kind of kinds)
  test(`info, ls, cat, cp, verify, restore and create read ${kind.name}`, async (t) => {
    if (!sample) return void t.pass(t.log("skipped: mke2fs or qemu-img is not installed") as undefined);
    const { path } = made(t, kind);
    const image = path(kind.name);
    const more = kind.options?.includes("encrypt") ? ["--password-file", path("password")] : [];
    const run = async (...words: string[]) => {
      const { code, stdout, stderr } = await spindle(...words, ...more);
      t.is(code, 0, `${words.join(" ")}: ${stderr}`);
      return stdout.toString();
    };
    const info = JSON.parse(await run("info", "--json", image));
    t.is(info.format, { vpc: "vhd" }[kind.format] ?? kind.format);
    t.is(info.filesystems[0].filesystem.label, "sample");
    t.true((await run("info", image)).includes("sample"));
    t.deepEqual((await run("ls", image)).trim().split("\n").sort(), ["letters", "lost+found", "note"]);
    t.is(await run("cat", image, "/note"), "read me\n");
    await run("cp", image, "/letters", path("copied"));
    for (const name of readdirSync(join(sample.folder, "letters")))
      t.true(readFileSync(join(path("copied"), name)).equals(readFileSync(join(sample.folder, "letters", name))));

    const verdict = await spindle("verify", image, "--threads", "1", ...more);
    t.is(verdict.code, kind.proves === "nothing" ? 4 : 0, verdict.stderr);
    if (kind.proves === "content") t.regex(verdict.text, /^sound \(/m);
    else if (kind.proves === "tables")
      t.regex(verdict.text, /no checksums of the data.*\nsound, as far as it can be told/);
    else t.regex(verdict.stderr, /has no checksums, nothing can be verified/);

    const disk = readFileSync(sample.disk);
    await run("restore", image, path("restored"), "--threads", "1");
    t.true(readFileSync(path("restored")).equals(disk));
    const created = JSON.parse(await run("create", "--json", image, path("backup.spin"), "--threads", "1"));
    t.is(created.contentRoot, await contentRootOf(sample.disk));
  });

test("damage of a container is told by verify with the exit code for it", async (t) => {
  if (!sample) return void t.pass(t.log("skipped: mke2fs or qemu-img is not installed") as undefined);
  const { path } = made(t, { name: "a.qcow2", format: "qcow2", proves: "tables" });
  const file = readFileSync(path("a.qcow2"));
  const l2 = Number(file.readBigUInt64BE(Number(file.readBigUInt64BE(40))) & 0x00fffffffffffe00n);
  file.copyWithin(l2 + 8, l2, l2 + 8);
  writeFileSync(path("a.qcow2"), file);
  const { code, text } = await spindle("verify", path("a.qcow2"));
  t.is(code, 5);
  t.regex(text, /a\.qcow2: tables checked, 1 damaged; qcow2 has no checksums/);
  t.regex(text, /disk bytes 65536 to 131071: .*kept in the same place/);
  t.regex(text, /^damaged/m);
});
