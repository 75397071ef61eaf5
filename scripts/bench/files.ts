/** The files view: walking and archiving a tree, and copying one large file out of it. */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { add, type Images, type Plan, type Row, row, type Section, warm } from "./measure.js";
import { cost, has, run, spindle } from "./programs.js";
import { fuse2fsTree, kernelTree, spindleTree, type TreeServer, withTree } from "./trees.js";

const isRoot = process.getuid?.() === 0;

/** Without root nothing leaves the page cache but with the mount that it belongs to; with root everything does. */
async function forgetAll(image: string): Promise<void> {
  if (isRoot) {
    await run("sync");
    writeFileSync("/proc/sys/vm/drop_caches", "3");
  }
  await warm(image);
}

/** @param drivers of `spindle mount`. */
export async function measureFiles(
  plan: Plan,
  images: Images,
  drivers: readonly ("direct" | "fuse-native")[],
): Promise<Section[]> {
  // Beside the image, in which every byte has to be unpacked, the raw disk that the others read.
  const servers = [
    ...drivers.map((driver) => spindleTree(driver, images.spin)),
    spindleTree("direct", plan.disk.path, "spindle, raw disk"),
    fuse2fsTree(plan.disk),
  ];
  if (isRoot) servers.push(kernelTree(plan.disk));
  else plan.note("not root: the kernel's own mount is left out");
  const caches = isRoot
    ? "the page cache dropped (drop_caches), then the image read into it"
    : "the image in the page cache";
  const before = `Before each row a fresh mount, ${caches}.`;
  return [await measureTree(plan, servers, before), await measureLargeFile(plan, images, servers, before)];
}

async function measureTree(plan: Plan, servers: readonly TreeServer[], before: string): Promise<Section> {
  const tasks: readonly [Row, string][] = [
    // GNU tar doesn't read what it writes to /dev/null.
    [row("tar of the tree", "s", "lower", 1 / 3, 1.5), 'cd "$1" && tar cf - . | cat > /dev/null'],
    [row("find with attributes", "s", "lower"), 'cd "$1" && find . -printf "%p %s %m %u %g %n %b %T@\\n" > /dev/null'],
  ];
  const digests = new Set<string>();
  for (let round = 0; round < plan.runs; round++)
    for (const server of servers) {
      for (const [to, command] of tasks) {
        await forgetAll(server.image);
        const { wall } = await withTree(server, plan.folder, (point) => cost("bash", "-c", command, "bash", point));
        add(to, server.name, wall);
      }
      if (round === 0) digests.add(await withTree(server, plan.folder, digest));
      if (digests.size > 1) throw new Error(`${server.name} shows another tree than ${servers[0]!.name}`);
      const last = tasks.map(([of]) => `${of.runs[server.name]!.at(-1)} s`);
      plan.note(`files, run ${round + 1} of ${plan.runs}, ${server.name}: ${last.join(", ")}`);
    }
  return {
    title: "Reading all files of a tree",
    method: `tar cf - . | cat, and find -printf with what stat tells; fuse2fs and the kernel read the raw disk. ${before}`,
    contenders: servers.map(({ name }) => name),
    reference: "fuse2fs",
    furtherReference: isRoot ? "kernel" : undefined,
    rows: tasks.map(([of]) => of),
  };
}

/** A quick server of wrong bytes would win everything: names, sizes and contents as one sum. */
async function digest(point: string): Promise<string> {
  const command = 'cd "$1" && tar --sort=name --numeric-owner -cf - . | sha256sum';
  return (await run("bash", "-c", command, "bash", point)).stdout;
}

async function measureLargeFile(
  plan: Plan,
  images: Images,
  servers: readonly TreeServer[],
  before: string,
): Promise<Section> {
  const { path, size } = plan.disk.large;
  const copied = join(plan.folder, "copied");
  const rate = row("cp of one large file", "MB/s", "higher", 0.8);
  const measured = (name: string, wall: number) => {
    add(rate, name, size / 1e6 / wall);
    plan.note(`cp, ${name}: ${Math.round(size / 1e6 / wall)} MB/s`);
    rmSync(copied);
  };
  const hasCp = await has("cp");
  if (!hasCp) plan.note("spindle cp is not there: nothing to compare cp with");
  for (let round = 0; round < plan.runs; round++) {
    for (const server of servers) {
      await forgetAll(server.image);
      const copy = (point: string) => cost("cp", join(point, path), copied);
      measured(server.name, (await withTree(server, plan.folder, copy)).wall);
    }
    if (!hasCp) continue;
    await forgetAll(images.spin);
    measured("spindle cp", (await cost(process.execPath, spindle, "cp", images.spin, `/${path}`, copied)).wall);
  }
  return {
    title: `Copying a file of ${Math.round(size / 1e6)} MB`,
    method: `cp from the mount into the page cache of a file beside the images. ${before} spindle cp includes its start.`,
    contenders: [...servers.map(({ name }) => name), ...(hasCp ? ["spindle cp"] : [])],
    reference: hasCp ? "spindle cp" : "fuse2fs",
    furtherReference: isRoot ? "kernel" : undefined,
    rows: [rate],
  };
}
