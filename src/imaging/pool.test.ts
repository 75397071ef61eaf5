import test from "ava";
import { ImageError } from "../errors.js";
import { WorkerPool } from "./pool.js";

const poolOf = (threads: number) =>
  new WorkerPool<number | string, number>(new URL("./pool.test-worker.js", import.meta.url), { times: 2 }, threads);

test("every job gets its own answer, with more jobs than threads", async (t) => {
  const pool = poolOf(3);
  const numbers = Array.from({ length: 50 }, (_, i) => i);
  t.deepEqual(
    await Promise.all(numbers.map((number) => pool.run(number))),
    numbers.map((number) => 2 * number),
  );
  await pool.close();
});

test("a refusal comes back as the ImageError that it was, and other jobs go on", async (t) => {
  const pool = poolOf(1);
  const [refused, bug, fine] = [pool.run("refuse"), pool.run("bug"), pool.run(5)];
  const error = await t.throwsAsync(refused, { instanceOf: ImageError, message: "the job can't be meant" });
  t.is(error.code, "usage");
  t.regex((await t.throwsAsync(bug)).message, /TypeError: a bug/);
  t.is(await fine, 10);
  await pool.close();
});

test("a worker that ends fails its job and all that wait, rather than leaving them waiting", async (t) => {
  const pool = poolOf(1);
  const jobs = [pool.run("die"), pool.run(1)];
  for (const job of jobs) await t.throwsAsync(job, { message: /a worker ended with code 3/ });
  await t.throwsAsync(pool.run(2), { message: /a worker ended/ });
  await pool.close();
});
