/** Disks in the containers of other tools: each served by Spindle, and by the best tool of its own. */
import { existsSync, mkdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { measureReads, type Plan, type Section } from "./measure.js";
import { BenchError, run, spindle } from "./programs.js";
import { inUse, type Mounted, qemuServer, type Server, spindleServer } from "./servers.js";

interface Container {
  readonly name: string;
  /** Of the image, without folder. */
  readonly file: string;
  /** Programs it takes, beside those of the bench. */
  readonly programs: readonly string[];
  make(plan: Plan, image: string): Promise<unknown>;
  /** The tools that it is served by otherwise; ratios are to the first. */
  servers(image: string): readonly Server[];
}

const qemuMake =
  (format: string, ...words: string[]) =>
  ({ disk, threads }: Plan, image: string) =>
    run("qemu-img", "convert", "-m", `${threads}`, "-f", "raw", "-O", format, ...words, disk.path, image);

const containers: readonly Container[] = [
  {
    name: "qcow2, zlib",
    file: "zlib.qcow2",
    programs: [],
    make: qemuMake("qcow2", "-c", "-W"),
    servers: (image) => [qemuServer(image)],
  },
  {
    name: "qcow2, zstd",
    file: "zstd.qcow2",
    programs: [],
    make: qemuMake("qcow2", "-c", "-W", "-o", "compression_type=zstd"),
    servers: (image) => [qemuServer(image)],
  },
  {
    name: "VMDK, streamOptimized",
    file: "stream.vmdk",
    programs: [],
    make: qemuMake("vmdk", "-o", "subformat=streamOptimized"),
    servers: (image) => [qemuServer(image, "vmdk")],
  },
  {
    name: "VHDX, dynamic",
    file: "disk.vhdx",
    programs: [],
    make: qemuMake("vhdx"),
    servers: (image) => [qemuServer(image, "vhdx")],
  },
  {
    name: "E01",
    file: "disk.E01",
    programs: ["ewfacquire", "ewfmount", "xmount"],
    make: ({ disk }, image) =>
      run(
        "ewfacquire",
        "-q",
        "-u",
        "-c",
        "deflate:fast",
        "-f",
        "encase6",
        "-S",
        "8EiB",
        "-t",
        image.slice(0, -4),
        disk.path,
      ),
    servers: (image) => [xmountServer(image), ewfmountServer(image)],
  },
];

/** A server that puts a file of a name into a folder and goes to the background. */
function folderServer(name: string, image: string, file: string, mount: (point: string) => readonly string[]): Server {
  return {
    name,
    image,
    async mount(folder, size): Promise<Mounted> {
      const point = join(folder, `mount-${name}`);
      mkdirSync(point, { recursive: true });
      inUse.add(point);
      await run(...mount(point));
      const shown = join(point, file);
      for (let tries = 0; !existsSync(shown); tries++) {
        if (tries > 500) throw new BenchError(`${name} did not show ${shown}`);
        await sleep(20);
      }
      if (statSync(shown).size !== size) throw new BenchError(`${shown} has another size than the disk, ${size} bytes`);
      return {
        file: shown,
        async unmount() {
          await run("fusermount3", "-u", point);
          inUse.delete(point);
        },
      };
    },
  };
}

/** xmount's newer reader of EWF, which unpacks in several threads. */
const xmountServer = (image: string) =>
  folderServer("xmount", image, "disk.dd", (point) => [
    "xmount",
    "-o",
    "ro",
    "--in",
    "aewf",
    image,
    "--out",
    "raw",
    point,
  ]);

const ewfmountServer = (image: string) =>
  folderServer("ewfmount", image, "ewf1", (point) => ["ewfmount", image, point]);

/** A section for each container whose programs are there and that this Spindle reads; what is left out is told. */
export async function measureContainers(plan: Plan): Promise<Section[]> {
  const sections: Section[] = [];
  for (const { name, file, programs, make, servers } of containers) {
    const absent = await missing(programs);
    if (absent.length > 0) {
      plan.note(`${name}: left out, ${absent.join(" and ")} is not there (packages ewf-tools, xmount)`);
      continue;
    }
    const image = join(plan.folder, file);
    await make(plan, image);
    const unread = await refusal(image);
    if (unread) plan.note(`${name}: left out, this Spindle does not open it: ${unread}`);
    else {
      const others = servers(image);
      plan.note(`${name}: ${Math.round(statSync(image).size / 1e6)} MB`);
      const section = await measureReads(plan, [spindleServer("direct", image), ...others]);
      sections.push({
        ...section,
        title: `Reading ${name}, ${Math.round(statSync(image).size / 1e6)} MB, through a mount`,
        reference: others[0]!.name,
        furtherReference: others[1]?.name,
      });
    }
    rmSync(image);
  }
  return sections;
}

async function missing(programs: readonly string[]): Promise<string[]> {
  const found = await Promise.all(
    programs.map((program) =>
      run("bash", "-c", 'command -v "$1"', "bash", program).then(
        () => true,
        () => false,
      ),
    ),
  );
  return programs.filter((_, nth) => !found[nth]);
}

/** Why Spindle doesn't open the image; undefined where it does. */
async function refusal(image: string): Promise<string | undefined> {
  try {
    await run(process.execPath, spindle, "info", image);
    return undefined;
  } catch (error) {
    if (!(error instanceof BenchError)) throw error;
    return error.message.split("\n").at(-1);
  }
}
