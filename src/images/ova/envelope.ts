/**
 * The descriptor of an appliance (OVF, DMTF DSP0243): XML, of which only the list of files and disks matters here.
 *
 *   <File ovf:id="file1" ovf:href="disk1.vmdk" ovf:size="9" ovf:compression="gzip" ovf:chunkSize="7"/>    section 7.1
 *   <Disk ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:capacity="8" ovf:capacityAllocationUnits="byte * 2^30"/>      9.1
 *
 * Their attributes are all that is read, so no parser of all XML is needed: tags are found, and comments and texts in which
 * tags could only seem to be are passed over. Every step goes on from where the one before ended: no text makes it slow.
 */
import { corrupt } from "../../errors.js";

export interface Disk {
  /** `ovf:diskId`. */
  readonly id: string;
  /** The member with its image, as the descriptor names it. */
  readonly file: string;
  /** Whether the member was cut into `file.000000000`, `file.000000001` and so on. */
  readonly chunked: boolean;
  /** The disk that this one holds the changes of, by id. */
  readonly parent: string | undefined;
}

/**
 * The disks that the appliance brings with it, in their order; those that are to be made empty are left out.
 * @throws ImageError `corrupt` for a text that isn't a descriptor
 */
export function disksOf(name: string, descriptor: Buffer): Disk[] {
  const elements = [...tagsOf(decoded(descriptor))];
  if (elements[0]?.element !== "Envelope")
    throw corrupt(`${name}: its descriptor has no Envelope, so it is no appliance. The file is damaged.`);
  const named = (wanted: string) => elements.filter(({ element }) => element === wanted).map(attributesOf);
  const files = new Map(named("File").map((file) => [file.id, file]));
  return named("Disk").flatMap((disk) => {
    if (disk.fileRef === undefined) return [];
    const file = files.get(disk.fileRef);
    if (file?.href === undefined)
      throw corrupt(`${name}: its descriptor has no file "${disk.fileRef}" for the disk ${disk.diskId ?? ""}.`);
    return [{ id: disk.diskId ?? "", file: file.href, chunked: file.chunkSize !== undefined, parent: disk.parentRef }];
  });
}

/** The tags that open an element, in their order: its name without prefix, and what follows the name. */
function* tagsOf(xml: string): Generator<{ element: string; rest: string }> {
  for (let at = xml.indexOf("<"); at >= 0; at = xml.indexOf("<", at)) {
    const [, end] = passedOver.find(([start]) => xml.startsWith(start, at)) ?? [];
    if (end !== undefined) {
      const behind = xml.indexOf(end, at);
      if (behind < 0) return;
      at = behind + end.length;
      continue;
    }
    opening.lastIndex = at;
    const [tag, element, rest] = opening.exec(xml) ?? [];
    if (element !== undefined) yield { element, rest: rest! };
    at += Math.max(1, tag?.length ?? 0);
  }
}

/** What is no tag, or closes one: how it begins and ends. */
const passedOver = [
  ["<!--", "-->"],
  ["<![CDATA[", "]]>"],
  ["<?", "?>"],
  ["</", ">"],
] as const;
/** Goes no further than the next `<`, and one character at a time, so that it can't be made to try many ways. */
const opening = /<(?:[\w.-]{1,100}:)?([\w.-]{1,100})(?=[\s/>])((?:[^<>"']|"[^<"]*"|'[^<']*'){0,10000})>/y;

function attributesOf({ rest }: { rest: string }): Partial<Record<string, string>> {
  const attribute = /\s*(?:[\w.-]+:)?([\w.-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')/y;
  const found: Partial<Record<string, string>> = {};
  for (;;) {
    const [, name, double, single] = attribute.exec(rest) ?? [];
    if (name === undefined) return found;
    found[name] = unescaped(double ?? single ?? "");
  }
}

const entities: Readonly<Record<string, string>> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

function unescaped(text: string): string {
  return text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|(\w+));/gi, (all, decimal, hex, word) => {
    if (word !== undefined) return entities[word] ?? all;
    const code = Number.parseInt(decimal ?? hex, decimal ? 10 : 16);
    return code <= 0x10ffff ? String.fromCodePoint(code) : all;
  });
}

function decoded(bytes: Buffer): string {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return bytes.toString("utf16le", 2);
  return bytes.toString("utf8").replace(/^\ufeff/, "");
}
