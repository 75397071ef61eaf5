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
    const found = signatureOf(source)!;
    throw unsupported(
      `${source.name}: is ${found.what}, which this Spindle does not read. ${found.remedy} (To image the file's own bytes, pass --source-format raw to create.)`,
    );
  },
};

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

const convert = "Convert it first with qemu-img convert -O raw.";

const signatures: readonly Signature[] = [
  row(0, "EVF\x09\x0d\x0a\xff\x00", "an EWF (E01) image", "Export it first with ewfexport, or show it with ewfmount."),
  row(0, "EVF2\x0d\x0a\x81\x00", "an EWF2 (Ex01) image", "Export it first with ewfexport, or show it with ewfmount."),
  row(0, "LVF\x09\x0d\x0a\xff\x00", "an EWF logical image (L01)", "Show it with ewfmount."),
  row(0, "AFF10\x0d\x0a\x00", "an AFF image", "Export it first with affconvert or affcat."),
  row(0, "Bochs Virtual HD Image\x00", "a Bochs disk", convert),
  row(0, "#!/bin/sh\n#V2.0 Format\n", "a cloop image", convert),
  row(0, "partclone-image\x00", "a partclone image", "Restore it first with partclone.restore."),
  row(0, "sprs\x00\x00\x00\x03", "an Apple sparse image", "Convert it first with hdiutil."),
  row(-512, "koly\x00\x00\x00\x04", "an Apple disk image (UDIF, .dmg)", convert),
  row(257, "ustar", "a tar archive (an OVA is one)", "Take the disk out of it with tar -x."),
];

function signatureOf(source: ByteSource): Signature | undefined {
  return signatures.find(({ at, bytes }) => {
    const position = at < 0 ? source.size + at : at;
    if (position < 0 || position + bytes.length > source.size) return false;
    return readExactly(source, position, bytes.length, "the signature").equals(bytes);
  });
}
