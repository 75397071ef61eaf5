/**
 * Images that were made to do harm: fields of headers and tables with absurd, overlapping, looping values. For every format:
 * an ImageError or some bytes come of it, soon, and without much memory. Time is counted in reads of the file: each step
 * of these readers takes one or looks into a page that was read.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "ava";
import fc from "fast-check";
import type { ByteSource } from "../bytes/byte-source.js";
import { MemorySource } from "../bytes/memory.js";
import { ImageError } from "../errors.js";
import { LayeredDisk } from "../layers/disk.js";
import type { Layer } from "../layers/layer.js";
import { images } from "./index.js";
import { partcloneImage, sealPartclone } from "./partclone/writer-test-tools.js";
import { haveQemu, qemuImg, qemuIo, shuffledWrites } from "./qemu-test-tools.js";
import { surroundings } from "./shared-test-images.js";
import { makeVhd } from "./vhd/vhd-test-tools.js";
import { crcsOf, guids, makeVhdx } from "./vhdx/vhdx-test-tools.js";

const KiB = 1024;
const MiB = 1024 * KiB;

/** Bytes of a file, counting what is read of them. */
class CountingSource implements ByteSource {
  reads = 0;
  bytes = 0;
  readonly name = "/hostile/image";

  constructor(readonly content: Buffer) {}

  get size(): number {
    return this.content.length;
  }

  read(position: number, target: Uint8Array): number {
    if (!Number.isInteger(position) || position < 0) throw new Error(`read at ${position}`);
    const part = this.content.subarray(position, position + target.length);
    target.set(part);
    this.reads++;
    this.bytes += part.length;
    return part.length;
  }
}

interface Subject {
  readonly format: string;
  readonly bytes: Buffer;
  /** Where headers and tables are, as first byte and length. */
  readonly places: readonly (readonly [number, number])[];
  readonly companions?: Record<string, Buffer>;
  /** Makes the format's own checksums right again. */
  readonly seal?: (bytes: Buffer) => void;
}

