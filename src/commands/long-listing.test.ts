import { execFileSync } from "node:child_process";
import test from "ava";
import { listedTime, shortSize } from "./long-listing.js";

const sizes = [0, 1, 1023, 1024, 1025, 1536, 10_137, 10_138, 10_240, 10_241, 102_400, 1_047_552, 1_048_575, 1_048_576];
const larger = [9.9 * 2 ** 20, 999 * 2 ** 20, 1023.5 * 2 ** 20, 2 ** 30, 5 * 2 ** 40 + 1, 2 ** 50];

test("sizes for people are those of numfmt, rounded up", (t) => {
  for (const size of [...sizes, ...larger.map(Math.floor)]) {
    let expected: string;
    try {
      expected = execFileSync("numfmt", ["--to=iec", "--round=up", String(size)], { encoding: "utf8" }).trim();
    } catch (error) {
      t.log(`skipped: there is no numfmt: ${(error as Error).message}`);
      break;
    }
    t.is(shortSize(size), expected, String(size));
  }
  t.is(shortSize(1536), "1.5K");
});

test("times of the last half year have hours, others the year", (t) => {
  const now = Date.parse("2024-06-01T12:00") / 1000;
  const at = (text: string) => listedTime({ seconds: Date.parse(text) / 1000, nanoseconds: 5 }, now);
  t.is(at("2024-05-03T09:05"), "May  3 09:05");
  t.is(at("2023-11-30T09:05"), "Nov 30  2023");
  t.is(at("2024-06-01T12:01"), "Jun  1  2024");
  t.is(listedTime({ seconds: 2 ** 50, nanoseconds: 0 }, now), "1125899906842624");
});
