// Texts of others stay texts: what a job, a worker or a log holds is shown as it is, isolated, bounded, and does nothing.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { hostile, hostileText, onPage, run, settled, sweep, until, views } from "./browser.mjs";

/** Markup, an attribute's end, control characters, and marks that turn the direction of what follows. */
const HOSTILE = `"'><img src=x onerror="globalThis.__pwned=1"><script>globalThis.__pwned=1</script>\u0000\u001b[31m\u0007\u202e\u2066gnp.exe`;
/** What is left of it once it has been read back from a page: HTML has no zero bytes. */
const SEEN = "gnp.exe";
const LONG = "long".repeat(1 << 18);

/** What a page may hold in all, in characters, however long the texts are that it shows. */
const PAGE_MAX = 4_000_000;

/** Keys whose values are words of the interface, by which the page decides what to show. */
const WORDS = ["state", "goal", "unit"];
/** Keys of objects are others' words below these, and the interface's elsewhere. */
const NAMED_BY_OTHERS = ["parameters", "metrics", "spec"];

/**
 * An answer of which every text, and every key that others chose, is `change`d. The name of the run or sweep that it is about
 * stays: the page asks for more by it.
 */
function poisoned(value, change, key = "", named = false) {
  if (typeof value === "string") return WORDS.includes(key) || /^(NaN|-?Infinity)$/.test(value) ? value : change(value, key);
  if (Array.isArray(value)) return value.map((one) => poisoned(one, change, key, named));
  if (value === null || typeof value !== "object") return value;
  const below = named || NAMED_BY_OTHERS.includes(key);
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [below ? change(name, "a key") : name, poisoned(one, change, name, below)]));
}

/** Puts `change` between the coordinator and the page. */
const between = (change) => (page) =>
  page.route("**/api/v1/**", async (route) => {
    if (route.request().url().includes("/stream")) return route.continue();
    const response = await route.fetch();
    const answer = await response.json();
    const { name } = answer ?? {};
    const changed = poisoned(answer, change());
    await route.fulfill({ response, json: name === undefined ? changed : { ...changed, name } });
  });

/** Fails if a text has become an element, or reaches into what is around it. */
async function harmless(page, text) {
  assert.equal(await page.locator("img, main script, iframe").count(), 0);
  const bare = await page.evaluate((text) => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode;
      // Options, titles and texts of pictures are paragraphs of their own.
      if (node.data.includes(text) && !node.parentElement.closest("bdi, title, option, text")) return node.parentElement.outerHTML;
    }
    return "";
  }, text);
  assert.equal(bare, "", "the direction of the text is isolated");
}

describe("texts of others", () => {
  for (const path of [views.failed.path, `${views.failed.path}?tab=configuration`, "/", `/compare?runs=${run},${hostile}&only=0`]) {
    test(`are shown as they are and do nothing on ${path}`, () =>
      onPage(path, async (page) => {
        await settled(page);
        await until(`the text is on ${path}`, async () => (await page.locator("main").innerText()).includes(hostileText));
        await harmless(page, hostileText);
      }));
  }

  // Whatever an answer holds: names, labels, paths, parameters, workers, lines of logs, reasons, causes of failures.
  for (const [name, view] of Object.entries(views)) {
    test(`do nothing in any place of ${name}`, () =>
      onPage(view.path, async (page) => {
        await settled(page, view);
        await until("the text is there", async () => (await page.locator("body").innerText()).includes(SEEN));
        await harmless(page, SEEN);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(wide <= 390, `${name} is ${wide} wide on 390`);
      }, { width: 390, height: 844, prepare: between(() => (text) => text + HOSTILE) }));

    test(`of a megabyte are cut in every place of ${name}`, () =>
      onPage(view.path, async (page) => {
        await settled(page, view);
        await until("a text is there", async () => (await page.locator("body").innerText()).includes("longlong"));
        const size = await page.evaluate(() => document.documentElement.outerHTML.length);
        assert.ok(size < PAGE_MAX, `${name} has become ${size} characters`);
      }, {
        prepare: between(() => {
          const seen = new Set();
          // One of each kind: a page of a thousand megabytes is no answer.
          return (text, key) => (seen.has(key) || seen.size > 12 ? text : (seen.add(key), text + LONG));
        }),
      }));
  }

  test("in the address are texts too", async () => {
    const text = encodeURIComponent(HOSTILE);
    for (const path of [
      `/?filter=${text}&events=${text}`,
      `/runs/${text}`,
      `/sweeps/${text}`,
      `/runs/${run}?tab=${text}&x=${text}&zoom=${text}&smooth=${text}`,
      `/runs/${run}?tab=configuration&diff=${text}&key=${text}`,
      `/runs/${run}?tab=log&search=${text}&source=${text}`,
      `/compare?runs=${text},${run}`,
      `/sweeps/${sweep}?q=${text}&sort=${text}&columns=${text}&axes=${text}&brush=${text}&objective=${text}&trial=${text}&tab=trials`,
      `/sweeps/${sweep}?tab=parameters&px=${text}&py=${text}&trial=99999999999999999999`,
      `/sweeps/${sweep}?tab=rungs&kind=${text}&rung=${text}`,
    ]) {
      await onPage(path, async (page) => {
        await page.locator("main *").first().waitFor();
        await page.waitForFunction(() => !document.querySelector("main .loading"));
        await harmless(page, SEEN);
      }, { expectsErrors: true });
    }
  });

  test("that the coordinator refuses with are texts too", () =>
    onPage("/", async (page) => {
      await page.getByRole("alert").first().waitFor();
      assert.match(await page.getByRole("alert").first().innerText(), /gnp\.exe/);
      await harmless(page, SEEN);
      const size = await page.evaluate(() => document.documentElement.outerHTML.length);
      assert.ok(size < 200_000, `the refusal takes ${size} characters`);
    }, {
      expectsErrors: true,
      prepare: (page) => page.route("**/api/v1/cluster", (route) => route.fulfill({ status: 409, json: { error: HOSTILE + LONG, hint: HOSTILE + LONG } })),
    }));
});
