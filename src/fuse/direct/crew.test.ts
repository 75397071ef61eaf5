/**
 * Requests that have to wait, by all the threads of a mount: the test is the kernel at the other end of a socket, and says how
 * far the bytes beneath are unpacked.
 */
import { closeSync, openSync, read, rmSync, writeSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import test, { type ExecutionContext } from "ava";
import koffi from "koffi";
import { readFully } from "../../bytes/byte-source.js";
import { createOverlayMemory } from "../../layers/overlay-memory.js";
import { socketPair } from "../../libc.js";
import { overlayDisk } from "../../writable.js";
import { Crew } from "./crew.js";
import { baseByte, baseLayer, partitionAt, size, type TreeData } from "./crew.test-tree.js";
import { NOTIFY_INVAL_INODE, opcodes } from "./protocol.js";
import { readIn, requestBytes, u32, u64 } from "./test-messages.js";

const KiB = 1024;
const MiB = 1024 * KiB;
/** nodeid: a FileId and 2. */
const disk = 4n;
const partition = 5n;
const workers = 2;

interface Answer {
  readonly unique: number;
  readonly error: number;
  readonly body: Buffer;
}

/** The other end is told that nothing more comes, while what it still says is heard. */
const shutDown = koffi.load("libc.so.6").func("int shutdown(int, int)") as (socket: number, how: number) => number;
const SHUT_WR = 1;

class Kernel {
  readonly answers: Answer[] = [];
  notifications = 0;
  private unique = 0;
  private readonly reached = new Int32Array(new SharedArrayBuffer(4));
  private readonly sockets = socketPair(true);
  private readonly crew: Crew;
  private readonly data: TreeData;
  private readonly fd: number;
  private readonly hearing: Promise<void>;

  constructor(t: ExecutionContext) {
    const path = join(tmpdir(), `spindle-crew-${process.pid}-${Date.now()}`);
    this.fd = openSync(path, "wx+");
    rmSync(path);
    const overlay = { name: "overlay", fd: this.fd, memory: createOverlayMemory(size, workers + 2) };
    this.data = { overlay, reached: this.reached.buffer as SharedArrayBuffer };
    this.crew = new Crew(
      {
        ...{ mountpoint: "/", options: { allowOther: false, fsname: "test", others: [] } },
        ...{ workers, cacheBytes: 1 << 20, chunkSize: 0, writable: true, log: (line) => t.log(line) },
        tree: { module: new URL("./crew.test-tree.js", import.meta.url).href, exported: "buildTree", data: this.data },
      },
      workers,
    );
    this.hearing = this.hear();
  }

  async begin(): Promise<void> {
    await this.crew.built;
    this.crew.serve(this.sockets[1], { fillsZeros: false, pastCache: false });
  }

  /** @returns the request's number */
  ask(opcode: number, node: bigint, ...body: Buffer[]): number {
    const bytes = requestBytes(opcode, node, Buffer.concat(body));
    bytes.writeBigUInt64LE(BigInt(++this.unique), 8);
    writeSync(this.sockets[0], bytes);
    return this.unique;
  }

  write = (node: bigint, position: number, bytes: Buffer) =>
    this.ask(opcodes.WRITE, node, u64(0n, BigInt(position)), u32(bytes.length, 0), u64(0n), u32(0, 0), bytes);

  unpack(to: number): void {
    Atomics.store(this.reached, 0, to);
    Atomics.notify(this.reached, 0);
  }

  /** Waits until these are answered. */
  async answered(...wanted: number[]): Promise<void> {
    for (
      const until = Date.now() + 20_000;
      !wanted.every((one) => this.answers.some(({ unique }) => unique === one));
    ) {
      if (Date.now() > until) throw new Error(`no answer to some of ${wanted}`);
      await new Promise((done) => setTimeout(done, 5));
    }
  }

  /** All threads end, and what they had to say is heard. @returns the disk's bytes */
  async end(): Promise<Buffer> {
    const { sockets } = this;
    shutDown(sockets[0], SHUT_WR);
    await this.crew.ended;
    closeSync(sockets[1]);
    await this.hearing;
    closeSync(sockets[0]);
    const contents = Buffer.alloc(size);
    readFully(overlayDisk(this.data.overlay, [baseLayer(this.data, () => {})], workers + 1), 0, contents);
    closeSync(this.fd);
    return contents;
  }

  private async hear(): Promise<void> {
    const buffer = Buffer.alloc(256 * KiB);
    for (;;) {
      const { bytesRead } = await promisify(read)(this.sockets[0], buffer, 0, buffer.length, null);
      if (bytesRead === 0) return;
      const bytes = Buffer.from(buffer.subarray(0, bytesRead));
      const error = bytes.readInt32LE(4);
      if (bytes.readBigUInt64LE(8) === 0n && error === NOTIFY_INVAL_INODE) this.notifications++;
      else this.answers.push({ unique: Number(bytes.readBigUInt64LE(8)), error, body: bytes.subarray(16) });
    }
  }
}

const contents = Buffer.from(Array.from({ length: size }, (_, at) => baseByte(at)));
/** Bytes that no base has, and no other write. */
const bytesOf = (length: number, seed: number) =>
  Buffer.alloc(length, Uint8Array.of(252 + (seed % 4), seed, 255 - seed));

if (process.platform === "linux")
  test("writes of parts of blocks that are still to be unpacked wait, are answered once each, and none of them is lost", async (t) => {
    const kernel = new Kernel(t);
    await kernel.begin();
    kernel.unpack(64 * KiB);
    const expected = Buffer.from(contents);
    const sizes = new Map<number, number>();
    const write = (node: bigint, position: number, length: number) => {
      const bytes = bytesOf(length, sizes.size);
      bytes.copy(expected, node === disk ? position : partitionAt + position);
      const unique = kernel.write(node, position, bytes);
      sizes.set(unique, length);
      return unique;
    };
    await kernel.answered(kernel.ask(opcodes.OPEN, disk, Buffer.alloc(8)));
    await kernel.answered(kernel.ask(opcodes.OPEN, partition, Buffer.alloc(8)));
    const far = [
      // Several to one block, and to the same through both files.
      ...[0, 1, 2].map((n) => write(disk, 3 * MiB + 1000 * n, 700)),
      write(partition, 2 * MiB + 3000, 900),
      // The ends of these are in blocks, and in stretches that are locked, of their own: what is between needs no base.
      write(disk, 2 * MiB - 5000, 10_000),
      write(partition, 512, 100_000),
      // Beyond the disk's last whole block of what is there so far.
      write(disk, size - 10, 10),
      write(disk, 1 * MiB - 1, 2),
    ];
    const cleared = kernel.ask(
      opcodes.FALLOCATE,
      disk,
      u64(0n, BigInt(2 * MiB + 100 * KiB + 5), BigInt(200 * KiB)),
      u32(3, 0),
    );
    expected.fill(0, 2 * MiB + 100 * KiB + 5, 2 * MiB + 300 * KiB + 5);
    const reads = [3 * MiB - 100, 100 * KiB].map((at) => kernel.ask(opcodes.READ, disk, readIn(BigInt(at), 300)));
    // Meanwhile others are served: what is there, and what needs nothing of the base.
    const near = [write(disk, 100, 50), write(disk, 32 * KiB + 1, 20_000), write(disk, 3 * MiB + 512 * KiB, 8192)];
    await kernel.answered(...near);
    await kernel.answered(kernel.ask(opcodes.FSYNC, disk, Buffer.alloc(16)));
    const waiting = [...far, cleared, ...reads];
    t.false(
      kernel.answers.some(({ unique }) => waiting.includes(unique)),
      "nothing was answered that has to wait",
    );
    for (const to of [100 * KiB, 600 * KiB, 1.5 * MiB, 2.5 * MiB, 3 * MiB, size]) {
      kernel.unpack(to);
      await new Promise((done) => setTimeout(done, 60));
    }
    await kernel.answered(...waiting);
    await kernel.answered(kernel.ask(opcodes.FSYNC, partition, Buffer.alloc(16)));
    const written = await kernel.end();

    const uniques = kernel.answers.map(({ unique }) => unique);
    t.is(new Set(uniques).size, uniques.length, "no request is answered twice");
    for (const [unique, length] of sizes) {
      const answer = kernel.answers.find((each) => each.unique === unique)!;
      t.deepEqual([answer.error, answer.body.readUInt32LE(0)], [0, length], `request ${unique}`);
    }
    t.deepEqual(
      kernel.answers.filter(({ error }) => error !== 0),
      [],
    );
    t.deepEqual(
      kernel.answers.find(({ unique }) => unique === reads[1])!.body,
      contents.subarray(100 * KiB, 100 * KiB + 300),
    );
    t.true(
      written.equals(expected),
      `the first wrong byte is ${written.findIndex((byte, at) => byte !== expected[at])}`,
    );
    t.true(kernel.notifications >= far.length, "the pages of the other file were to be forgotten");
  });

if (process.platform === "linux")
  test("of a write that waited and was given up the other file's pages are forgotten: a part of it may be there", async (t) => {
    const kernel = new Kernel(t);
    await kernel.begin();
    kernel.unpack(64 * KiB);
    await kernel.answered(kernel.ask(opcodes.OPEN, disk, Buffer.alloc(8)));
    await kernel.answered(kernel.ask(opcodes.OPEN, partition, Buffer.alloc(8)));
    // Two whole blocks, and the start of one in the next MiB, which is locked apart.
    const bytes = bytesOf(8192 + 100, 1);
    const given = kernel.write(disk, 3 * MiB - 8192, bytes);
    await new Promise((done) => setTimeout(done, 300));
    const before = kernel.notifications;
    kernel.ask(opcodes.INTERRUPT, 0n, u64(BigInt(given)));
    await kernel.answered(given);
    t.is(0 - kernel.answers.find(({ unique }) => unique === given)!.error, constants.errno.EINTR);
    for (const until = Date.now() + 10_000; kernel.notifications === 0 && Date.now() < until; )
      await new Promise((done) => setTimeout(done, 5));
    kernel.unpack(size);
    const written = await kernel.end();
    t.is(before, 0);
    t.true(kernel.notifications > 0);
    const expected = Buffer.from(contents);
    bytes.copy(expected, 3 * MiB - 8192, 0, 8192);
    t.true(written.equals(expected));
  });
else test.skip("requests that wait are tested on Linux, where there are sockets of packets", () => {});
