// Every view at two widths, dark and light: it fits, axe finds nothing serious, and a picture is left in target/page.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { accessible, frames, onPage, output, settled, views } from "./browser.mjs";

describe("looks", () => {
  for (const [name, view] of Object.entries(views)) {
    test(`${name} fits wide and narrow pages, dark and light, and axe finds nothing serious`, async () => {
      for (const [width, height] of [[1280, 900], [390, 844]]) {
        await onPage(view.path, async (page) => {
          await settled(page, view);
          for (const scheme of ["light", "dark"]) {
            await page.emulateMedia({ colorScheme: scheme });
            await page.waitForFunction((scheme) => document.documentElement.dataset.theme === scheme, scheme);
            await frames(page);
            await page.screenshot({ path: output(`${name}-${width}-${scheme}.png`), fullPage: true });
            // Colours are the same on a narrow page.
            if (width > 390 || scheme === "light") await accessible(page, `${name}, ${width} wide, ${scheme}`);
          }
          const wide = await page.evaluate(() => document.documentElement.scrollWidth);
          assert.ok(wide <= width, `${name} is ${wide} wide on ${width}`);
        }, { width, height });
      }
    });
  }

  test("colours follow the system, however the page is busy meanwhile", async () => {
    await onPage(views.compare.path, async (page) => {
      await settled(page, views.compare);
      for (let i = 0; i < 60; i++) {
        const scheme = i % 2 === 0 ? "dark" : "light";
        await page.emulateMedia({ colorScheme: scheme });
        await page.waitForFunction((scheme) => document.documentElement.dataset.theme === scheme, scheme);
      }
    });
  });

  test("dialogs", async () => {
    await onPage(views.sweep.path, async (page) => {
      await settled(page, views.sweep);
      for (const dialog of ["Columns", "Views"]) {
        await page.getByRole("button", { name: dialog, exact: true }).click();
        await page.getByRole("dialog").waitFor();
        await page.screenshot({ path: output(`dialog-${dialog.toLowerCase()}-390.png`) });
        await accessible(page, dialog);
        await page.keyboard.press("Escape");
        await page.getByRole("dialog").waitFor({ state: "detached" });
      }
    }, { width: 390, height: 844 });
    await onPage(views.run.path, async (page) => {
      await settled(page, views.run);
      await page.getByRole("button", { name: "Resume", exact: true }).click();
      await page.getByRole("dialog").waitFor();
      await page.screenshot({ path: output("dialog-resume-1280.png") });
      await accessible(page, "resume");
    });
  });
});
