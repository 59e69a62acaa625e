// The table of trials and the parallel coordinates over it.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { ask, hostileText, onPage, sweep, until, url, views } from "./browser.mjs";

describe("the table of trials", () => {
  test("is sorted, filtered and narrowed by ranges", () =>
    onPage(views.sweep.path, async (page) => {
      await page.locator(".grid-row").first().waitFor();
      const all = (await ask(`/api/v1/sweeps/${sweep}`)).body.trials;
      assert.equal(Number(await page.getByRole("grid").getAttribute("aria-rowcount")), all.length + 1);
      const { path } = (await ask(`/api/v1/sweeps/${sweep}`)).body.space.find((one) => one.choices === null);
      const header = page.getByRole("columnheader", { name: path }).getByRole("button");
      await header.click();
      await header.click();
      assert.equal(await page.locator('[aria-sort="descending"]').count(), 1);
      const order = all.toSorted((a, b) => b.parameters[path] - a.parameters[path]).map((trial) => String(trial.number));
      assert.equal((await page.locator(".grid-row").first().locator("[role=gridcell]").first().innerText()).replace("★", "").trim(), order[0]);
      await page.getByLabel("Filter").fill(`number<3`);
      await until("three are left", async () => (await page.locator(".grid-row").count()) === 3);
      await page.getByLabel("Filter").fill("nothing<3");
      await page.getByText("nothing here is called nothing").waitFor();
      await page.getByLabel("Filter").fill("");
      const slider = page.getByRole("slider", { name: `Range of ${path}` });
      await slider.focus();
      for (let i = 0; i < 12; i++) await page.keyboard.press("ArrowUp");
      await until("the range narrows", async () => (await page.getByRole("grid").getAttribute("aria-rowcount")) !== String(all.length + 1));
      await page.getByRole("button", { name: "Clear ranges" }).click();
      await until("all are back", async () => (await page.getByRole("grid").getAttribute("aria-rowcount")) === String(all.length + 1));
      const box = await slider.boundingBox();
      await page.mouse.move(box.x + box.width / 2, box.y + 20);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width / 2, box.y + 90, { steps: 4 });
      await page.mouse.up();
      await page.getByRole("button", { name: "Clear ranges" }).waitFor();
    }));

  test("shows other columns and keeps views", () =>
    onPage(views.sweep.path, async (page) => {
      await page.getByRole("button", { name: "Columns" }).click();
      await page.getByRole("dialog").getByLabel("eval_loss, min", { exact: false }).check();
      for (const which of ["last", "best", "max"]) await page.getByRole("dialog").getByText(`eval_accuracy, ${which}`).waitFor();
      await page.getByRole("button", { name: "Done" }).click();
      await page.getByRole("columnheader", { name: "eval_loss, min" }).waitFor({ state: "attached" });
      await page.getByLabel("Filter").fill("number<2");
      await page.getByRole("button", { name: "Views" }).click();
      await page.getByLabel("Name").fill(hostileText);
      await page.getByRole("button", { name: "Save this view" }).click();
      await page.keyboard.press("Escape");
      await page.goto(`${url}/sweeps/${sweep}`);
      await page.locator(".grid-row").first().waitFor();
      await page.getByRole("button", { name: "Views" }).click();
      await page.locator(".saved-views button").first().click();
      await until("the view is back", async () => (await page.locator(".grid-row").count()) === 2);
      await page.getByRole("columnheader", { name: "eval_loss, min" }).waitFor({ state: "attached" });
    }));
});
