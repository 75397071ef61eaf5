import { execFileSync } from "node:child_process";
import test from "ava";
import { ImageError } from "../errors.js";
import { humanSize, parseSize } from "./sizes.js";

test("sizes are shown in binary units with at most one digit behind the point", (t) => {
  const shown: [number, string][] = [
    [0, "0 B"],
    [1, "1 B"],
    [1023, "1023 B"],
    [1024, "1 KiB"],
    [65536, "64 KiB"],
    [1610612736, "1.5 GiB"],
    [1048575, "1 MiB"],
    [16 * 2 ** 40, "16 TiB"],
    [2 ** 60, "1024 PiB"],
  ];
  for (const [bytes, text] of shown) t.is(humanSize(bytes), text);
});

test("sizes are read as numfmt of the GNU core utilities reads them", (t) => {
  const read = (from: string, text: string) =>
    Number(execFileSync("numfmt", [`--from=${from}`, text], { encoding: "utf8" }).trim());
  t.is(parseSize("4096", "--chunk"), read("none", "4096"));
  for (const text of ["64K", "1M", "1.5G", "16T"]) t.is(parseSize(text, "--chunk"), read("iec", text));
  for (const text of ["64Ki", "1Mi", "3Gi"]) t.is(parseSize(`${text}B`, "--chunk"), read("iec-i", text));
  for (const text of ["64K", "2M"]) t.is(parseSize(`${text}B`, "--chunk"), read("si", text));
  t.is(parseSize(" 64k ", "--chunk"), 65536);
  t.is(parseSize("512B", "--chunk"), 512);
  t.is(parseSize("1 MiB", "--chunk"), 1048576);
});

test("what is no size is refused with the option's name", (t) => {
  for (const text of [
    "",
    "K",
    "-1",
    "1e3",
    "0x10",
    "12Q",
    "64KiBB",
    "64Ki",
    "1.5",
    "1.0001K",
    "9999999P",
    "NaN",
    "1,5G",
  ]) {
    const error = t.throws(() => parseSize(text, "--cache"), { instanceOf: ImageError }, text);
    t.is(error?.code, "usage");
    t.true(error?.message.startsWith("--cache: "));
  }
});
