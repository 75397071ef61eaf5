import test from "ava";
import { usualWorkers } from "./usual-workers.js";

test("a machine has a worker a processor, two at least, and no more than the server's promised memory holds", (t) => {
  t.deepEqual(
    [1, 2, 3, 4, 128].map((processors) => usualWorkers(processors)),
    [2, 2, 3, 4, 4],
  );
  t.true(usualWorkers() >= 2 && usualWorkers() <= 4);
});
