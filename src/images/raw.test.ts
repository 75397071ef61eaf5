import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import test from "ava";
import { isDisk, opened, testFolder } from "./qemu-test-tools.js";

test("an ISO is a raw disk", (t) => {
  if (spawnSync("xorriso", ["-version"]).status !== 0) {
    t.log("skipped: xorriso is not installed");
    t.pass();
    return;
  }
  const path = testFolder(t);
  mkdirSync(path("tree"));
  writeFileSync(path("tree/file"), Buffer.alloc(100_000, "some text "));
  execFileSync("xorriso", ["-as", "mkisofs", "-quiet", "-R", "-J", "-o", path("a.iso"), path("tree")], {
    stdio: "pipe",
  });
  isDisk(t, { path: path("a.iso") }, readFileSync(path("a.iso")), 2048);
  opened({ path: path("a.iso") }, ({ layers }) => t.deepEqual([layers.length, layers[0]!.format], [1, "raw"]));
});
