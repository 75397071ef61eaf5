/**
 * What the JSON of a LUKS 2 header says ("LUKS2 On-Disk Format Specification" 1.1, section 3): where the data are and how
 * they are encrypted (a segment), how a right key is told from a wrong one (a digest), and in which places the key is kept,
 * encrypted with keys that are made of passwords (keyslots).
 */
import type { Argon2Costs } from "../../bytes/argon2.js";
import { type Hash, hashNamed, whyNoHash } from "../../bytes/hash.js";
import { corrupt, unsupported } from "../../errors.js";
import { Fields } from "./fields2.js";
import type { Header2 } from "./header2.js";

export interface Cipher {
  readonly cipher: string;
  /** `xts-plain64` and the like. */
  readonly mode: string;
}

export interface Segment extends Cipher {
  /** In bytes; 0 where the data are in another file. */
  readonly position: number;
  /** In bytes; undefined for all the rest. */
  readonly size: number | undefined;
  /** What is added to a sector's number, both counted in 512 bytes. */
  readonly firstVector: number;
  readonly sectorSize: number;
}

export interface Digest {
  readonly hash: Hash;
  readonly rounds: number;
  readonly salt: Buffer;
  readonly value: Buffer;
}

export type KeyMaking = { readonly salt: Buffer } & (
  | { readonly kind: "pbkdf2"; readonly hash: Hash; readonly rounds: number }
  | Argon2Costs
);

export interface KeySlot extends Cipher {
  readonly name: string;
  /** 2 is tried before 1; 0 last. */
  readonly priority: number;
  /** Bytes of the key of the data, and of the one that this slot is encrypted with. */
  readonly keyLength: number;
  readonly ownKeyLength: number;
  readonly position: number;
  readonly stripes: number;
  readonly stripeHash: Hash;
  readonly making: KeyMaking;
}

export interface Metadata2 {
  readonly segment: Segment;
  readonly digest: Digest;
  /** Those that hold the key of the segment, in the order in which they are tried. */
  readonly slots: readonly KeySlot[];
}

/** Bytes of the largest key, of XTS with AES-256. */
const longestKey = 64;
/** All writers have 4000. */
const mostStripes = 8192;
const most32 = 2 ** 32 - 1;

/**
 * @param name of the volume, for messages
 * @param size of the volume, in bytes
 * @throws ImageError `corrupt` with the member's path; `unsupported` by name
 */
export function readMetadata2(name: string, size: number, header: Header2): Metadata2 {
  const json = new Fields(name, "", header.json);
  const refuse = (what: string) => unsupported(`${name}: ${what}`);
  refuseRequirements(json, refuse);
  const segments = json.each("segments");
  const [id, fields] = segments[0] ?? ["", undefined];
  if (!fields) throw refuse("has a LUKS header that tells of no data.");
  if (segments.length > 1)
    throw refuse(
      `is encrypted with LUKS in ${segments.length} segments, as while it is encrypted anew. Let cryptsetup reencrypt end what it began.`,
    );
  const segment = readSegment(fields, refuse, 2 * header.length);
  const digests = json.each("digests").filter(([, one]) => one.texts("segments").includes(id));
  const [, digest] = digests[0] ?? [];
  if (!digest) throw corrupt(`${name}: its LUKS header is damaged: no digest in its JSON is of segment ${id}.`);
  const ours = digest.texts("keyslots");
  const all = json.each("keyslots");
  checkAreas(all, header, segment, size);
  const slots = all.filter(([slot]) => ours.includes(slot)).map(([slot, its]) => readSlot(slot, its, refuse));
  slots.sort((a, b) => b.priority - a.priority || Number(a.name) - Number(b.name));
  return { segment, digest: readDigest(digest, refuse), slots };
}

type Refuse = (what: string) => Error;

function refuseRequirements(json: Fields, refuse: Refuse): void {
  const config = json.object("config");
  const needed = config.has("requirements") ? config.object("requirements") : undefined;
  const names = needed?.has("mandatory") ? needed.texts("mandatory") : [];
  if (names.some((one) => /reencrypt/.test(one)))
    throw refuse(
      "is being encrypted anew (LUKS reencryption), and only a part of it is done. Let cryptsetup reencrypt end what it began.",
    );
  if (names.length > 0)
    throw refuse(`is encrypted with LUKS in a way that Spindle doesn't know (${names.join(", ").slice(0, 80)}).`);
}

