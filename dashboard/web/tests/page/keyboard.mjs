// Everything by the keyboard.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { ask, onPage, settled, sweep, until, views } from "./browser.mjs";

describe("the keyboard", () => {
  test("the first stop skips to the content, and tabs follow the arrows", () =>
    onPage(views.run.path, async (page) => {
      await settled(page);
      await page.keyboard.press("Tab");
      assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content");
      await page.keyboard.press("Enter");
      assert.equal(await page.evaluate(() => document.activeElement.id), "main");
      await page.getByRole("tab", { name: "Curves" }).focus();
      await page.keyboard.press("ArrowRight");
      assert.equal(await page.evaluate(() => document.activeElement.id), "tab-configuration");
      assert.equal(await page.getByRole("tab", { name: "Configuration" }).getAttribute("aria-selected"), "true");
      const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
      assert.notEqual(outline, "none", "the focus is seen");
    }));

  test("rows are walked with the arrows", () =>
    onPage(views.sweep.path, async (page) => {
      await page.locator(".grid-row").first().waitFor();
      await page.getByRole("grid").focus();
      await page.keyboard.press("ArrowDown");
      await page.locator("aside.side").waitFor();
      await page.keyboard.press("End");
      const { trials } = (await ask(`/api/v1/sweeps/${sweep}`)).body;
      await until("the last is chosen", async () => (await page.locator("aside.side h2").innerText()) === `Trial ${trials.at(-1).number}`);
      assert.equal(await page.locator('.grid-row[aria-selected="true"]').count(), 1, "and in sight");
      await page.keyboard.press("Escape");
      await page.locator("aside.side").waitFor({ state: "detached" });
    }));

  test("a dialog keeps the focus and gives it back", () =>
    onPage(views.run.path, async (page) => {
      const button = page.getByRole("button", { name: "Export CSV" });
      await button.focus();
      await page.keyboard.press("Enter");
      await page.getByRole("dialog").waitFor();
      for (let i = 0; i < 8; i++) {
        await page.keyboard.press("Tab");
        const inside = await page.evaluate(() => document.activeElement === document.body || !!document.activeElement.closest("dialog"));
        assert.ok(inside, "the focus stays in the dialog");
      }
      await page.keyboard.press("Escape");
      await page.getByRole("dialog").waitFor({ state: "detached" });
      assert.equal(await page.evaluate(() => document.activeElement.textContent), "Export CSV");
    }));
});
