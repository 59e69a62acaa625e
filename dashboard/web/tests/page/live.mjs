// What happens is on the page by itself, soon after.
import assert from "node:assert/strict";
import { before, describe, test } from "node:test";

import { ask, awake, liveSweep, measure, onPage, run, settled, tell, until, views } from "./browser.mjs";

/** Within so long of an event the page shows it, on a machine that has nothing else to do. */
const LIMIT_MS = 1_000;

/** Does something, and takes down how long after it is done the page shows what `shown` waits for. */
async function lag(page, what, act, shown, argument) {
  const seen = page.waitForFunction(shown, argument, { polling: "raf" }).then(() => performance.now());
  await act();
  const done = performance.now();
  measure(`until the page shows ${what}`, Math.max(0, (await seen) - done), { limit: LIMIT_MS });
}

const stateOf = (name) => async () => (await ask(`/api/v1/runs/${name}`)).body.state;
const runStops = () => tell(`/api/v1/runs/${run}/stop`);
const runGoesOn = () => tell(`/api/v1/runs/${run}/resume`);

/** Waits until the run is in a state. */
const comesTo = (state) => until(`${run} is ${state}`, async () => (await stateOf(run)()) === state);

/** Whether the head of a view says one of these states. */
const headSays = (states) => states.includes(document.querySelector(".head .state")?.textContent);

describe("live", () => {
  before(awake);

  test("the cluster follows a run that is stopped and resumed, and lists both", () =>
    onPage("/", async (page) => {
      await settled(page, views.cluster);
      const rowSays = ([name, states]) =>
        [...document.querySelectorAll("[aria-label=Runs] tbody tr")].some(
          (row) => row.querySelector("th").textContent === name && states.includes(row.querySelector(".state").textContent),
        );
      await lag(page, "in the cluster that a run stops", runStops, rowSays, [run, ["stopping", "stopped"]]);
      await comesTo("stopped");
      const lists = ([name, before]) => {
        const told = [...document.querySelectorAll(".events li")].filter((one) => one.textContent.includes(`resumed${name}`));
        return told.length > 0 && Math.max(...told.map((one) => Number(one.dataset.sequence))) > before;
      };
      const newest = Math.max(...(await ask("/api/v1/events")).body.events.map(({ sequence }) => sequence));
      await lag(page, "in the list of events that a run goes on", runGoesOn, lists, [run, newest]);
      await page.waitForFunction(rowSays, [run, ["waiting", "forming", "running"]]);
      await comesTo("running");
    }));

  test("the cluster shows how workers are doing, and who waits for whom", () =>
    onPage("/", async (page) => {
      const rows = page.getByRole("region", { name: "Workers" }).last().locator("tbody tr");
      await until("memory and step times are there", async () => {
        const texts = await rows.allTextContents();
        return texts.every((text) => /\d [MG]iB/.test(text)) && texts.some((text) => /\d (µs|ms|s)/.test(text));
      });
      const ranks = page.getByLabel(`Step time of ${run}`).locator("li");
      await until("both ranks have a bar", async () => (await ranks.count()) === 2);
      assert.match(await ranks.first().innerText(), /rank 0[\s\S]*\d (µs|ms|s) \+ \d/);
    }));

  test("a run's view follows its steps and its state", () =>
    onPage(views.run.path, async (page) => {
      await settled(page, views.run);
      const step = (await ask(`/api/v1/runs/${run}`)).body.step;
      const stepIs = (least) => {
        const text = [...document.querySelectorAll(".stat")].find((stat) => stat.querySelector("dt").textContent === "Step")?.querySelector("dd").textContent;
        return Number(text?.split("/")[0].replace(/\D/g, "")) > least;
      };
      await lag(page, "a step of a run", () => until("a step is made", async () => (await ask(`/api/v1/runs/${run}`)).body.step > step), stepIs, step);
      await lag(page, "in its view that a run stops", runStops, headSays, ["stopping", "stopped"]);
      await comesTo("stopped");
      await lag(page, "in its view that a run goes on", runGoesOn, headSays, ["waiting", "forming", "running"]);
      await comesTo("running");
    }));

  test("a run's view tells how the phases of a step share its time", () =>
    onPage(views.run.path, async (page) => {
      const ranks = page.getByLabel("Time of a step by phase").locator("li");
      await until("both ranks have a bar", async () => (await ranks.count()) === 2);
      assert.match(await ranks.first().innerText(), /rank 0[\s\S]*passes \d+ %/);
      const wide = await ranks.first().locator(".phase-passes").evaluate((bar) => bar.getBoundingClientRect().width);
      assert.ok(wide > 1, "the passes have a bar");
    }));

  test("a log grows as it is written", () =>
    onPage(views.log.path, async (page) => {
      await settled(page, views.log);
      const said = async () => (await ask(`/api/v1/runs/${run}/log?limit=1`)).body.lines.at(-1)?.sequence ?? 0;
      const before = await said();
      const lines = await page.locator(".log-line").count();
      const more = (count) => document.querySelectorAll(".log-line").length > count;
      const writes = async () => {
        await runStops();
        await until("a line is written", async () => (await said()) > before);
      };
      await lag(page, "a line of a log", writes, more, lines);
      await comesTo("stopped");
      await runGoesOn();
      await comesTo("running");
    }));

  test("the ledger grows as samples are read", () =>
    onPage(views.data.path, async (page) => {
      await settled(page, views.data);
      const before = await page.locator("main").innerText();
      await until("the ledger has grown", async () => (await page.locator("main").innerText()) !== before);
    }));

  test("a sweep's view follows its trials and its state", () =>
    onPage(`/sweeps/${liveSweep}`, async (page) => {
      await settled(page, views.sweep);
      const trials = async () => (await ask(`/api/v1/sweeps/${liveSweep}`)).body.trials.length;
      const before = await trials();
      const rowsAre = (least) => Number(document.querySelector("[role=grid]").getAttribute("aria-rowcount")) - 1 > least;
      await lag(page, "a trial of a sweep", () => until("a trial begins", async () => (await trials()) > before), rowsAre, before);
      await lag(page, "that a sweep stops", () => tell(`/api/v1/sweeps/${liveSweep}/stop`), headSays, ["stopping", "stopped"]);
      await until("the sweep is stopped", async () => (await ask(`/api/v1/sweeps/${liveSweep}`)).body.state === "stopped");
      await lag(page, "that a sweep goes on", () => tell(`/api/v1/sweeps/${liveSweep}/resume`), headSays, ["waiting", "running"]);
    }));
});
