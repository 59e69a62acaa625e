// A sweep of ten thousand trials.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { ask, frames, measure, onPage, sweep, until, url } from "./browser.mjs";

const TRIALS = 10_000;

/** What somebody does with the table, and how; each is given the number of its turn. */
const DONE = {
  filtering: (turn) => {
    const input = document.querySelector("input[type=search]");
    input.value = ["number<5000", "completed", "state=pruned", ""][turn];
    input.dispatchEvent(new InputEvent("input", { bubbles: true }));
  },
  sorting: (turn) => document.querySelectorAll(".grid-head button")[2 + (turn % 3)].click(),
  "choosing a row": (turn) => document.querySelectorAll(".grid-row")[turn + 2].click(),
  scrolling: (turn) => (document.querySelector("[role=grid]").scrollTop = (turn + 1) * 50_000),
};
const TURNS = 4;

describe("ten thousand trials", () => {
  test("are in a table of which only the rows in sight are in the page, and what one does is answered", () =>
    onPage("/", async (page, context) => {
      // The real answer, with its trials over and over.
      const real = (await ask(`/api/v1/sweeps/${sweep}`)).body;
      const trials = Array.from({ length: TRIALS }, (_, number) => ({ ...real.trials[number % real.trials.length], number, run: `${sweep}.${number}` }));
      await page.route(`**/api/v1/sweeps/${sweep}`, (route) => route.fulfill({ json: { ...real, trials } }));
      await page.goto(`${url}/sweeps/${sweep}`);
      await until("all are there", async () => (await page.getByRole("grid").getAttribute("aria-rowcount").catch(() => "")) === String(TRIALS + 1));
      assert.ok((await page.locator(".grid-row").count()) < 60, "only rows in sight are in the page");
      const drawn = () => page.locator('.parallel[aria-busy="false"]').waitFor();
      await drawn();
      const session = await context.newCDPSession(page);
      // In processor time of the page's main thread: what other programs do meanwhile is not in it.
      await session.send("Performance.enable", { timeDomain: "threadTicks" });
      const busy = async () => {
        const { metrics } = await session.send("Performance.getMetrics");
        const of = (name) => 1000 * (metrics.find((metric) => metric.name === name)?.value ?? NaN);
        return { all: of("TaskDuration"), scripts: of("ScriptDuration"), layout: of("LayoutDuration") + of("RecalcStyleDuration") };
      };
      const [waits, works] = [[], []];
      for (const [what, act] of Object.entries(DONE)) {
        const told = [];
        for (let turn = 0; turn < TURNS; turn++) {
          await frames(page);
          const before = await busy();
          const wait = await page.evaluate(`(async () => {
            const begun = performance.now();
            (${act})(${turn});
            await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
            return performance.now() - begun;
          })()`);
          const after = await busy();
          waits.push(wait);
          works.push(after.all - before.all);
          told.push(`${Math.round(wait)} (${["all", "scripts", "layout"].map((part) => Math.round(after[part] - before[part])).join(", ")})`);
          await drawn();
        }
        console.log(`${what}: ${told.join("; ")} ms until the next frame (processor time, of it scripts, of it layout)`);
      }
      const middle = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
      measure("interaction with 10,000 trials, median", middle(waits), { limit: 100 });
      measure("interaction with 10,000 trials, slowest", Math.max(...waits));
      measure("interaction with 10,000 trials, median processor time", middle(works), { limit: 100 });
    }));
});
