import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "ava";
import { splitOf } from "./split-names.js";

const judged = (name: string, ...others: string[]) => splitOf(name, () => [name, ...others]);
const range = (from: number, to: number, text: (value: number) => string) =>
  Array.from({ length: to - from + 1 }, (_, index) => text(from + index));

test("parts are numbered from 0 or 1 on, padded or after the word part", (t) => {
  for (const names of [
    ["disk.001", "disk.002"],
    ["disk.000", "disk.001", "disk.002"],
    ["disk.raw.00", "disk.raw.01"],
    ["disk.part1", ...range(2, 11, (value) => `disk.part${value}`)],
    ["disk.raw.part01", "disk.raw.part02"],
    ["disk.PART_1", "disk.PART_2"],
    range(1, 1001, (value) => `d.${String(value).padStart(3, "0")}`),
  ])
    t.deepEqual(
      splitOf(names[0]!, () => [...names].sort().reverse()),
      { kind: "first", parts: names },
    );
});

test("split(1) names parts in letters and digits, and makes names longer when they run out", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "spindle-split-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  for (const [count, options, prefix] of [
    [5, [], "disk.raw."],
    [5, [], "disk.raw.part"],
    [5, [], "x"],
    [655, [], "letters."],
    [95, ["-d"], "digits."],
    [20, ["--numeric-suffixes=1"], "from1."],
    [5, ["-a", "5"], "long."],
  ] as const) {
    writeFileSync(join(folder, "data"), Buffer.alloc(count, "abcdefg"));
    execFileSync("split", ["-b", "1", ...options, join(folder, "data"), join(folder, prefix)], { cwd: folder });
    const parts = readdirSync(folder)
      .filter((name) => name.startsWith(prefix) && name !== "data")
      .sort();
    t.is(parts.length, count);
    t.deepEqual(
      splitOf(parts[0]!, () => readdirSync(folder)),
      { kind: "first", parts },
      prefix,
    );
    t.deepEqual(
      splitOf(parts.at(-1)!, () => readdirSync(folder)),
      { kind: "later", first: parts[0]! },
      prefix,
    );
  }
});

test("the missing part is named, wherever it is", (t) => {
  const missing = (name: string, ...others: string[]) => {
    const split = judged(name, ...others);
    return split?.kind === "gap" ? [split.missing, split.other] : split?.kind;
  };
  t.deepEqual(missing("d.001", "d.003"), ["d.002", "d.003"]);
  t.deepEqual(missing("d.001", "d.002", "d.005"), ["d.003", "d.002"]);
  t.deepEqual(missing("d.005", "d.001", "d.002"), ["d.003", "d.001"]);
  t.deepEqual(missing("d.002", "d.003"), ["d.001", "d.003"]);
  t.deepEqual(missing("d.aa", "d.ab", "d.ad"), ["d.ac", "d.ab"]);
  t.deepEqual(missing("d.ab", "d.ac"), ["d.aa", "d.ac"]);
  t.deepEqual(missing("d.part9", ...range(1, 8, (value) => `d.part${value}`), "d.part11"), ["d.part10", "d.part1"]);
});

test("a middle part tells which is the first", (t) => {
  t.deepEqual(judged("d.002", "d.001", "d.003"), { kind: "later", first: "d.001" });
  t.deepEqual(judged("d.001", "d.000"), { kind: "later", first: "d.000" });
  t.deepEqual(judged("d.part10", ...range(1, 9, (value) => `d.part${value}`)), { kind: "later", first: "d.part1" });
});

test("names that only look like a part's are left alone", (t) => {
  t.is(judged("disk.001", "disk.txt", "other.002", "disk.2"), undefined);
  t.is(judged("disk.2023", "disk.2024", "disk.2025"), undefined);
  t.is(judged("disk.img", "disk.imh", "disk.aa"), undefined);
  t.is(judged("disk.gz", "disk.xz", "disk.raw"), undefined);
  t.is(judged("disk.1", "disk.2"), undefined);
  t.is(judged("disk.aff", "disk.afg"), undefined);
  t.is(judged("001", "002"), undefined);
  t.is(judged("xml", "xls"), undefined);
  t.deepEqual(judged("disk.aa", "disk.ab", "disk.gz", "disk.xz"), { kind: "first", parts: ["disk.aa", "disk.ab"] });
  t.deepEqual(judged("disk.001", "disk.002", "disk.2023", "disk.02", "disk.002.md5"), {
    kind: "first",
    parts: ["disk.001", "disk.002"],
  });
  t.is(
    splitOf("disk.spin", () => ["disk.spin"]),
    undefined,
  );
  splitOf("disk.qcow2", () => t.fail("the folder was listed for a name that can't be a part's") as never);
});
