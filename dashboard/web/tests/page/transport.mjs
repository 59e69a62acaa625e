// How the page comes, and what it does when the coordinator is away.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { ask, measure, onPage, run, settled, url } from "./browser.mjs";

/** What the page may weigh as it comes, compressed. */
const PAGE_BYTES_MAX = 250_000;

describe("transport", () => {
  test("the page is small, comes with its policy, and asks nobody else", async () => {
    await onPage("/", async (page) => {
      await settled(page);
      const bytes = await page.evaluate(() =>
        [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
          .filter((entry) => !new URL(entry.name).pathname.startsWith("/api"))
          .reduce((sum, entry) => sum + entry.transferSize, 0),
      );
      measure("transfer of the page", bytes / 1000, { unit: "kB" });
      assert.ok(bytes > 10_000 && bytes < PAGE_BYTES_MAX, `${bytes} bytes`);
    });
    const { headers } = await fetch(url);
    assert.match(headers.get("content-security-policy") ?? "", /default-src 'self'/);
    assert.equal(headers.get("x-content-type-options"), "nosniff");
  });

  test("what is told needs a header that forms cannot send", async () => {
    assert.equal((await ask(`/api/v1/runs/${run}/stop`, { method: "POST" })).status, 403);
  });

  test("a lost connection is said, and comes back by itself", () =>
    onPage("/", async (page, context) => {
      await page.locator(".live-open").waitFor();
      await context.setOffline(true);
      // A stream that is open stays open without a network; what is asked anew fails.
      await page.getByRole("link", { name: run, exact: true }).first().click();
      await page.getByText("Connection to the coordinator lost").waitFor();
      await context.setOffline(false);
      await page.getByText("Connection to the coordinator lost").waitFor({ state: "detached" });
      await page.locator(".live-open").waitFor();
      await page.getByRole("heading", { level: 1, name: run }).waitFor();
    }, { expectsErrors: true }));

  test("on every view a store that cannot be written is told, with its cause, as text", async () => {
    for (const view of ["/", `/runs/${run}`, "/compare"]) {
      await onPage("/", async (page) => {
        const standing = { now: Date.now(), trouble: "<b>No space</b> left on device", since: Date.now() - 5_000 };
        await page.route("**/api/v1/store", (route) => route.fulfill({ json: standing }));
        await page.goto(`${url}${view}`);
        const told = page.getByRole("alert");
        await told.waitFor();
        assert.match(await told.innerText(), /Nothing is saved since \d\d:\d\d:\d\d: <b>No space<\/b> left on device\./);
      });
    }
  });

  test("the theme is chosen and kept", () =>
    onPage("/", async (page) => {
      const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
      assert.equal(await theme(), "light");
      await page.getByRole("button", { name: "Colours: system" }).click();
      await page.getByRole("button", { name: "Colours: light" }).click();
      assert.equal(await theme(), "dark");
      await page.reload();
      await page.getByRole("button", { name: "Colours: dark" }).waitFor();
      assert.equal(await theme(), "dark");
    }));
});
