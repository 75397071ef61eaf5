/** Lines of `ls -l`, in columns as wide as their widest value. */
import { modeString } from "../browsing/modes.js";
import type { Attributes, Time } from "../filesystems/filesystem.js";

/** The columns of one folder. */
export class LongWidths {
  inode = 1;
  links = 1;
  owner = 1;
  group = 1;
  size = 1;
  major = 0;
  minor = 0;
  /** Whether any file has an access control list: the mode then takes a character more. */
  acl = false;
  /** Bytes stored for all files. */
  allocated = 0;

  constructor(
    readonly human: boolean,
    /** Seconds since 1970. */
    readonly now: number,
  ) {}

  add(attributes: Attributes, acl: boolean): void {
    const wider = (width: number, value: number) => Math.max(width, String(value).length);
    this.inode = wider(this.inode, attributes.inode);
    this.links = wider(this.links, attributes.links);
    this.owner = wider(this.owner, attributes.owner);
    this.group = wider(this.group, attributes.group);
    if (attributes.device) {
      this.major = wider(this.major, attributes.device.major);
      this.minor = wider(this.minor, attributes.device.minor);
      this.size = Math.max(this.size, this.major + 2 + this.minor);
    } else this.size = Math.max(this.size, sizeText(attributes.size, this.human).length);
    this.acl ||= acl;
    this.allocated += attributes.allocated;
  }
}

/** @param now seconds since 1970, for tests */
export const longWidths = (human: boolean, now = Date.now() / 1000) => new LongWidths(human, now);

/** The line before a folder's entries: what they take, in KiB as ls counts. */
export const totalLine = ({ allocated, human }: LongWidths) =>
  `total ${human ? shortSize(allocated) : Math.ceil(allocated / 1024)}`;

/** Mode, links, owner, group, size and time; question marks for a file whose record is damaged. */
export function longLine(attributes: Attributes | undefined, acl: boolean, widths: LongWidths): string {
  const mark = widths.acl ? (acl ? "+" : " ") : "";
  if (!attributes)
    return `??????????${mark} ${"?".padStart(widths.links)} ${"?".padStart(widths.owner)} ${"?".padStart(widths.group)} ${"?".padStart(widths.size)} ${"?".padStart(12)}`;
  const { kind, mode, links, owner, group, device, size, modified } = attributes;
  const devicePad = widths.size - widths.minor - 2;
  const extent = device
    ? `${String(device.major).padStart(devicePad)}, ${String(device.minor).padStart(widths.minor)}`
    : sizeText(size, widths.human).padStart(widths.size);
  return `${modeString(kind, mode)}${mark} ${String(links).padStart(widths.links)} ${String(owner).padStart(widths.owner)} ${String(group).padStart(widths.group)} ${extent} ${listedTime(modified, widths.now)}`;
}

const sizeText = (size: number, human: boolean) => (human ? shortSize(size) : String(size));

/** As `ls -h` writes a size: rounded up, one digit behind the point below ten. */
export function shortSize(bytes: number): string {
  const units = ["", "K", "M", "G", "T", "P", "E", "Z"];
  let unit = 0;
  let value = bytes;
  // Rounded first: 1023.5K is 1.0M.
  while ((unit > 0 && value < 10 ? Math.ceil(value * 10) / 10 : Math.ceil(value)) >= 1024) {
    value /= 1024;
    unit++;
  }
  if (unit === 0) return String(value);
  const tenths = Math.ceil(value * 10) / 10;
  return `${tenths < 10 ? tenths.toFixed(1) : Math.ceil(value)}${units[unit]}`;
}

const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/** Half a mean year, in seconds. */
const recent = 31556952 / 2;

/** `Nov  3 09:05`, or with the year when it isn't within the last half year, in local time. */
export function listedTime({ seconds }: Time, now: number): string {
  const date = new Date(seconds * 1000);
  if (Number.isNaN(date.getTime())) return String(seconds).padStart(12);
  const day = `${months[date.getMonth()]} ${String(date.getDate()).padStart(2)}`;
  const two = (value: number) => String(value).padStart(2, "0");
  return seconds > now - recent && seconds <= now
    ? `${day} ${two(date.getHours())}:${two(date.getMinutes())}`
    : `${day} ${String(date.getFullYear()).padStart(5)}`;
}
