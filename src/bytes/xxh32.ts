/** XXH32 with seed 0, the checksum of LZ4's frames. */
export { Xxh32 } from "@node-rs/xxhash";
