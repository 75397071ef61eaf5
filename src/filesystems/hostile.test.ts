/**
 * Lies in the metadata of every filesystem: a clean error on the file concerned, never a crash, a hang, an endless listing
 * or unbounded memory. For a long run by hand:
 *
 *     SPINDLE_HOSTILE_RUNS=20000 npx ava --timeout=10h dist/src/filesystems/hostile.test.js
 *
 * A failure prints the lies that bring it about, fewest first, and a seed for SPINDLE_HOSTILE_SEED.
 */
import test from "ava";
import fc from "fast-check";
import { sampleMakers } from "./hostile-samples-test-tools.js";
import { changed, lies, meet, placesOf, swallowed } from "./hostile-test-tools.js";

/** Of each sample. */
const runs = Number(process.env.SPINDLE_HOSTILE_RUNS ?? 40);
const seed = process.env.SPINDLE_HOSTILE_SEED ? Number(process.env.SPINDLE_HOSTILE_SEED) : undefined;
/** In MiB, of the whole process; a sound reader stays below a quarter of it. */
const mostMemory = 1500;

for (const [filesystem, make] of Object.entries(sampleMakers))
  test.serial(
    `${filesystem}: whatever field is wrong, only errors in words come out, in bounded steps and memory; what is to be asked again later is told`,
    (t) => {
      for (const sample of make(t)) {
        t.deepEqual(swallowed(sample), [], `${sample.name}: reads whose bytes weren't there yet, and nobody was told`);
        const places = placesOf(sample);
        let opened = 0;
        let sound = 0;
        const property = fc.property(lies, (told) => {
          const { names, errors } = meet(sample, changed(sample, places, told));
          if (names !== undefined) opened++;
          if (errors.length === 0) sound++;
        });
        const found = fc.check(property, { numRuns: runs, seed });
        const { failed, counterexample, seed: of, numRuns } = found;
        if (failed)
          t.fail(
            `${sample.name}, run ${numRuns} of seed ${of}: ${JSON.stringify(counterexample)}\n${(found.errorInstance as Error)?.stack}`,
          );
        else t.pass();
        t.log(`${sample.name}: ${opened} of ${runs} opened, ${runs - sound} with errors`);
      }
      const memory = process.resourceUsage().maxRSS / 1024;
      t.true(memory < mostMemory, `${Math.round(memory)} MiB were used`);
      t.log(`at most ${Math.round(memory)} MiB of memory so far`);
    },
  );
