import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import test from "ava";
import { scratch, spindle } from "./image-files-test-tools.js";

/** An appliance of two raw disks, the second of which holds a filesystem, with a manifest. */
function appliance(folder: string): { path: string; disks: Buffer[] } {
  const run = (script: string) => execFileSync("sh", ["-ec", script], { cwd: folder, stdio: "pipe" });
  writeFileSync(`${folder}/one`, Buffer.alloc(300_000, 3));
  run("echo hello > hello; mke2fs -q -F -t ext2 two 2M; debugfs -w -R 'write hello hello' two");
  const files = ["one", "two"].map((name) => `<File ovf:id="${name}" ovf:href="${name}"/>`);
  const list = ["one", "two"].map((name) => `<Disk ovf:diskId="d-${name}" ovf:fileRef="${name}"/>`);
  writeFileSync(`${folder}/vm.ovf`, `<Envelope>${files.join("")}${list.join("")}</Envelope>`);
  run("sha256sum vm.ovf one two | sed -E 's/^([0-9a-f]+) +(.*)/SHA256(\\2)= \\1/' > vm.mf");
  run("tar -cf vm.ova vm.ovf vm.mf one two");
  return { path: `${folder}/vm.ova`, disks: ["one", "two"].map((name) => readFileSync(`${folder}/${name}`)) };
}

test("one of several disks is named with --disk, for every command that opens an image", async (t) => {
  const folder = scratch(t);
  const { path, disks } = appliance(folder);
  const refused = await spindle("info", path);
  t.is(refused.code, 2);
  t.regex(refused.stderr, /2 disks \(one, two\).*--disk/);
  const info = await spindle("info", "--json", path, "--disk", "two");
  t.like(JSON.parse(info.text), {
    format: "raw",
    size: disks[1]!.length,
    chain: [{ file: `${path} > two`, format: "raw", wrappings: [{ file: path, format: "ova" }] }],
  });
  t.regex((await spindle("info", path, "--disk", "two")).text, /^Within .*vm\.ova \(ova\)\n {2}member +two$/m);
  t.is((await spindle("ls", path, "/", "--disk", "d-two")).text.includes("hello"), true);
  t.is((await spindle("cat", path, "/hello", "--disk", "two")).text, "hello\n");
  t.is((await spindle("restore", path, `${folder}/out`, "--disk", "two")).code, 0);
  t.true(readFileSync(`${folder}/out`).equals(disks[1]!));
  t.is((await spindle("create", path, `${folder}/one.spin`, "--disk", "one")).code, 0);
  t.is((await spindle("restore", `${folder}/one.spin`, `${folder}/out`, "--force")).code, 0);
  t.true(readFileSync(`${folder}/out`).equals(disks[0]!));
  const plain = await spindle("info", `${folder}/one.spin`, "--disk", "one");
  t.is(plain.code, 2);
  t.regex(plain.stderr, /of one disk; leave --disk out/);
});

test("verify checks what is around an image, and tells damage by its place in what is within", async (t) => {
  const folder = scratch(t);
  const { path } = appliance(folder);
  const sound = await spindle("verify", path, "--disk", "one");
  t.is(sound.code, 0, sound.stderr);
  t.regex(sound.text, /vm\.ova: 2 chunks .* all sound/);
  const bytes = readFileSync(path);
  bytes[bytes.indexOf(Buffer.alloc(1000, 3)) + 500] = 4;
  writeFileSync(path, bytes);
  const damaged = await spindle("verify", path, "--disk", "one");
  t.is(damaged.code, 5);
  t.regex(damaged.text, /unpacked bytes 0 to 299999: .*its member one does not have the SHA256/);
});
