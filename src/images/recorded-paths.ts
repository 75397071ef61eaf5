/**
 * Where a file may be that an image of another machine names: images made on Windows record `C:\VMs\base.vhd` or
 * `.\base.vhd`, and here the same file lies somewhere else, most often beside the image.
 *
 * @returns paths to try in order, absolute or relative to the image's folder: those as recorded, as far as they can be
 * meant here, then their last parts. A path with a NUL byte can't be meant and is left out.
 */
export function recordedPaths(recorded: readonly string[]): string[] {
  const asRecorded: string[] = [];
  const besides: string[] = [];
  for (const path of recorded) {
    if (path === "" || path.includes("\0")) continue;
    const windows = /^[A-Za-z]:[\\/]|^\\\\|\\/.test(path) && !path.startsWith("/");
    const here = windows ? path.replaceAll("\\", "/") : path;
    // A drive letter, a share and a volume's id name places of the other machine.
    const elsewhere = windows && (/^[A-Za-z]:/.test(here) || here.startsWith("/"));
    if (!elsewhere) asRecorded.push(here);
    const last = here.slice(here.lastIndexOf("/") + 1);
    if (last !== "" && last !== "." && last !== "..") besides.push(last);
  }
  return [...new Set([...asRecorded, ...besides])];
}
