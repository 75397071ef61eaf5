import { execFileSync, spawnSync } from "node:child_process";
import test from "ava";
import fc from "fast-check";
import { MemorySource } from "../bytes/memory.js";
import { ImageError } from "../errors.js";
import { PlistData, type PlistValue, readPlist } from "./plist.js";

const read = (text: string | Buffer, before = 0) => {
  const bytes = Buffer.concat([Buffer.alloc(before), Buffer.from(text)]);
  return readPlist(new MemorySource("a.dmg", bytes), before, bytes.length - before);
};

const hasPython = spawnSync("python3", ["--version"]).status === 0;

/** Python's plistlib, an implementation of its own, writes lists of these values. */
test("what Python's plistlib writes is read back, at any place of a file", (t) => {
  if (!hasPython) return void t.pass(t.log("skipped: python3 is not installed") as undefined);
  const value = {
    "resource-fork": { blkx: [{ Name: "a < b & c > \"d\" 'e'", ID: "-1" }, {}, [], ["", "čšž 🎈\n\ttab"]] },
    yes: true,
    no: false,
    number: 8388608,
    negative: -7,
    "": "empty key",
    nested: [[[[[[1]]]]]],
    long: "x".repeat(60_000),
  };
  const program = "import sys, json, plistlib; sys.stdout.buffer.write(plistlib.dumps(json.load(sys.stdin)))";
  const written = execFileSync("python3", ["-c", program], { input: JSON.stringify(value) });
  const plain = (found: PlistValue): unknown =>
    found instanceof Map
      ? Object.fromEntries([...found].map(([key, each]) => [key, plain(each)]))
      : Array.isArray(found)
        ? found.map(plain)
        : found;
  for (const before of [0, 1, 65_530, 100_000]) t.deepEqual(plain(read(written, before)), value);
});

test("bytes are told by their place; comments, declarations, attributes and numeric entities are read", (t) => {
  const text = `\ufeff<?xml version="1.0"?><!-- <dict> --><!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://x">
<plist version='1.0'><dict><key>&#65;&#x42;</key><data>\n\tAAEC\n</data><!-- - -- -> --><key>empty</key><data/><key>hex</key>
<integer>0x10</integer><key>date</key><date>2020-01-01T00:00:00Z</date></dict ></plist>`;
  const found = read(text) as Map<string, PlistValue>;
  const data = found.get("AB");
  t.true(data instanceof PlistData);
  const { position, length } = data as PlistData;
  t.is(Buffer.from(text).toString("latin1", position, position + length), "\n\tAAEC\n");
  t.deepEqual(
    [found.get("hex"), found.get("date"), (found.get("empty") as PlistData).length],
    [16, "2020-01-01T00:00:00Z", 0],
  );
});

const wrap = (inside: string) => `<plist version="1.0">${inside}</plist>`;

for (const [words, text] of [
  ["it ends early", ""],
  ["a tag should begin here", "bplist00"],
  ["doesn't begin with <plist>", "<dict/>"],
  ["it ends early", "<plist>"],
  ["</plist> ends what did not begin", "<plist></plist>"],
  ["more than one value", wrap("<true/><true/>")],
  ["<span> is no value", wrap("<span/>")],
  ["something else than a key", wrap("<dict><string>a</string></dict>")],
  ["a key twice", wrap("<dict><key>a</key><true/><key>a</key><true/></dict>")],
  ["</dict> ends what did not begin", wrap("<dict><key>a</key></dict>")],
  ["doesn't end where it should", wrap("<string>a</key>")],
  ["doesn't end where it should", wrap("<string>a<b/></string>")],
  ["an integer is none", wrap("<integer>1e9</integer>")],
  ["an integer is none", wrap("<integer>99999999999999999999</integer>")],
  ["an integer is none", wrap("<integer/>")],
  ["isn't XML's own", wrap("<string>&bomb;</string>")],
  ["isn't XML's own", wrap("<string>&#xffffffff;</string>")],
  ["isn't XML's own", wrap("<string>&constructor;</string>")],
  ["a DTD of its own", `<!DOCTYPE plist [<!ENTITY a "aaaa">]>${wrap("<true/>")}`],
  ["a tag should be here", wrap("<![CDATA[x]]>")],
  ["has no end (-->)", `<!-- ${wrap("<true/>")}`],
  ["has no end (<)", wrap(`<string>${"a".repeat(70_000)}</string>`)],
  ["has no end (>)", `<plist ${"a".repeat(2000)}>`],
  ["more than 32 levels", wrap("<array>".repeat(10_000))],
  ["more than 100000 values", wrap(`<array>${"<true/>".repeat(100_001)}</array>`)],
] as const)
  test(`a list is refused with its byte: ${words}, ${text.slice(0, 40)}`, (t) => {
    const error = t.throws(() => read(text), { instanceOf: ImageError });
    t.regex(error!.message, /^a\.dmg: .* damaged at byte \d+: /);
    t.true(error!.message.includes(words), error!.message);
  });

test("whatever is given, only ImageErrors come out", (t) => {
  const pieces = [
    "<dict>",
    "</dict>",
    "<key>",
    "</key>",
    "<array>",
    "</array>",
    "<data>",
    "</data>",
    "<integer>",
    "<!--",
    "-->",
    "<?",
    "?>",
    "&amp;",
    "<",
    ">",
    "/>",
    "5",
    " ",
    "<true/>",
    "</plist>",
    "<!DOCTYPE",
  ];
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.constantFrom(...pieces), fc.string({ maxLength: 3 })), { maxLength: 40 }),
      (parts) => {
        try {
          read(`<plist>${parts.join("")}`);
        } catch (error) {
          if (!(error instanceof ImageError)) throw error;
        }
      },
    ),
    { numRuns: 2000 },
  );
  t.pass();
});
