import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "ava";
import { openLayers } from "../chain.js";
import { ImageError } from "../errors.js";

const folder = mkdtempSync(join(tmpdir(), "spindle-unread-"));
test.after.always(() => rmSync(folder, { recursive: true, force: true }));
const path = (name: string) => join(folder, name);
writeFileSync(path("disk"), Buffer.alloc(100_000, 7));

test("an archive isn't served as if its bytes were the disk", (t) => {
  execFileSync("sh", ["-c", "tar cf disk.tar disk"], { cwd: folder });
  const error = t.throws(() => openLayers({ path: path("disk.tar") }), { instanceOf: ImageError });
  t.is(error?.code, "unsupported");
  t.true(error?.message.includes(path("disk.tar")) && error.message.includes("tar archive"), error?.message);
});

test("a container that can't be read is named: E01", (t) => {
  writeFileSync(
    path("case.E01"),
    Buffer.concat([Buffer.from("EVF\x09\x0d\x0a\xff\x00", "latin1"), Buffer.alloc(9000)]),
  );
  t.throws(() => openLayers({ path: path("case.E01") }), { message: /EWF.*ewfmount/ });
});

test("a packed file is taken byte for byte where raw is asked for", (t) => {
  writeFileSync(path("bytes"), Buffer.concat([Buffer.from([0x1f, 0x8b, 8]), Buffer.alloc(600)]));
  const opened = openLayers({ path: path("bytes"), format: "raw" });
  t.is(opened.disk.size, 603);
  opened.close();
});

test("a raw disk, an empty file and a short one are no such container", (t) => {
  for (const size of [0, 1, 600]) {
    writeFileSync(path("small"), Buffer.alloc(size));
    const opened = openLayers({ path: path("small") });
    t.is(opened.layers[0]!.format, "raw");
    opened.close();
  }
});
