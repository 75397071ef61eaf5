/** Hashes by name, against the values that their makers publish. */
import test from "ava";
import { hashNamed, whyNoHash } from "./hash.js";

const digest = (name: string, text: string) => hashNamed(name)!.digest(Buffer.from(text)).toString("hex");

test("Whirlpool makes the digests of ISO/IEC 10118-3, whole and cut off as the kernel does", (t) => {
  const abc =
    "4e2448a4c6f486bb16b6562c73b4020bf3043e3a731bce721ae1b303d97e6d4c" +
    "7181eebdb6c57e277d0e34957114cbd6c797fc9d95d8b582d225292076d4eef5";
  t.is(digest("whirlpool", "abc"), abc);
  t.is(digest("wp512", "abc"), abc);
  t.is(digest("wp384", "abc"), abc.slice(0, 96));
  t.is(digest("wp256", "abc"), abc.slice(0, 64));
  t.is(hashNamed("wp256")!.length, 32);
});

test("a digest of parts is that of all of them, of either library", (t) => {
  for (const name of ["sha256", "ripemd160", "whirlpool"]) {
    const [a, b] = [Buffer.from("ab"), Buffer.from("c")];
    t.deepEqual(hashNamed(name)!.digest(a, b), hashNamed(name)!.digest(Buffer.from("abc")), name);
  }
});

test("PBKDF2 makes the keys of RFC 6070", (t) => {
  const key = hashNamed("sha1")!.pbkdf2(Buffer.from("password"), Buffer.from("salt"), 4096, 20);
  t.is(key.toString("hex"), "4b007901b765489abead49d926f721d065a429c1");
});

test("a hash without a length of its own, and one that nobody has, aren't known", (t) => {
  for (const name of ["shake256", "constructor", "whirlpool2", "", "wp128"]) {
    t.is(hashNamed(name), undefined, name);
    t.is(whyNoHash(name), "which Spindle doesn't know");
  }
});
