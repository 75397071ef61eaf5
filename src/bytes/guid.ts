/**
 * A GUID in lower case: as Microsoft and UEFI (appendix A) store one, three little-endian numbers and eight bytes in order.
 * @param at where in `bytes` it is; @returns its 36 characters
 */
export function guidText(bytes: Uint8Array, at = 0): string {
  const guid = Buffer.from(bytes.subarray(at, at + 16));
  guid.subarray(0, 4).swap32();
  guid.subarray(4, 8).swap16();
  return guid.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
