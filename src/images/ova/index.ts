/**
 * Appliances (OVA): a tar archive with a descriptor, the images of its disks, and a manifest of digests. Any tar archive is
 * taken like one without descriptor: its files are then what can be a disk. The images are recognised anew, in place.
 */
import { type ByteSource, readExactly, Slice } from "../../bytes/byte-source.js";
import { JoinedSource } from "../../bytes/joined.js";
import { corrupt, missing, unsupported, usage } from "../../errors.js";
import type { ImageFormat } from "../image-format.js";
import { type Disk, disksOf } from "./envelope.js";
import { manifestIntegrity } from "./manifest.js";
import { isTar, type Member, membersOf } from "./tar.js";

/** Bytes of a descriptor or a manifest: far more than any has. */
const longestText = 4 << 20;
/** Names that a message lists. */
const listed = 20;

export const ova: ImageFormat = {
  name: "ova",
  wraps: true,
  hasDisks: true,
  recognises: isTar,
  open(archive, around) {
    const { name } = archive;
    const members = membersOf(archive);
    const descriptor = members.find((one) => /\.ovf$/i.test(one.name));
    const disks = descriptor ? disksOf(name, readText(archive, descriptor)) : members.map(diskOfMember);
    const disk = chosen(name, disks, members, around.options?.disk);
    if (disk.parent !== undefined)
      throw unsupported(
        `${name}: its disk ${disk.file} holds only what changed since the disk ${disk.parent}. Import the appliance with its own program.`,
      );
    const own = membersOfDisk(archive, members, disk);
    const manifest = members.find((one) => /\.mf$/i.test(one.name));
    const integrity =
      manifest &&
      manifestIntegrity(archive, readText(archive, manifest).toString("utf8"), own, descriptor ? [descriptor] : []);
    const find = (wanted: string) => {
      const member = members.find((one) => one.name === wanted);
      if (!member) throw missing(`${name}: has no ${wanted} in it, which is needed.`);
      return sourceOf(archive, member);
    };
    const parts = own.map((member) => sourceOf(archive, member));
    const image = parts.length === 1 ? parts[0]! : new JoinedSource(`${name} > ${disk.file}`, parts);
    return around.imageIn(image, {
      name,
      format: descriptor ? "ova" : "tar",
      facts: { member: disk.file, disks: disks.slice(0, listed).map(({ file }) => file) },
      companion: find,
      ...(integrity && { integrity }),
    });
  },
};

const diskOfMember = ({ name }: Member): Disk => ({ id: "", file: name, chunked: false, parent: undefined });

/** The one disk, or that which the user names: by its member's name, or its id in the descriptor. */
function chosen(name: string, disks: readonly Disk[], members: readonly Member[], wanted: string | undefined): Disk {
  const list = disks.slice(0, listed).map(({ file }) => file);
  const names = `${list.join(", ")}${disks.length > listed ? " and more" : ""}`;
  if (wanted === undefined) {
    const [disk] = disks;
    if (!disk) throw unsupported(`${name}: is an archive without a disk in it.`);
    if (disks.length > 1) throw usage(`${name}: holds ${disks.length} disks (${names}); choose one with --disk NAME.`);
    return disk;
  }
  const disk = disks.find(({ file, id }) => file === wanted || id === wanted);
  if (disk) return disk;
  // An appliance may bring a medium that is no disk in its descriptor.
  const member = members.find((one) => one.name === wanted);
  if (!member) throw usage(`${name}: has no disk ${wanted}. It has ${names || "none"}.`);
  return diskOfMember(member);
}

/** The member that is a disk's image, or those that it was cut into. */
function membersOfDisk(archive: ByteSource, members: readonly Member[], disk: Disk): Member[] {
  const find = (file: string) => members.find((member) => member.name === file);
  const whole = find(disk.file);
  if (whole) return [whole];
  const first = disk.chunked ? find(chunkName(disk.file, 0)) : undefined;
  if (!first) throw missing(`${archive.name}: tells of a disk ${disk.file}, which is not in it.`);
  const parts: Member[] = [];
  for (let member: Member | undefined = first; member; member = find(chunkName(disk.file, parts.length)))
    parts.push(member);
  return parts;
}

/** OVF, section 7.1: a nine-digit number after the file's name. */
const chunkName = (file: string, number: number) => `${file}.${String(number).padStart(9, "0")}`;

function sourceOf(archive: ByteSource, { name, position, size, sparse }: Member): ByteSource {
  if (sparse)
    throw unsupported(
      `${archive.name}: its member ${name} was packed with holes left out (tar --sparse), which Spindle does not read in place. Take it out with tar -x.`,
    );
  return new Slice(`${archive.name} > ${name}`, archive, position, size);
}

function readText(archive: ByteSource, member: Member): Buffer {
  if (member.size > longestText)
    throw corrupt(`${archive.name}: its member ${member.name} has ${member.size} bytes of text. The file is damaged.`);
  return readExactly(sourceOf(archive, member), 0, member.size, `the member ${member.name}`);
}
