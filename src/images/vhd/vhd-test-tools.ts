/** Tests only: VHD images, laid out from the text of the specification. */

/** Bytes of a block of the images made here. */
export const blockSize = 4096;
export interface VhdMaking {
  /** Per block: a letter fills it, `.` leaves it out; in a differencing disk a digit keeps only that many sectors. */
  blocks: string;
  size?: number;
  type?: number;
  id?: string;
  creator?: string;
  geometry?: [number, number, number];
  parent?: { id: string; time?: number; name: string; locators?: Record<string, Buffer> };
  oldFooter?: boolean;
  /** Order in which the blocks lie in the file. */
  reversed?: boolean;
}

function sum(bytes: Buffer, field: number): void {
  bytes.writeUInt32BE(0, field);
  bytes.writeUInt32BE(~bytes.reduce((total, byte) => total + byte, 0) >>> 0, field);
}

/** A VHD, laid out from the specification's text. */
export function makeVhd(making: VhdMaking): Buffer {
  const { blocks, parent } = making;
  const type = making.type ?? (parent ? 4 : 3);
  const size = making.size ?? blocks.length * blockSize;
  const footer = Buffer.alloc(512);
  footer.write("conectix");
  footer.writeUInt32BE(2, 8);
  footer.writeUInt32BE(0x10000, 12);
  footer.writeBigUInt64BE(type === 2 ? 2n ** 64n - 1n : 512n, 16);
  footer.write(making.creator ?? "win ", 28, "latin1");
  footer.writeBigUInt64BE(BigInt(size), 40);
  footer.writeBigUInt64BE(BigInt(size), 48);
  const [cylinders, heads, sectors] = making.geometry ?? [1, 1, 1];
  footer.writeUInt16BE(cylinders, 56);
  footer[58] = heads;
  footer[59] = sectors;
  footer.writeUInt32BE(type, 60);
  footer.write(making.id ?? "0123456789abcdef", 68, "latin1");
  sum(footer, 64);
  const end = making.oldFooter ? footer.subarray(0, 511) : footer;
  const bodies = [...blocks].map((letter) =>
    letter === "." ? undefined : Buffer.alloc(blockSize, /\d/.test(letter) ? "z" : letter),
  );
  if (type === 2) return Buffer.concat([...bodies.map((body) => body ?? Buffer.alloc(blockSize)), end]);
  const header = Buffer.alloc(1024);
  header.write("cxsparse");
  header.fill(0xff, 8, 16);
  header.writeBigUInt64BE(1536n, 16);
  header.writeUInt32BE(0x10000, 24);
  header.writeUInt32BE(blocks.length, 28);
  header.writeUInt32BE(blockSize, 32);
  const table = Buffer.alloc(Math.ceil(blocks.length / 128) * 512, 0xff);
  const parts = [footer, header, table];
  let position = 1536 + table.length;
  if (parent) {
    header.write(parent.id, 40, "latin1");
    header.writeUInt32BE(parent.time ?? 0, 56);
    Buffer.from(parent.name, "utf16le").swap16().copy(header, 64);
    for (const [nth, [code, data]] of Object.entries(parent.locators ?? {}).entries()) {
      const at = 576 + nth * 24;
      header.write(code, at, "latin1");
      header.writeUInt32BE(512, at + 4);
      header.writeUInt32BE(data.length, at + 8);
      header.writeBigUInt64BE(BigInt(position), at + 16);
      parts.push(Buffer.concat([data, Buffer.alloc(512 - data.length)]));
      position += 512;
    }
  }
  sum(header, 36);
  const order = [...bodies.keys()];
  if (making.reversed) order.reverse();
  for (const block of order) {
    const body = bodies[block];
    if (!body) continue;
    const bitmap = Buffer.alloc(512);
    bitmap[0] = /\d/.test(blocks[block]!) ? 0xff << (8 - Number(blocks[block])) : 0xff;
    table.writeUInt32BE(position / 512, block * 4);
    parts.push(bitmap, body);
    position += 512 + body.length;
  }
  return Buffer.concat([...parts, end]);
}