function readSegment(fields: Fields, refuse: Refuse, least: number): Segment {
  const type = fields.text("type");
  if (type !== "crypt") throw refuse(`has data of the kind ${type} within LUKS, which Spindle doesn't decrypt.`);
  if (fields.has("integrity"))
    throw refuse(
      `is encrypted with integrity (${fields.object("integrity").text("type")}, dm-integrity), which Spindle doesn't read. Open it with cryptsetup, and make an image of what it opens.`,
    );
  const position = fields.large("offset");
  // A header by itself tells of no place behind it.
  if (position !== 0 && position < least) throw fields.wrong("offset", `is ${position}, within the headers`);
  const sectorSize = fields.count("sector_size", 512, 4096);
  if (![512, 1024, 2048, 4096].includes(sectorSize)) throw fields.wrong("sector_size", `is ${sectorSize}`);
  const dynamic = fields.text("size") === "dynamic";
  const size = dynamic ? undefined : fields.large("size", sectorSize);
  if (size !== undefined && size % sectorSize !== 0) throw fields.wrong("size", "has no whole sectors");
  return {
    ...cipherOf(fields, "encryption", refuse),
    position,
    size,
    firstVector: fields.large("iv_tweak"),
    sectorSize,
  };
}

/** Two parts: `aes` and `xts-plain64`. */
function cipherOf(fields: Fields, member: string, refuse: Refuse): Cipher {
  const text = fields.text(member);
  const [, cipher, mode] = /^([^-]+)-(.+)$/.exec(text) ?? [];
  if (cipher === undefined || mode === undefined)
    throw refuse(`is encrypted with ${JSON.stringify(text)}, which Spindle doesn't know.`);
  return { cipher, mode };
}

function readDigest(fields: Fields, refuse: Refuse): Digest {
  const type = fields.text("type");
  if (type !== "pbkdf2") throw refuse(`tells its key by a digest of the kind ${type}, which Spindle doesn't know.`);
  return {
    hash: hashOf(fields, refuse),
    rounds: fields.count("iterations", 1, most32),
    salt: fields.bytes("salt", 8, 64),
    value: fields.bytes("digest", 16, 64),
  };
}

function hashOf(fields: Fields, refuse: Refuse): Hash {
  const name = fields.text("hash");
  const hash = hashNamed(name);
  if (!hash) throw refuse(`makes its keys with the hash ${name}, ${whyNoHash(name)}.`);
  return hash;
}

function readSlot(name: string, fields: Fields, refuse: Refuse): KeySlot {
  const type = fields.text("type");
  if (type !== "luks2") throw refuse(`has its key in a slot of the kind ${type}, which Spindle doesn't know.`);
  const area = fields.object("area");
  const af = fields.object("af");
  if (area.text("type") !== "raw" || af.text("type") !== "luks1")
    throw refuse(
      `keeps the key of slot ${name} in a way (${area.text("type")}, ${af.text("type")}) that Spindle doesn't know.`,
    );
  const keyLength = fields.count("key_size", 1, longestKey);
  const stripes = af.count("stripes", 1, mostStripes);
  if (Math.ceil((keyLength * stripes) / 512) * 512 > area.large("size"))
    throw area.wrong("size", `is ${area.large("size")}, too little for ${stripes} stripes of ${keyLength} bytes`);
  return {
    name,
    ...cipherOf(area, "encryption", refuse),
    priority: fields.has("priority") ? fields.count("priority", 0, 2) : 1,
    keyLength,
    ownKeyLength: area.count("key_size", 16, longestKey),
    position: area.large("offset"),
    stripes,
    stripeHash: hashOf(af, refuse),
    making: readMaking(fields.object("kdf"), refuse),
  };
}

function readMaking(fields: Fields, refuse: Refuse): KeyMaking {
  const kind = fields.text("type");
  const salt = fields.bytes("salt", 8, 64);
  if (kind === "pbkdf2")
    return { kind, salt, hash: hashOf(fields, refuse), rounds: fields.count("iterations", 1, most32) };
  if (kind !== "argon2i" && kind !== "argon2id")
    throw refuse(`makes its keys with ${kind}, which Spindle doesn't know.`);
  const lanes = fields.count("cpus", 1, 255);
  const memory = fields.count("memory", 8 * lanes, most32);
  return { kind, salt, memory, passes: fields.count("time", 1, most32), lanes };
}

/** Keys lie behind the headers and before the data, and none over another: what is written so was made to deceive. */
function checkAreas(slots: readonly [string, Fields][], header: Header2, segment: Segment, size: number): void {
  const areas = slots.map(([, fields]) => {
    const area = fields.object("area");
    const position = area.large("offset");
    return { area, position, end: position + area.large("size", 1) };
  });
  areas.sort((a, b) => a.position - b.position);
  let free = 2 * header.length;
  for (const { area, position, end } of areas) {
    if (position < free) throw area.wrong("offset", `is ${position}, where something else is before byte ${free}`);
    if (end > (segment.position || size))
      throw area.wrong("size", `leads to byte ${end}, into the data or beyond the end`);
    free = end;
  }
}
