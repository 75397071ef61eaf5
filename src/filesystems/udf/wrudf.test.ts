/** UDF on media for packet writing as wrudf, another program than the tests' own, writes it. */
import { execFileSync, type StdioOptions } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import { FileSource } from "../../bytes/file.js";
import { MemorySource } from "../../bytes/memory.js";
import type { FileSystem } from "../filesystem.js";
import { contentsOf, hasTools, noise, run, scratchFolder, sparseFile } from "../image-test-tools.js";
import { openRecognised, testSurroundings, walk } from "../shared-test-images.js";
import { udf } from "./udf.js";

const lines = Array.from({ length: 500 }, (_, index) => `line ${index}\n`).join("");

/** What is in the volumes of both tests, but for what differs. */
function tree(t: ExecutionContext): string {
  const folder = scratchFolder(t);
  mkdirSync(join(folder, "d/e"), { recursive: true });
  mkdirSync(join(folder, "folder"));
  writeFileSync(join(folder, "folder/lines"), lines);
  writeFileSync(join(folder, "d/e/deep.txt"), "deep");
  writeFileSync(join(folder, "newer"), "written in a second session");
  return folder;
}

const sorted = (entries: Iterable<[string, string]>) => new Map([...entries].sort());

function contents(t: ExecutionContext, fileSystem: FileSystem): Map<string, string> {
  const { files, errors } = walk(fileSystem);
  t.deepEqual([...errors], []);
  return sorted(
    [...files].map(([path, { attributes, hash }]): [string, string] => [
      path,
      attributes.kind === "directory" ? "directory" : `${attributes.size} ${hash}`,
    ]),
  );
}

test("files that wrudf writes to a CD-RW, and directories that it changes, read as they were", (t) => {
  if (!hasTools(t, "udftools", "mkudffs", "wrudf")) return;
  const folder = tree(t);
  writeFileSync(join(folder, "folder/data"), noise(70_001, 3));
  const path = sparseFile(scratchFolder(t), "disc", 40 << 20);
  run("mkudffs", ["--media-type=cdrw", "--udfrev=1.50", path]);
  const stdio: StdioOptions = ["pipe", "ignore", "ignore"];
  const write = (...commands: string[]) =>
    execFileSync("wrudf", [path], { cwd: folder, input: ["y", ...commands, "quit", ""].join("\n"), stdio });
  write("mkdir folder", "cp folder/lines lines", "cp newer .", "cdc ..", "cp -r d .");
  write("cp newer .", "cdc folder", "rm newer", "cp folder/data data");
  const source = FileSource.open(path);
  t.teardown(() => source.close());
  const fileSystem = openRecognised(t, udf, source);
  t.deepEqual(fileSystem.facts!.partitions, ["sparable"]);
  const found = contents(t, fileSystem);
  // mkudffs's own, for the blocks that no packet has.
  t.true(found.delete("/Non-Allocatable Space"));
  t.deepEqual(found, sorted(contentsOf(folder)));
});

/**
 * The start of a CD-R: mkudffs --media-type=cdr --udfrev=1.50 made it, wrudf wrote to it in two sessions (a file of the first was
 * removed in the second and is elsewhere now). wrudf takes an image for a CD-R only when its mistakes there are corrected
 * (2.3 reads through a null pointer), so that it can't be asked in a test. Packed with zstd.
 */
