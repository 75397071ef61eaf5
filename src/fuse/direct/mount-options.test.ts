import test from "ava";
import { escapeOption, helperOptions, systemOptions } from "./mount-options.js";

const plain = { allowOther: false, fsname: "disk", others: [] };

test("root's mount is read-only, without devices and set-id, whatever is asked", (t) => {
  // MS_RDONLY 1, MS_NOSUID 2, MS_NODEV 4 of linux/mount.h
  t.deepEqual(systemOptions(plain, 9, 0, 0), { flags: 7, data: "fd=9,rootmode=40000,user_id=0,group_id=0" });
});

test("known options become flags of mount(2)", (t) => {
  const { flags, data } = systemOptions({ ...plain, others: ["noexec", "noatime", "sync", "exec", "async"] }, 9, 0, 0);
  t.is(flags, 7 | 8 | 1024 | 16);
  t.false(/exec|atime|sync/.test(data));
});

test("allow_other brings the kernel's check of permissions with it", (t) => {
  const options = { ...plain, allowOther: true, others: ["default_permissions", "max_read=65536"] };
  t.is(
    systemOptions(options, 3, 5, 6).data,
    "fd=3,rootmode=40000,user_id=5,group_id=6,allow_other,default_permissions,max_read=65536",
  );
  t.regex(helperOptions(options), /,allow_other,default_permissions,max_read=65536$/);
});

test("commas and backslashes in a name can't smuggle options in", (t) => {
  t.is(escapeOption("a,suid\\"), "a\\,suid\\\\");
  t.is(helperOptions({ ...plain, fsname: "a,b" }), "ro,nosuid,nodev,fsname=a\\,b,subtype=spindle");
});

test("unknown options are refused with the names of those that are known", (t) => {
  for (const option of ["wombat", "suid", "dev", "uid=5", "max_read=x", "fd=3", "context=a,b", "toString"])
    t.throws(() => systemOptions({ ...plain, others: [option] }, 3, 0, 0), {
      message: /knows no such option.*max_read=BYTES.*noexec/,
    });
});
