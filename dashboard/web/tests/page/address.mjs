// The address holds all that somebody sets: who opens it anew, or sends it to somebody else, sees the same.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { onPage, population, run, settled, sweep, until, views } from "./browser.mjs";

/** Views with everything set that can be. */
const LINKS = {
  ...Object.fromEntries(Object.entries(views).map(([name, view]) => [name, { ...view, says: [] }])),
  "the cluster, filtered": { path: `/?filter=${run}&events=group_formed`, ready: ".events li", says: ["filter", "events"] },
  "curves, in all ways": { path: `/runs/${run}?x=epoch&smooth=0.6&log=1&zoom=20~90`, ready: ".plot canvas", says: ["x", "smooth", "log", "zoom"] },
  "curves over time": { path: `/runs/${run}?x=time`, ready: ".plot canvas", says: ["x"] },
  "differences of two runs": { path: `/runs/${run}?tab=configuration&diff=${sweep}.0&only=1&key=model`, ready: ".spec tbody tr", says: ["diff", "only", "key"] },
  "a search of the log": { path: `/runs/${run}?tab=log&search=generation&source=coordinator&tail=0`, ready: ".log-line", says: ["search", "source", "tail"] },
  "a comparison": { path: `/compare?runs=${run},${sweep}.1&only=0&smooth=0.3`, ready: ".plots .plot:nth-child(6) canvas", says: ["runs", "only", "smooth"] },
  "trials, in all ways": {
    path: `/sweeps/${sweep}?q=number%3C9&sort=-number&columns=number,state,o:eval_loss,m:eval_accuracy:max&axes=p:schedule.lr,o:eval_loss&brush=p%253Aschedule.lr%400.1~0.9&objective=eval_loss&trial=3`,
    ready: ".grid-row",
    says: ["q", "sort", "columns", "axes", "brush", "objective", "trial"],
  },
  "the best so far over time": { path: `/sweeps/${sweep}?tab=results&over=time&objective=eval_loss`, ready: ".plot canvas", says: ["over", "objective"] },
  "two parameters": { path: `/sweeps/${sweep}?tab=parameters&px=p:schedule.lr&py=o:eval_loss&contour=1&trial=2`, ready: ".scatter canvas", says: ["px", "py", "contour", "trial"] },
  "one kind of decision": { path: `/sweeps/${sweep}?tab=rungs&kind=stopped`, ready: ".decisions li", says: ["kind"] },
  "a trial of a lineage": { path: `/sweeps/${population}?tab=lineage&trial=1`, ready: ".family.chosen", says: ["trial"] },
};

/** What can be set in a view, and how it stands. */
function standing(page) {
  return page.evaluate(() => {
    const all = (selector) => [...document.querySelectorAll(selector)];
    return {
      title: document.title,
      tab: all('[role="tab"][aria-selected="true"]').map((tab) => tab.id),
      fields: all("main input, main select").map((field) => (field.type === "checkbox" ? field.checked : field.value)),
      order: all("[aria-sort]").map((head) => `${head.textContent} ${head.getAttribute("aria-sort")}`),
      brushes: all(".brush").length,
      side: all("aside.side h2").map((side) => side.textContent),
    };
  });
}

describe("the address", () => {
  for (const [name, link] of Object.entries(LINKS)) {
    test(`restores ${name}`, () =>
      onPage(link.path, async (page) => {
        await settled(page, link);
        const before = await standing(page);
        const query = new URL(page.url()).searchParams;
        const wanted = new URLSearchParams(link.path.split("?")[1]);
        for (const key of link.says) assert.equal(query.get(key), wanted.get(key), `${key} is still in the address`);
        await page.reload();
        await settled(page, link);
        assert.deepEqual(await standing(page), before);
      }));
  }

  test("follows what is set in a run's view", () =>
    onPage(views.run.path, async (page) => {
      const says = (key, value) => until(`${key} is in the address`, async () => {
        const found = new URL(page.url()).searchParams.get(key);
        return value === undefined ? found !== null : found === value;
      });
      const plot = page.locator(".plot-canvas").first();
      await plot.waitFor();
      await page.getByLabel("Smoothing").fill("0.6");
      await says("smooth", "0.6");
      await page.getByLabel("Logarithmic").check();
      await says("log", "1");
      await plot.focus();
      await page.keyboard.press("+");
      await says("zoom");
      await page.getByRole("button", { name: "Show all steps" }).click();
      await until("the address forgets the range", async () => !new URL(page.url()).searchParams.has("zoom"));
    }));

  test("a dragged range is kept, and a double click shows all", () =>
    onPage(views.run.path, async (page) => {
      await settled(page, views.run);
      const plot = page.locator(".plot .u-over").first();
      const box = await plot.boundingBox();
      await page.mouse.move(box.x + box.width * 0.3, box.y + 50);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width * 0.6, box.y + 50, { steps: 5 });
      await page.mouse.up();
      await until("the range is in the address", async () => new URL(page.url()).searchParams.has("zoom"));
      await page.mouse.dblclick(box.x + box.width / 2, box.y + 50);
      await until("the range is gone", async () => !new URL(page.url()).searchParams.has("zoom"));
    }));

  test("follows what is set in a sweep's view, and back leads to where one was", () =>
    onPage(views.sweep.path, async (page) => {
      await settled(page, views.sweep);
      await page.getByLabel("Filter").fill("number<5");
      await page.getByRole("columnheader", { name: "eval_loss" }).first().getByRole("button").click();
      await until("five are left", async () => (await page.locator(".grid-row").count()) === 5);
      await page.locator(".grid-row").nth(1).click();
      await page.locator("aside.side").waitFor();
      await until("the address has it all", async () => ["q", "sort", "trial"].every((key) => new URL(page.url()).searchParams.has(key)));
      const order = () => page.locator(".grid-row").evaluateAll((rows) => rows.map((row) => row.id));
      const before = await order();
      await page.getByRole("link", { name: "Open the run" }).click();
      await page.getByRole("tab", { name: "Curves" }).waitFor();
      await page.goBack();
      await until("five are left again", async () => (await page.locator(".grid-row").count()) === 5);
      assert.deepEqual(await order(), before);
      await page.locator("aside.side").waitFor();
    }));
});
