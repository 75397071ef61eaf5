/** Members of JSON objects that someone else wrote, each checked for its kind and its bounds as it is read. */
import { corrupt } from "../../errors.js";

const mostMembers = 32;

export class Fields {
  private readonly members: Record<string, unknown>;

  /**
   * @param name of the volume, for messages
   * @param path to the object, in its parents' members: `keyslots.0.kdf`
   */
  constructor(
    private readonly name: string,
    private readonly path: string,
    value: unknown,
  ) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw this.wrong("", "is no object");
    this.members = value as Record<string, unknown>;
  }

  /** `what` follows the path to a member; without one, to this object. */
  wrong(member: string, what: string) {
    const place = [this.path, member].filter((part) => part !== "").join(".");
    return corrupt(`${this.name}: its LUKS header is damaged: ${place ? `${place} in its JSON` : "its JSON"} ${what}.`);
  }

  has(member: string): boolean {
    return Object.hasOwn(this.members, member);
  }

  object(member: string): Fields {
    return new Fields(this.name, this.path === "" ? member : `${this.path}.${member}`, this.at(member));
  }

  /** The members of an object, by their names: 32 at most, as many as a volume has key slots. */
  each(member: string): [name: string, fields: Fields][] {
    const parent = this.object(member);
    const names = Object.keys(parent.members);
    if (names.length > mostMembers) throw parent.wrong("", `has ${names.length} members`);
    return names.map((name) => [name, parent.object(name)]);
  }

  text(member: string): string {
    const value = this.at(member);
    if (typeof value !== "string" || value.length > 256) throw this.wrong(member, "is no short text");
    return value;
  }

  /** A number as JSON writes it. */
  count(member: string, least: number, most: number): number {
    return this.bounded(member, this.at(member), least, most);
  }

  /** A number of 64 bits, which stands in a text. */
  large(member: string, least = 0, most = Number.MAX_SAFE_INTEGER): number {
    const value = this.text(member);
    return this.bounded(member, /^\d{1,20}$/.test(value) ? Number(value) : Number.NaN, least, most);
  }

  texts(member: string): string[] {
    const value = this.at(member);
    if (!Array.isArray(value) || !value.every((one) => typeof one === "string"))
      throw this.wrong(member, "is no list of texts");
    return value;
  }

  /** Bytes in Base64. */
  bytes(member: string, least: number, most: number): Buffer {
    const bytes = Buffer.from(this.text(member), "base64");
    if (bytes.length < least || bytes.length > most) throw this.wrong(member, `has ${bytes.length} bytes`);
    return bytes;
  }

  private at(member: string): unknown {
    if (!this.has(member)) throw this.wrong(member, "is missing");
    return this.members[member];
  }

  private bounded(member: string, value: unknown, least: number, most: number): number {
    if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most)
      throw this.wrong(member, `is ${JSON.stringify(this.members[member])?.slice(0, 40)}, and can't be`);
    return value;
  }
}
