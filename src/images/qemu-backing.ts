import { corrupt, unsupported } from "../errors.js";
import type { ParentReference } from "../layers/layer.js";

/** QEMU's names of formats where ours differ. Its protocol drivers stand for plain bytes. */
const ourNames: Record<string, string> = { vpc: "vhd", file: "raw", host_device: "raw" };

/**
 * The parent of a qcow, qcow2 or qed image. These formats record a name and at most a format, nothing of the parent's
 * content: whatever is at that path is the parent, and no other file may be taken for it.
 *
 * @param recorded the name as recorded: a path, `file:path`, or QEMU's `json:{...}`.
 * @param format QEMU's name of the parent's format, where it is recorded.
 */
export function backingReference(child: string, recorded: string, format: string | undefined): ParentReference {
  const { path, driver } = located(child, recorded);
  const known = driver ?? format;
  return {
    paths: path === undefined ? [] : [path],
    description: known === undefined ? recorded : `${recorded} (${known})`,
    format: known === undefined ? undefined : (ourNames[known] ?? known),
    identified: false,
    check: () => {},
  };
}

function located(child: string, recorded: string): { path: string | undefined; driver?: string } {
  if (recorded.startsWith("json:")) return fromJson(child, recorded.slice(5));
  if (recorded.startsWith("file:")) return { path: recorded.slice(5).replace(/^\/\/(?=\/)/, "") };
  // As QEMU tells a protocol from a path: by a colon before the first slash.
  if (/^[^/:]+:/.test(recorded)) return { path: undefined };
  return { path: recorded };
}

/** `{"driver": "raw", "file": {"driver": "file", "filename": "/b"}}`, also written with `"file.filename": "/b"`. */
function fromJson(child: string, json: string): { path: string | undefined; driver?: string } {
  let options: unknown;
  try {
    options = JSON.parse(json);
  } catch {
    throw corrupt(`${child}: its parent is recorded as JSON, which is damaged.`);
  }
  const outer = members(options);
  const known = ["driver", "filename", "file", "file.driver", "file.filename"];
  const strange = Object.keys(outer).find((name) => !known.includes(name));
  const inner = Object.keys(members(outer.file)).find((name) => name !== "driver" && name !== "filename");
  if (strange ?? inner)
    throw unsupported(
      `${child}: its parent is recorded with an option that Spindle doesn't know, ${strange ?? `file.${inner}`}. Copy the image with qemu-img convert to one without parent.`,
    );
  const file: Record<string, unknown> = {
    ...members(outer.file),
    ...("file.filename" in outer && { filename: outer["file.filename"] }),
  };
  const protocol = file.driver ?? outer["file.driver"] ?? "file";
  const driver = typeof outer.driver === "string" ? outer.driver : undefined;
  if (driver === "file" || driver === "host_device")
    return { path: typeof outer.filename === "string" ? outer.filename : undefined };
  const local = protocol === "file" || protocol === "host_device";
  const path = local && typeof file.filename === "string" ? file.filename : undefined;
  return { path, driver };
}

const members = (value: unknown): Record<string, unknown> =>
  typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
