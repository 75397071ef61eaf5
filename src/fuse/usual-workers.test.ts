import test from "ava";
import { usualWorkers } from "./usual-workers.js";

test("a small machine has two workers a processor, and a large one no more than the server's promised memory holds", (t) => {
  t.deepEqual(
    [1, 2, 4, 8, 128].map((processors) => usualWorkers(processors)),
    [2, 4, 4, 4, 4],
  );
  t.true(usualWorkers() >= 2 && usualWorkers() <= 4);
});
