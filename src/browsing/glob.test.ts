import { execFileSync } from "node:child_process";
import test from "ava";
import { glob } from "./glob.js";

const patterns = [
  "*",
  "a*",
  "*.txt",
  "?",
  "a?c",
  "[a-c]x",
  "[!a-c]x",
  "[]]",
  "[a-]",
  "\\*",
  "*a*b*",
  "a\\",
  "[\\]]",
  "é?",
];
const names = ["", "a", "abc", "a.txt", ".txt", "ax", "dx", "]", "-", "*", "xaxbx", "ab", "a/b.txt", "éa", "漢", "a\\"];

test("patterns match as the shell's do", (t) => {
  const script = "p=$1; shift; for n; do case $n in $p) echo yes;; *) echo no;; esac; done";
  for (const pattern of patterns.filter((one) => one !== "a\\")) {
    const expected = execFileSync("bash", ["-c", script, "bash", pattern, ...names], {
      encoding: "utf8",
      env: { ...process.env, LC_ALL: "C.UTF-8" },
    });
    const fits = glob(pattern, "--name");
    t.deepEqual(
      names.map((name) => (fits(name) ? "yes" : "no")),
      expected.trimEnd().split("\n"),
      pattern,
    );
  }
});

test("case is ignored when asked", (t) => {
  t.true(glob("*.JPG", "--iname", true)("x.jpg"));
  t.true(glob("[A-C]É", "--iname", true)("bé"));
  t.false(glob("*.JPG", "--name")("x.jpg"));
});

test("a set that isn't closed is refused", (t) => {
  t.throws(() => glob("a[b", "--name"), { code: "usage", message: /\[ is not closed/ });
});

test("a pattern of many stars takes no time on a long name", (t) => {
  t.false(glob(`${"*a".repeat(50)}b`, "--name")("a".repeat(20_000)));
});
