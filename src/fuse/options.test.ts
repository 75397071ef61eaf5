import test from "ava";
import { ImageError } from "../errors.js";
import { parseMountOptions } from "./options.js";

test("several lists are one, and what the drivers know is told apart from the rest", (t) => {
  t.deepEqual(parseMountOptions(["allow_other,noexec", "fsname=my backup,max_read=65536"], "/i/disk.spin"), {
    allowOther: true,
    fsname: "my backup",
    others: ["noexec", "max_read=65536"],
  });
});

test("without options the image is the source", (t) => {
  t.deepEqual(parseMountOptions([], "/i/disk.spin"), { allowOther: false, fsname: "/i/disk.spin", others: [] });
});

test("options that speak to mount(8) and systemd only are dropped, and ro is always so", (t) => {
  const list =
    "defaults,ro,noauto,user,nofail,_netdev,x-systemd.requires=/mnt,X-mount.mkdir,comment=a,,noatime,noatime";
  t.deepEqual(parseMountOptions([list], "i").others, ["noatime"]);
});

for (const [option, words] of [
  ["rw", /never writes to an image/],
  ["suid", /nosuid always/],
  ["dev", /nodev always/],
  ["fd=3", /sets fd itself/],
  ["rootmode=40000", /itself/],
  ["user_id=1", /itself/],
  ["subtype=ext4", /itself/],
  ["allow_root", /allow_other/],
  ["fsname=", /needs a name/],
  ["noexec\n", /control character/],
  ["a\0b", /control character/],
] as const)
  test(`${JSON.stringify(option)} is refused`, (t) => {
    const error = t.throws(() => parseMountOptions([option], "i"), { instanceOf: ImageError, message: words });
    t.is(error?.code, "usage");
  });

test("a mount that is written to takes rw, and refuses ro", (t) => {
  t.deepEqual(parseMountOptions(["rw,noatime"], "d.img", true).others, ["noatime"]);
  t.throws(() => parseMountOptions(["noatime,ro"], "d.img", true), { message: /ro and --writable exclude each other/ });
});