function subjects(): Subject[] {
  const folder = mkdtempSync(join(tmpdir(), "spindle-hostile-"));
  try {
    const made = (format: string, options: string, size: number, packed?: "packed"): Buffer => {
      const path = join(folder, "image");
      const more = options ? ["-o", options] : [];
      qemuImg("create", "-q", "-f", packed ? "raw" : format, ...(packed ? [] : more), path, `${size}`);
      qemuIo(path, packed ? "raw" : format, shuffledWrites(3, size, 6, 9000));
      if (!packed) return readFileSync(path);
      try {
        qemuImg("convert", "-q", "-c", "-f", "raw", "-O", format, ...more, path, `${path}.packed`);
      } catch {} // qcow: written, and yet ends with 1
      return readFileSync(`${path}.packed`);
    };
    const u64 = (bytes: Buffer, at: number) => Number(bytes.readBigUInt64BE(at) & 0x00fffffffffffe00n);
    const qcow2 = (options: string, packed?: "packed"): Subject => {
      const bytes = made("qcow2", options, 300 * KiB, packed);
      const l1 = u64(bytes, 40);
      return {
        format: "qcow2",
        bytes,
        places: [
          [0, 600],
          [l1, 64],
          [u64(bytes, l1), 640],
          [u64(bytes, 48), 64],
        ],
      };
    };
    const qcow = (packed?: "packed"): Subject => {
      const bytes = made("qcow", "", 300 * KiB, packed);
      const l1 = Number(bytes.readBigUInt64BE(40));
      return {
        format: "qcow",
        bytes,
        places: [
          [0, 64],
          [l1, 16],
          [Number(bytes.readBigUInt64BE(l1)), 640],
        ],
      };
    };
    const qed = made("qed", "cluster_size=4096,table_size=2", 300 * KiB);
    const vdi = made("vdi", "", 2 * MiB);
    const hds = made("parallels", "cluster_size=4096", 300 * KiB);
    const vmdk = made("vmdk", "", 300 * KiB);
    const stream = made("vmdk", "subformat=streamOptimized", 300 * KiB, "packed");
    const directory = Number(vmdk.readBigUInt64LE(56)) * 512;
    const parent = { parent_linkage: `{${guids.base}}`, relative_path: "b" };
    const vhdx: Subject[] = [makeVhdx({ blocks: "a." }), makeVhdx({ blocks: "~.", parent })].map((bytes) => ({
      format: "vhdx",
      bytes,
      places: [
        [65536, 96],
        [131072, 96],
        [196608, 96],
        [262144, 96],
        [2 * MiB, 256],
        [2 * MiB + 65536, 128],
        [3 * MiB, 64],
      ],
      seal: crcsOf,
    }));
    const vhd: Subject[] = [
      makeVhd({ blocks: "ab..c" }),
      makeVhd({ blocks: "abc", type: 2 }),
      makeVhd({ blocks: "a3..", parent: { id: "0123456789abcdef", name: "b" } }),
    ].map((bytes) => ({
      format: "vhd",
      bytes,
      places: [
        [0, 512],
        [512, 1024],
        [1536, 512],
        [bytes.length - 512, 512],
      ],
    }));
    const used = Array.from({ length: 600 }, (_, block) => block % 7 < 3);
    const partclone: Subject[] = ([1, 2] as const).map((version) => ({
      format: "partclone",
      bytes: partcloneImage({ version, used, blockSize: 512, disk: Buffer.alloc(600 * 512, 5) }),
      places: [
        [30, 80],
        [version === 1 ? 4160 : 110, version === 1 ? 608 : 79],
      ],
      ...(version === 2 && { seal: sealPartclone }),
    }));
    return [
      qcow2("cluster_size=4k"),
      qcow2("compat=0.10,cluster_size=512"),
      qcow2("extended_l2=on,cluster_size=16k"),
      qcow2("compression_type=zstd,cluster_size=4k", "packed"),
      qcow2("cluster_size=64k", "packed"),
      qcow(),
      qcow("packed"),
      {
        format: "qed",
        bytes: qed,
        places: [
          [0, 64],
          [4096, 64],
          [Number(qed.readBigUInt64LE(4096)), 640],
        ],
      },
      {
        format: "vdi",
        bytes: vdi,
        places: [
          [64, 448],
          [512, 16],
        ],
      },
      {
        format: "parallels",
        bytes: hds,
        places: [
          [0, 64],
          [64, 320],
        ],
      },
      {
        format: "vmdk",
        bytes: vmdk,
        places: [
          [0, 80],
          [512, 400],
          [directory, 32],
          [vmdk.readUInt32LE(directory) * 512, 64],
        ],
      },
      {
        format: "vmdk",
        bytes: stream,
        places: [
          [0, 80],
          [512, 400],
          [stream.length - 1024, 80],
          [stream.length - 4096, 3000],
        ],
      },
      ...vhd,
      ...vhdx,
      ...partclone,
    ];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Values that hurt: ends of ranges, powers of two and their neighbours, and such as lead to the file's own end. */
const valuesFor = (width: number, fileSize: number) => {
  const bits = BigInt(width * 8);
  const edge = fc.integer({ min: 0, max: width * 8 - 1 }).map((power) => 1n << BigInt(power));
  return fc
    .oneof(
      { weight: 3, arbitrary: fc.constantFrom(0n, 1n, 2n, (1n << bits) - 1n, (1n << bits) - 2n, 1n << (bits - 1n)) },
      { weight: 3, arbitrary: fc.tuple(edge, fc.constantFrom(-1n, 0n, 1n)).map(([power, more]) => power + more) },
      {
        weight: 2,
        arbitrary: fc
          .tuple(fc.constantFrom(1n, 8n, 512n, 65536n), fc.integer({ min: -2, max: 2 }))
          .map(([unit, more]) => BigInt(fileSize) / unit + BigInt(more)),
      },
      { weight: 2, arbitrary: fc.bigInt({ min: 0n, max: (1n << bits) - 1n }) },
    )
    .map((value) => BigInt.asUintN(width * 8, value));
};

function put(bytes: Buffer, at: number, width: number, little: boolean, value: bigint): void {
  for (let nth = 0; nth < width; nth++) {
    const shift = BigInt(8 * (little ? nth : width - 1 - nth));
    bytes[at + nth] = Number((value >> shift) & 0xffn);
  }
}

const quiet = <T>(act: () => T): T | undefined => {
  try {
    return act();
  } catch (error) {
    if (error instanceof ImageError) return undefined;
    throw error;
  }
};

/** Bytes of buffers that are in use or not yet collected. */
const buffers = () => process.memoryUsage().arrayBuffers;

/** Everything that is done with an image: opened, described, read here and there, checked. */
function use(subject: Subject, source: CountingSource): void {
  const format = images.find(({ name }) => name === subject.format)!;
  const companions = Object.fromEntries(
    Object.entries(subject.companions ?? {}).map(([name, bytes]) => [name, new MemorySource(name, bytes)]),
  );
  format.recognises(source);
  const opened = (what: string, most: { reads: number; bytes: number; memory: number }, act: () => void) => {
    const before = { reads: source.reads, bytes: source.bytes, memory: buffers() };
    act();
    if (source.reads - before.reads > most.reads) throw new Error(`${what} took ${source.reads - before.reads} reads`);
    if (source.bytes - before.bytes > most.bytes) throw new Error(`${what} took ${source.bytes - before.bytes} bytes`);
    if (buffers() - before.memory > most.memory)
      throw new Error(`${what} took ${buffers() - before.memory} bytes of memory`);
  };
  let layer: Layer | undefined;
  opened("opening", { reads: 100, bytes: 4 * MiB, memory: 16 * MiB }, () => {
    layer = quiet(() => format.open(source, surroundings("/hostile/image", companions)));
  });
  if (!layer) return;
  const { size, integrity } = layer;
  if (!(Number.isSafeInteger(size) && size >= 0)) throw new Error(`a disk of ${size} bytes`);
  opened("telling of it", { reads: 2000, bytes: 16 * MiB, memory: 16 * MiB }, () => JSON.stringify(layer!.facts));
  const disk = new LayeredDisk(layer.name, [layer]);
  const target = Buffer.alloc(4096);
  opened("reading it", { reads: 3000, bytes: 32 * MiB, memory: 64 * MiB }, () => {
    for (let nth = 0; nth < 12; nth++) {
      const position = Math.floor((size - 1) * (nth / 11));
      if (position < 0) break;
      quiet(() => disk.read(position, target));
      const run = quiet(() => layer!.locate(position));
      if (run && !(run.length >= 1 && Number.isSafeInteger(run.length)))
        throw new Error(`a run of ${run.length} bytes`);
    }
  });
  // A sum of the whole map, which a small file may make as long as it likes.
  opened("counting it", { reads: 200_000, bytes: 2 ** 30, memory: 64 * MiB }, () =>
    quiet(() => disk.dataBytes(0, size)),
  );
  opened("checking its tables", { reads: 200_000, bytes: 2 ** 30, memory: 192 * MiB }, () => {
    for (const piece of [0, 1, 2]) if (integrity && piece < integrity.pieces) integrity.check(piece);
  });
}

for (const [nth, subject] of (haveQemu ? subjects() : []).entries())
  test(`fields of headers and tables with any value: ${subject.format}, image ${nth + 1}`, (t) => {
    const { bytes, places, seal } = subject;
    const change = fc.record({
      place: fc.constantFrom(...places),
      at: fc.nat(4096),
      width: fc.constantFrom(1, 2, 4, 8),
      little: fc.boolean(),
    });
    const changes = fc
      .array(change, { minLength: 1, maxLength: 3 })
      .chain((list) =>
        fc.tuple(...list.map((one) => valuesFor(one.width, bytes.length).map((value) => ({ ...one, value })))),
      );
    t.notThrows(() => use(subject, new CountingSource(bytes)));
    fc.assert(
      fc.property(changes, (list) => {
        const undo: (readonly [number, Buffer])[] = [];
        for (const { place, at, width, little, value } of list) {
          const [start, length] = place;
          const position = Math.min(start + Math.floor((at % length) / width) * width, bytes.length - width);
          undo.push([position, Buffer.from(bytes.subarray(position, position + width))]);
          put(bytes, position, width, little, value);
        }
        seal?.(bytes);
        try {
          use(subject, new CountingSource(bytes));
        } finally {
          for (const [position, old] of undo.reverse()) old.copy(bytes, position);
        }
      }),
      { numRuns: 250 },
    );
  });

if (!haveQemu)
  test("fields of headers and tables with any value", (t) =>
    t.pass(t.log("skipped: qemu-img and qemu-io (package qemu-utils) are not installed") as undefined));
