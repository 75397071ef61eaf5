/** What can be said about an image, to every command that opens one. */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import test, { type ExecutionContext } from "ava";
import { scratch, spindle } from "./image-files-test-tools.js";
import { commands } from "./index.js";
import { openingOptions } from "./opening.js";

const program = join(dirname(fileURLToPath(import.meta.url)), "../../../bin/spindle.js");
const haveQemu = spawnSync("qemu-img", ["--version"]).status === 0;

function withoutQemu(t: ExecutionContext): boolean {
  if (!haveQemu) t.pass(t.log("skipped: qemu-img is not installed (package qemu-utils)") as undefined);
  return !haveQemu;
}

function qemuImg(...words: string[]): void {
  const made = spawnSync("qemu-img", words, { encoding: "utf8" });
  if (made.status !== 0) throw new Error(made.stderr);
}

/** An image encrypted with the password `open sesame`, old QEMU's way: that costs no time. */
function encrypted(t: ExecutionContext): { folder: string; image: string; disk: Buffer } {
  const folder = scratch(t);
  const [image, raw] = [join(folder, "a.qcow2"), join(folder, "raw")];
  const disk = Buffer.alloc(300 * 1024, "what nobody is to see. ");
  writeFileSync(raw, disk);
  const secret = ["--object", "secret,id=key,data=open sesame"];
  qemuImg(
    "convert",
    "-q",
    ...secret,
    "-f",
    "raw",
    "-O",
    "qcow2",
    "-o",
    "encrypt.format=aes,encrypt.key-secret=key",
    raw,
    image,
  );
  return { folder, image, disk };
}

test("every command that opens an image takes the same options for it", async (t) => {
  for (const { name, load } of commands) {
    const { options, positionals } = await load();
    // What an overlay needs to be opened it tells itself.
    if (!("image" in positionals) || name === "commit") continue;
    for (const option of Object.keys(openingOptions)) t.true(option in options, `${name} --${option}`);
  }
});

test("a password comes from a file, from standard input, or from the environment", async (t) => {
  if (withoutQemu(t)) return;
  const { folder, image, disk } = encrypted(t);
  const file = join(folder, "password");
  for (const [nth, ending] of ["", "\n", "\r\n"].entries()) {
    writeFileSync(file, `open sesame${ending}`);
    const target = join(folder, `restored ${nth}`);
    const { code, stderr } = await spindle("restore", image, target, "--password-file", file);
    t.is(code, 0, stderr);
    t.true(readFileSync(target).equals(disk));
  }
  const run = (words: string[], input: string, env: Record<string, string> = {}) =>
    spawnSync(process.execPath, [program, ...words], { input, env: { ...process.env, ...env }, encoding: "utf8" });
  const piped = run(["restore", image, join(folder, "piped"), "--password-file", "-"], "open sesame\n");
  t.is(piped.status, 0, piped.stderr);
  t.true(readFileSync(join(folder, "piped")).equals(disk));
  const told = run(["restore", image, join(folder, "told")], "", { SPINDLE_PASSWORD: "open sesame" });
  t.is(told.status, 0, told.stderr);
  t.true(readFileSync(join(folder, "told")).equals(disk));
});

test("without a password, and nobody to ask, the command ends with the code for it and says what to do", async (t) => {
  if (withoutQemu(t)) return;
  const { folder, image } = encrypted(t);
  for (const words of [
    ["info", image],
    ["ls", image],
    ["verify", image],
    ["create", image, join(folder, "x.spin")],
  ]) {
    const { code, stderr } = await spindle(...words);
    t.is(code, 9, words[0]);
    t.regex(stderr, /a\.qcow2: is encrypted .*--password-file FILE/);
  }
  const env = { ...process.env, SPINDLE_PASSWORD: "" };
  const empty = spawnSync(process.execPath, [program, "info", image], { env, encoding: "utf8" });
  t.is(empty.status, 9);
  t.regex(empty.stderr, /a\.qcow2: is encrypted .*Give its password/);
  const { code, stderr } = await spindle("info", image, "--password-file", join(folder, "nothing"));
  t.is(code, 3);
  t.regex(stderr, /reading --password-file .*nothing: no such file/);
});

test("at a terminal the password is asked for, and isn't shown", (t) => {
  if (withoutQemu(t)) return;
  const { folder, image, disk } = encrypted(t);
  const target = join(folder, "restored");
  const command = `${process.execPath} ${program} restore ${image} ${target}`;
  // script(1) gives the command a terminal; an x too many is taken back with the key for it.
  const typing = `(sleep 1; printf 'open sesamex\\177\\r'; sleep 2) | script -qec "${command}" /dev/null`;
  const said = spawnSync("sh", ["-c", typing], { encoding: "utf8" });
  if (said.error || /script: not found/.test(said.stderr))
    return void t.pass(t.log("skipped: script is not installed") as undefined);
  t.regex(said.stdout, /Password of .*a\.qcow2: /);
  t.false(said.stdout.includes("sesame"), said.stdout);
  t.true(readFileSync(target).equals(disk));
});

test("an image is taken for another format where that is asked for, and its snapshot and its parent are named", async (t) => {
  if (withoutQemu(t)) return;
  const folder = scratch(t);
  const path = (name: string) => join(folder, name);
  writeFileSync(path("base.raw"), Buffer.alloc(65536, "b"));
  mkdirSync(path("deep"));
  qemuImg("create", "-q", "-f", "qcow2", "-b", "../base.raw", "-F", "raw", path("deep/a.qcow2"));
  const refused = await spindle("restore", path("deep/a.qcow2"), path("1"));
  t.is(refused.code, 4);
  t.regex(
    refused.stderr,
    /deep\/a\.qcow2: names .*base\.raw as its base, a raw disk that is not in its folder.*--parent \S+base\.raw/,
  );
  for (const words of [["--parent", path("base.raw")], ["--trust-paths"]]) {
    const target = path(words[0]!);
    const { code, stderr } = await spindle("restore", path("deep/a.qcow2"), target, ...words);
    t.is(code, 0, stderr);
    t.true(readFileSync(target).equals(Buffer.alloc(65536, "b")));
  }
  const { text } = await spindle("info", "--json", path("deep/a.qcow2"), "--format", "raw");
  t.is((JSON.parse(text) as { format: string }).format, "raw");
  qemuImg("create", "-q", "-f", "qcow2", path("s.qcow2"), "1M");
  qemuImg("snapshot", "-c", "then", path("s.qcow2"));
  t.is((await spindle("create", path("s.qcow2"), path("s.spin"), "--snapshot", "then")).code, 0);
  t.is((await spindle("verify", path("s.spin"))).code, 0);
  const none = await spindle("create", path("s.qcow2"), path("t.spin"), "--snapshot", "now");
  t.is(none.code, 2);
  t.regex(none.stderr, /has no snapshot now\. It has then/);
});
