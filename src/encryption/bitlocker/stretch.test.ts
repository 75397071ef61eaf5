import test from "ava";
import { stretch } from "./stretch.js";

test("a password is stretched to the key that a million hashes by another tool make", (t) => {
  const secret = Uint8Array.from({ length: 32 }, (_, at) => at * 7);
  const salt = Uint8Array.from({ length: 16 }, (_, at) => 255 - at * 3);
  // Python's hashlib, looping over the structure of the section "User key" of libbde's specification.
  t.is(
    Buffer.from(stretch(secret, salt)).toString("hex"),
    "d2a1f4acf3af7219446aa450e3e323745ec0f4b8dca55a99cdcb760e657c8e7c",
  );
});
