import test from "ava";
import { mount } from "./mount.js";
import { mountWords } from "./mount-words.js";

const command = (...argv: string[]) => mountWords(["/i.spin", "/mnt", ...argv], mount.options).command;

for (const [what, list, expected] of [
  ["Spindle's own options", "as=disk,cache=64M", ["mount", "--as=disk", "--cache=64M", "--", "/i.spin", "/mnt"]],
  [
    "the system's among them",
    "rw,noauto,user,as=disk,allow_other,x-systemd.automount,dev,suid",
    "mount --as=disk -o noauto -o user -o allow_other -o x-systemd.automount -- /i.spin /mnt".split(" "),
  ],
  ["a comma in quotes", 'parent="/a,b.spin",ro', ["mount", "--parent=/a,b.spin", "-o", "ro", "--", "/i.spin", "/mnt"]],
  ["a comma behind a backslash", "volume=a\\,b\\\\c", ["mount", "--volume=a,b\\c", "--", "/i.spin", "/mnt"]],
  ["a value with an equals sign", "volume=a=b", ["mount", "--volume=a=b", "--", "/i.spin", "/mnt"]],
  ["nothing", "", ["mount", "--", "/i.spin", "/mnt"]],
] as const)
  test(`the list after -o is given to the mount command: ${what}`, (t) => {
    t.deepEqual(command("-o", list), [...expected]);
  });

test("names that begin with a dash, or look like options, can't become any", (t) => {
  t.deepEqual(mountWords(["/a", "/b", "-o", "fsname=--force"], mount.options).command, [
    ...["mount", "-o", "fsname=--force", "--", "/a", "/b"],
  ]);
});

test("flags of mount(8) are understood, together or one by one", (t) => {
  const { fake, verbose } = mountWords(["/i", "/m", "-s", "-f", "-n", "-v", "-t", "fuse.spindle"], mount.options);
  t.true(fake && verbose);
  t.like(mountWords(["/i", "/m", "-nv"], mount.options), { fake: false, verbose: true, mayBeAbsent: false });
  t.true(mountWords(["/i", "/m", "-o", "ro,nofail"], mount.options).mayBeAbsent);
});

test("-s leaves out what nobody knows, and nothing else", (t) => {
  const list = "as=disk,noexec,nosuch,max_read=4096,allow_other,fsname=x,_netdev,x-y,comment=z";
  t.deepEqual(command("-s", "-o", list), [
    ...["mount", "--as=disk", "-o", "noexec", "-o", "max_read=4096", "-o", "allow_other", "-o", "fsname=x"],
    ...["-o", "_netdev", "-o", "x-y", "-o", "comment=z", "--", "/i.spin", "/mnt"],
  ]);
  t.true(command("-o", list).includes("nosuch"));
});

for (const [argv, words] of [
  [["/i"], /called as mount\.fuse\.spindle IMAGE MOUNTPOINT/],
  [["/i", "/m", "/n"], /called as/],
  [["/i", "/m", "-o"], /-o needs a value/],
  [["/i", "/m", "--as", "disk"], /--as: no flag/],
  [["/i", "/m", "-N", "/proc/1/ns/mnt"], /another namespace/],
  [["/i", "/m", "-o", "as"], /as needs a value/],
  [["/i", "/m", "-o", "remount,ro"], /can't be changed/],
] as const)
  test(`refused in words: ${argv.join(" ")}`, (t) => {
    t.throws(() => mountWords(argv, mount.options), { code: "usage", message: words });
  });
