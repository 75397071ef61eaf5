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

test("a packed disk in an archive isn't served as if its packed bytes were the disk", (t) => {
  execFileSync("sh", ["-c", "gzip -k disk; tar cf within.tar disk.gz; rm disk.gz"], { cwd: folder });
  const error = t.throws(() => openLayers({ path: path("within.tar") }), { instanceOf: ImageError });
  t.is(error?.code, "unsupported");
  t.true(error?.message.includes("within.tar") && error.message.includes("gzip"), error?.message);
});

test("a compression that can't be read is named, in parts too", (t) => {
  for (const [signature, words] of [
    ["\x89LZO\x00\r\n\x1a\n", /lzop -d/],
    ["LRZI\x00", /lrzip -d/],
    ["\x02\x21\x4c\x18", /lz4 in its old format.*lz4 -d/],
  ] as const)
    for (const names of [["disk.packed"], ["disk.001", "disk.002"]]) {
      for (const name of names) writeFileSync(path(name), Buffer.alloc(100, name));
      writeFileSync(path(names[0]!), Buffer.concat([Buffer.from(signature, "latin1"), Buffer.alloc(92)]));
      const error = t.throws(() => openLayers({ path: path(names[0]!) }), { instanceOf: ImageError, message: words });
      t.is(error?.code, "unsupported");
      for (const name of names) rmSync(path(name));
    }
});

test("a container that can't be read is named: L01", (t) => {
  writeFileSync(
    path("case.L01"),
    Buffer.concat([Buffer.from("LVF\x09\x0d\x0a\xff\x00", "latin1"), Buffer.alloc(9000)]),
  );
  t.throws(() => openLayers({ path: path("case.L01") }), { message: /EWF image of files.*L01.*ewfmount/ });
});

test("a table of contents of cdrdao is named, and what to open instead", (t) => {
  writeFileSync(path("disc.toc"), 'CD_ROM_XA\n\nTRACK MODE2_RAW\nDATAFILE "disc.bin"\n');
  t.throws(() => openLayers({ path: path("disc.toc") }), {
    code: "unsupported" as never,
    message: /cdrdao.*Open its \.bin/,
  });
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
