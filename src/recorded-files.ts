/**
 * Which files an image may make Spindle open by naming them. An image comes from anywhere, and whoever opens it may read
 * more than its maker: a base of `/etc/shadow`, a data file `../.ssh/id_rsa` would become bytes of a disk, to be looked
 * at, copied on, or given back by a service that converts what its users send.
 *
 * - Only regular files and block devices are opened at all, and looked at before (bytes/file.ts): a pipe can't hang, and a
 *   device that acts when it is opened isn't. Addresses of servers (`nbd:`, `http:`) are not followed.
 * - Parts of the image itself (a data file, extents, further segments) are files of the image's own folder.
 * - A base may be anywhere: chains across folders are usual. But it has to be an image by its own bytes, and the recorded
 *   one where the format records what it is; no other file passes for one.
 * - Any bytes pass for a raw disk, and qcow2 and its kin record nothing of their base but its path. So a raw base is taken
 *   from the image's own folder, or where the user says with `--parent`.
 *
 * Links are followed first: what counts is where a file really lies. `--trust-paths` (ImageSpec.trustPaths) puts the
 * second and the last rule aside, for an image that is one's own.
 */
import { realpathSync } from "node:fs";
import { dirname } from "node:path";
import { unsupported } from "./errors.js";

const sameFolder = (a: string, b: string) => dirname(realpathSync(a)) === dirname(realpathSync(b));

/**
 * @param isFolder whether the image is all of its folder, with what is beneath, and makes its parts' names itself
 * @throws ImageError where `path`, which `image` names as a part of itself, isn't beside it
 */
export function refusePartElsewhere(image: string, path: string, isFolder = false): void {
  if (sameFolder(image, path) || (isFolder && realpathSync(path).startsWith(`${dirname(realpathSync(image))}/`)))
    return;
  throw unsupported(
    `${image}: names ${path} as a part of itself, which is not in its folder: an image from elsewhere could name any file of this computer. Move it to ${dirname(image)}, or pass --trust-paths if you trust this image.`,
  );
}

/** @throws ImageError where `path`, a raw disk that `image` names as its base, isn't beside it. */
export function refuseRawBaseElsewhere(image: string, path: string): void {
  if (sameFolder(image, path)) return;
  throw unsupported(
    `${image}: names ${path} as its base, a raw disk that is not in its folder, and nothing tells whether it belongs to it: an image from elsewhere could name any file of this computer. If you trust this image, pass --parent ${path}.`,
  );
}
