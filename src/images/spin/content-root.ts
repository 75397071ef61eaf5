import { createHash } from "node:crypto";
import { digestLength, fanOut } from "./pages.js";

/** SHA-256 over the parts. */
export function sha256(...parts: Uint8Array[]): Buffer {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
}

const leafMark = Uint8Array.of(0);
const nodeMark = Uint8Array.of(1);

/** `digests`: those of the leaf's chunks, joined (FORMAT.md §9). */
export const leafHash = (digests: Uint8Array) => sha256(leafMark, digests);
/** `hashes`: those of the node's children, joined. */
export const nodeHash = (hashes: Uint8Array) => sha256(nodeMark, hashes);

/** The content root of a disk of `size` bytes; `top` is the hash of the topmost node, undefined for an empty disk. */
export function contentRoot(size: number, chunkSize: number, top: Uint8Array | undefined): Buffer {
  const numbers = Buffer.alloc(12);
  numbers.writeBigUInt64LE(BigInt(size), 0);
  numbers.writeUInt32LE(chunkSize, 8);
  return sha256(Buffer.from("spindle content root 1"), numbers, top ?? Buffer.alloc(digestLength));
}

/** The digests of zero chunks and the hashes of leaves made of them, computed once a chunk size. */
export class ZeroDigests {
  readonly chunk: Buffer;
  /** Of a whole leaf of zero chunks. */
  readonly leaf: Buffer;

  constructor(chunkSize: number) {
    this.chunk = sha256(Buffer.alloc(chunkSize));
    this.leaf = leafHash(Buffer.concat(Array.from({ length: fanOut }, () => this.chunk)));
  }

  /** Of `length` zeros: the last chunk of a disk may be shorter. */
  static of(length: number): Buffer {
    return sha256(Buffer.alloc(length));
  }
}