const disc = `
  KLUv/aQAyBEAVAEAaABCRUEwMQFOU1IwMlQGAPZ/oMMA6u7A/wCc/+I/APjr+xMA46/+fwdXFAwAJldBMVB1mgNwIhiZuaozR8y2uJlpYCwoRC
  SH/nu9NDogZBMdkGb3oaQRLL4EQfiYxTQhUqY/ADcALgAhWElTqbRUCgoqA8MA+fCIINIIWWGdNg6TViKVZBUUExIREA8ODQzX3V3P13XXSVut
  tpTK9Xcnca0Xmm7M1wVFf/dffzf61SnbTkK/Xu+Zy7mp6ep8AUCfD9FCgQXBO0gYCMAxeFhwwFQmU4llgoKFtBKKtJ0Cb0DHzs79VXh3z0tcS8
  CmK/EF/aCPGz2httW2SmUj7CRjrVKbSOgX7w7AveXr75pr3c2+1/9RptMGJsIR9JJrjcx0Vd+PS8/Kp9zyBx/Je/45KcYC05UZJyDhkREaw1CQ
  s+arQTrM9ocjKpjtD0eqAoT0/3/6Cf84mAJwBBOALaiyry30fv14/7od0xVHDByI2hIZ9l8voh1rA0atPB5BmRXW6gCL7Mven+AHakA/XKStsD
  zQH1yEN8aYDMKT8CCTgHC3KIYbUOXQmGqoqf+vF1YEAgAiwgcP4G0ADwC1AtqgH9WshpQpgP+h/+P/9D/m+tw63B6XCQB19yAH/BUBxx/kgDrw
  HQRWHMCtDxoGnLXpl4cStAEAgAEAAgA08InxxvI28wP08fUOoGB6DvD1fwPw13bp/1z6v5v+76b/u/T3xwFAXNn99QgBuuYBVAUAIkkYHZDNcH
  ++ze7cu8cQgBfMvEB5XtobBTwfFq34ZMsU/fnE/bvRbfdj2RbpKyDw/8H3D3rYFPdkWeF5Fj1XhkHLJLJJoi7Nqpg5/P9//w4M/B0f5u4tOz73
  7zz3947MdxeXyxUAE+kgB3nYbhD+uYNrR15WxkvfCxg7gDKAc0HWQKlB9kW+JID+WAZMDe5WHkOoEfh8GyEUw0Mjgb7/k1HhpmEcqvB/4AQCAB
  AAAgAQAAIAEAClKwDaQfgLPvAYFTr4BRKRvobbyDkczbPl5eniY+BpBmQ7AjbKdDSahu3bxaMtsyNsKaWUUj4s2EZBMb6NMK6ikUZaS3YKqgCP
  AKwArbXWWuvu7u7uZmZmZmbe3d3d3VVVVVVVzczMzMxERERERLy7u7u7a15NPMZa82riMQDr5BP0A6RG/38CFBDDTTjB6KExVEPnMyaZEklGyg
  /z/z+BCEr9/086zItQCEHy5QdywXN6IQQE1OFK1Zh2/iChH6Ignxk2PqTYOfF0eI//S276/yf/c371m5aw2NKTmgv/////jf//1f+Y///VlZAd
  nQuk0Z989FGteTXx2MLWvJp4bF1rXk08tlhrXk08tppXE4+t1ppXE4+tbs2riccWt+bVxGNrW/Nq4rGlrXk18djK1ryaeGxha15NPLauNa8mHl
  usNa8mHlvNq4nHVmvNq4nHVrfm1cRji1vzauKxta15NfHY0ta8mnhsZWteTTy2sDWvJh5b15pXE48t1ppXE4+txVprAc/pAsRDxQ8IEKHipW9J
  kAOIDB+fHhuc/zG3ibnMi0RMyUJkIgDz0hfcMHJiJIHnNdcBYUNzntGxNBnaAATUIgZRAZr/pBdQf8yLihxhAKA1ryYeW601ryYeW92aVxOPLW
  7Nq4nH1rbm1cRjS1vzauKxla15NfHYwta8mnhsXWteTTy2WGteTTy2mlcTj63WmlcTj61uzauJxxa35tXEY2tb82risaWteTXx2MoPLvzqwRf9
  1T5H6c0OnwqIHfIP+dTwCbox3YSWq/98pJSPIj+OM4OjxtURfKRUjue4OnFQYgFH5zg0My9CoGMi6gkSeuFDdGpxCvo53UD4bxTc9KIUT65+5S
  NFGil18ysGvzr9SsCv1K9sftXgN78ZYUPjwcGhDPhw9Z6PFKnHdDXKSbLj6i8+UqpAzEtfkKGmxZBPD5AQDFPN6DKjExcmUX4iRGDUThUDK246
  UBqNrsNLkJMqlLgBEiFKjEi3suWDhs+wMQODjcxnSj85CVC6AdL/UoKyqHIQu5GRFCSpZDiyLhmRiZI0SQdyEAQChBNCCJFARCQUkRgJRQIRCS
  JJSjUGBAMOgQVUKCMY1I343WO0lBzmCTAEiAHURAQ4SX6d6AXUVSvY/kOvLwf6/wC2WLmI/0vrEhw6kcRHglTZQ6uQCMD2P4Q2+x9AdhBdgZkF
  aw0sgQwAvOwH978BCFsQgAGAahM/A93RxnzQMiLoju9RgM6aK3bmkhIJnTmAOjYWhscc4YU/D3T3RM+IAag45xPsYysGIGgKQ031IVQdPw5jZU
  KLUG5CjiCeDPILcFvHLtN2SGzddQAg0CKIq+GvPXgd8UQwbuH/nB3A2JvxknPyCcN1GQOADGjy9qYOKxDIsJxuJJN+KHyVGicpxyf8tWx/NAB3
  myn/Y2AO0K8US0oe9H8Asuvrd+xQfijfn7iYiLCwMOWGasSLM35cT4X5MfU31QA8gDiaiT8yHAf0WMWSqoY1sEX3AcyOPzgADkDYoP8BELScr1
  3Df37c1UabpKvckl4qYCWkqCoSMClJSooFjEQWFZSXOm9c/dFHYVCkIBo1MClZkIYtDIpURGOGBiUJ07CBlUGg+k5ee8VQGQQpCgZNjEKWhEEr
  gyBVwZCpQUjSMGhkyRCoc+CrnjGIJiJJS6GAlZCiqkjApCQpKRYwEllUFBWYBo0JjUsFu9y54QTrlKuc3cLCzUY7XN3RxqmSKW7dqT9xw5TeoJ
  RzjT0r7ldY4nMJWgTQgBEO4Edz52KafPlGvCvfDXCEuwz8Kn8hXwPITAdc2HDjr8nC6n+2yoZMdO6CDBR/Tsv45/y9cMA7Mz3ZoB0H8CcY+P5v
  yAAAFK13eaHyDw==
`;

test("files on a CD-R with a VAT, written by wrudf in two sessions, read as they were", (t) => {
  if (!hasTools(t, "zstd", "zstd")) return;
  const folder = tree(t);
  writeFileSync(join(folder, "folder/small"), "small");
  const bytes = execFileSync("zstd", ["-d"], { input: Buffer.from(disc, "base64"), maxBuffer: 1 << 22 });
  const fileSystem = openRecognised(t, udf, new MemorySource("disc", bytes));
  t.is(fileSystem.label, "written");
  t.deepEqual(fileSystem.facts!.partitions, ["physical", "virtual"]);
  t.deepEqual(fileSystem.warnings, []);
  t.deepEqual(contents(t, fileSystem), sorted(contentsOf(folder)));
  // The first session's VAT still lies where it ended, and shows what was there then.
  const first = udf.open(new MemorySource("first session", bytes.subarray(0, 548 * 2048)), testSurroundings());
  t.deepEqual([...contents(t, first).keys()], ["/d", "/d/e", "/d/e/deep.txt", "/folder", "/folder/lines", "/small"]);
});
