import { type Face, type FacedDisk, made } from "./face.js";

const sector = 512;
/** Bytes that programs write when they set another content id (CID), whatever the text's length; what isn't text is empty lines. */
const length = 20 * sector;

/**
 * VMware's descriptor of a disk whose bytes are in another file, here disk.raw beside it: "monolithicFlat" (Virtual Disk
 * Format 5.0, "The Descriptor File"). What is written goes to disk.raw.
 */
export function vmdk({ size, id }: FacedDisk): Face {
  const sectors = size / sector;
  // Disks over 8 GB have the geometry that BIOSes translate to.
  const [heads, perTrack] = sectors > 1024 * 16 * 63 ? [255, 63] : [16, 63];
  const cylinders = Math.max(1, Math.floor(sectors / (heads * perTrack)));
  const text = `# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=${Buffer.from(id).toString("hex", 0, 4)}
parentCID=ffffffff
createType="monolithicFlat"

# Extent description
RW ${sectors} FLAT "disk.raw" 0

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "4"
ddb.geometry.cylinders = "${cylinders}"
ddb.geometry.heads = "${heads}"
ddb.geometry.sectors = "${perTrack}"
ddb.adapterType = "${heads === 255 ? "lsilogic" : "ide"}"
`;
  return { file: "disk.vmdk", parts: [made(Buffer.from(text.padEnd(length, "\n")))] };
}
