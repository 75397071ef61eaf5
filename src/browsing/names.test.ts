import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "ava";
import fc from "fast-check";
import { byteString, byteStringOfText, bytesOf, escaped, told, unescaped } from "./names.js";

const names = [
  "plain name",
  "\x01\x07\x08\t\n\v\f\r\x1b[2J\x7f",
  "back\\slash",
  byteStringOfText("ümlaut 漢字 😀"),
  "\xff\xfe\x80",
  "half \xc3",
  "\xe6\xbc", // the beginning of a character
];

test("names are escaped as ls -b does, but for spaces", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "spindle-names-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  for (const name of names) writeFileSync(Buffer.concat([Buffer.from(`${folder}/`), bytesOf(name)]), "");
  let listed: string;
  try {
    listed = execFileSync("ls", ["-b", folder], { encoding: "utf8", env: { ...process.env, LC_ALL: "C.UTF-8" } });
  } catch (error) {
    t.log(`skipped: there is no GNU ls: ${(error as Error).message}`);
    t.pass();
    return;
  }
  t.deepEqual(
    names.map(escaped).sort(),
    listed
      .trimEnd()
      .split("\n")
      .map((line) => line.replaceAll("\\ ", " "))
      .sort(),
  );
});

test("marks of writing direction are escaped", (t) => {
  t.is(escaped(byteStringOfText("a\u202egpj.exe")), "a\\342\\200\\256gpj.exe");
});

test("what was escaped is understood", (t) => {
  t.is(unescaped("\\xff\\377\\n\\\\x41\\q\\ "), "\xff\xff\n\\x41\\q ");
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 20 }), (bytes) => {
      const name = byteString(bytes);
      return unescaped(byteStringOfText(escaped(name))) === name;
    }),
  );
});

test("JSON has the bytes of a name that is no UTF-8", (t) => {
  t.deepEqual(told("name", byteStringOfText("é")), { name: "é" });
  t.deepEqual(told("path", "/a\xff"), { path: "/a\ufffd", pathBytes: "2f61ff" });
  t.deepEqual(told("name", byteStringOfText("\ufffd")), { name: "\ufffd" });
});
