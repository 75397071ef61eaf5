import { Base64Source } from "../../bytes/base64.js";
import { type ByteSource, readExactly, Slice } from "../../bytes/byte-source.js";
import { corrupt } from "../../errors.js";
import { isDictionary, PlistData, type PlistDictionary, readPlist } from "../plist.js";
import type { Stretch } from "./trailer.js";

/*
 * Where an image keeps its block tables: as resources of type "blkx", either in a property list or in a classic resource
 * fork ("Inside Macintosh: More Macintosh Toolbox", chapter 1). Images of the 1990s have only the fork; where both are
 * there they say the same, and the list counts.
 */

/** A block table's bytes, and what it is called: for example `disk image (Apple_HFS : 4)`. */
export interface Resource {
  readonly name: string;
  readonly data: ByteSource;
}

/** @throws ImageError `corrupt` where the list is damaged, or isn't a disk image's. */
export function resourcesOfXml(file: ByteSource, { position, length }: Stretch): Resource[] {
  const list = readPlist(file, position, length);
  const fork = isDictionary(list) ? list.get("resource-fork") : undefined;
  const tables = isDictionary(fork) ? fork.get("blkx") : undefined;
  if (!Array.isArray(tables) || tables.length === 0)
    throw corrupt(
      `${file.name}: the property list at byte ${position} has no block tables (blkx). The file is damaged.`,
    );
  return tables.map((table: PlistDictionary, index) => {
    const data = isDictionary(table) ? table.get("Data") : undefined;
    if (!(data instanceof PlistData))
      throw corrupt(`${file.name}: block table ${index} in the property list at byte ${position} has no data.`);
    const name = table.get("Name") || table.get("CFName");
    return {
      name: typeof name === "string" && name !== "" ? name : `block table ${index}`,
      data: new Base64Source(file.name, file, data.position, data.length),
    };
  });
}

const blkx = 0x626c6b78;
/** Bytes of a map that are looked at: it counts and places with 16 bits. */
const longestMap = 1 << 18;
/** Tables of an image: types that share their list of resources could make any number of them. */
const mostTables = 65536;

/**
 * A fork's header tells where its data and its map are; the map has a list of types, each type a list of resources (number,
 * name's place, data's place in 24 bits), and the names.
 *
 * @throws ImageError `corrupt` where anything would lie beyond the fork.
 */
export function resourcesOfFork(file: ByteSource, { position, length }: Stretch): Resource[] {
  const wrong = (what: string) => corrupt(`${file.name}: the resource fork at byte ${position} is damaged: ${what}.`);
  if (length < 16) throw wrong(`it has ${length} bytes`);
  const header = readExactly(file, position, 16, "the resource fork");
  const [dataAt, mapAt, dataLength, mapLength] = [0, 4, 8, 12].map((at) => header.readUInt32BE(at)) as [
    number,
    number,
    number,
    number,
  ];
  if (dataAt + dataLength > length || mapAt + mapLength > length || mapLength < 30)
    throw wrong("its header tells of more than there is");
  const map = readExactly(file, position + mapAt, Math.min(mapLength, longestMap), "the resource map");
  const within = (at: number, count: number) => {
    if (at + count > map.length) throw wrong(`its map ends before byte ${at + count}`);
    return at;
  };
  const types = map.readUInt16BE(24);
  const names = map.readUInt16BE(26);
  // Counts are one less than there are; a map without types has 65535.
  const typeCount = (map.readUInt16BE(within(types, 2)) + 1) & 0xffff;
  const found: Resource[] = [];
  for (let type = 0; type < typeCount; type++) {
    const entry = within(types + 2 + type * 8, 8);
    if (map.readUInt32BE(entry) !== blkx) continue;
    const list = types + map.readUInt16BE(entry + 6);
    for (let index = 0; index <= map.readUInt16BE(entry + 4); index++) {
      const resource = within(list + index * 12, 12);
      const nameAt = map.readUInt16BE(resource + 2);
      const at = map.readUIntBE(resource + 5, 3);
      if (at + 4 > dataLength) throw wrong(`resource ${index} begins at byte ${at} of ${dataLength}`);
      const start = position + dataAt + at;
      const size = readExactly(file, start, 4, "a resource's length").readUInt32BE(0);
      if (at + 4 + size > dataLength)
        throw wrong(`resource ${index} should take ${size} bytes at byte ${at} of ${dataLength}`);
      const nameStart = nameAt === 0xffff ? undefined : within(names + nameAt, 1);
      const name =
        nameStart === undefined ? "" : map.toString("latin1", nameStart + 1, nameStart + 1 + map[nameStart]!);
      if (found.length >= mostTables) throw wrong(`it has more than ${mostTables} block tables`);
      found.push({ name: name || `block table ${index}`, data: new Slice(file.name, file, start + 4, size) });
    }
  }
  if (found.length === 0)
    throw corrupt(
      `${file.name}: the resource fork at byte ${position} has no block tables (blkx). The file is damaged.`,
    );
  return found;
}
