import type { ByteSource } from "../bytes/byte-source.js";
import { readExactly } from "../bytes/byte-source.js";
import { unsupported } from "../errors.js";
import type { Format } from "../format.js";
import type { Layer } from "../layers/layer.js";

/**
 * Containers that Spindle knows by their signature and doesn't read: they are refused by name. Taken for a raw disk, their
 * packed bytes would be served as if they were the disk's.
 */
export const unread: Format<Layer> = {
  name: "unread",
  recognises: (source) => signatureOf(source) !== undefined,
  open(source) {
    throw unsupported(
      `${source.name}: ${unreadWords(source)} (To take the file's own bytes for a disk, pass --format raw.)`,
    );
  },
};

/** What such a file is, and what to do: what follows its name in a message; undefined for any other file. */
export function unreadWords(source: ByteSource): string | undefined {
  const found = signatureOf(source);
  return found && `is ${found.what}, which this Spindle does not read. ${found.remedy}`;
}

interface Signature {
  readonly what: string;
  readonly remedy: string;
  /** From the start; negative from the end. */
  readonly at: number;
  readonly bytes: Buffer;
}

const row = (at: number, signature: string, what: string, remedy: string): Signature => ({
  at,
  bytes: Buffer.from(signature, "latin1"),
  what,
  remedy,
});

const unpack = (tool: string) => `Unpack it first, for example with ${tool}.`;

const signatures: readonly Signature[] = [
  row(0, "LVF\x09\x0d\x0a\xff\x00", "an EWF image of files, not of a disk (L01)", "Show it with ewfmount."),
  row(0, "LEF2\x0d\x0a\x81\x00", "an EWF2 image of files, not of a disk (Lx01)", "Show it with ewfmount."),
  row(0, "DVF\x09\x0d\x0a\xff\x00", "an EWF delta: changes made to a disk's shadow", "Export it with ewfexport."),
  row(0, "ADCRYPT\x00", "encrypted by AccessData (AD encryption)", "Decrypt it first with FTK Imager."),
  row(0, "encrcdsa", "an encrypted Apple disk image", "Decrypt it first with hdiutil convert, or vfdecrypt."),
  row(-8, "cdsaencr", "an encrypted Apple disk image", "Decrypt it first with hdiutil convert, or vfdecrypt."),
  ...["CD_DA\n", "CD_ROM\n", "CD_ROM_XA\n", "CD_I\n"].map((head) =>
    row(0, head, "a table of contents of cdrdao (TOC)", "Open its .bin, or a cue sheet made of it with toc2cue."),
  ),
  row(0, "\x02\x21\x4c\x18", "compressed with lz4 in its old format", unpack("lz4 -d")),
  row(0, "\x89LZO\x00\r\n\x1a\n", "compressed with lzop", unpack("lzop -d")),
  row(0, "LRZI\x00", "compressed with lrzip", unpack("lrzip -d")),
];

function signatureOf(source: ByteSource): Signature | undefined {
  return signatures.find(({ at, bytes }) => {
    const position = at < 0 ? source.size + at : at;
    if (position < 0 || position + bytes.length > source.size) return false;
    return readExactly(source, position, bytes.length, "the signature").equals(bytes);
  });
}
