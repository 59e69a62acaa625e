// The page against a real coordinator. tests/run.mjs starts one and says where it is.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";

import { accessible, ask, close, hostile, hostileText, offers, onPage, open, population, run, sweep, until, url } from "./browser.mjs";

before(open);
after(close);

const views = {
  cluster: "/",
  run: `/runs/${run}`,
  configuration: `/runs/${run}?tab=configuration`,
  log: `/runs/${run}?tab=log`,
  data: `/runs/${run}?tab=data`,
  model: `/runs/${run}?tab=model`,
  failed: `/runs/${hostile}`,
  compare: `/compare?runs=${run},${sweep}.0,${sweep}.1`,
  sweep: `/sweeps/${sweep}`,
  trial: `/sweeps/${sweep}?trial=0`,
  results: `/sweeps/${sweep}?tab=results`,
  parameters: `/sweeps/${sweep}?tab=parameters&contour=1`,
  rungs: `/sweeps/${sweep}?tab=rungs`,
  lineage: `/sweeps/${population}?tab=lineage`,
  specification: `/sweeps/${sweep}?tab=specification`,
};

/** Waits until a view has what it shows. */
async function settled(page) {
  await page.locator("main .loading").waitFor({ state: "detached" });
  await page.locator("h1").first().waitFor({ state: "attached" });
  await page.locator(".live-open").waitFor();
  await page.waitForLoadState("load");
  await page.waitForTimeout(400);
}

/** The number under a label in the head of a view. */
function stat(page, label) {
  return page.locator(".stat", { has: page.locator(`dt:text-is("${label}")`) }).locator("dd");
}

describe("views", () => {
  test("the cluster shows workers, runs, sweeps and what happened", () =>
    onPage("/", async (page) => {
      await page.getByRole("link", { name: run, exact: true }).first().waitFor();
      await page.getByRole("link", { name: sweep, exact: true }).first().waitFor();
      const workers = page.getByRole("region", { name: "Workers" }).locator("tbody tr");
      assert.ok((await workers.count()) >= 2, "two workers are shown");
      const events = page.locator(".events li");
      await events.first().waitFor();
      assert.ok((await events.count()) > 3);
      assert.equal(await events.count(), await page.locator(".time-line circle").count(), "a dot for each event");
      await page.getByRole("link", { name: run, exact: true }).first().click();
      await page.getByRole("heading", { level: 1, name: run }).waitFor();
      assert.equal(new URL(page.url()).pathname, `/runs/${run}`);
      await page.goBack();
      await page.getByRole("region", { name: "Workers" }).first().waitFor();
    }));

  test("filtering names runs and sweeps", () =>
    onPage("/", async (page) => {
      await page.getByLabel("Filter runs and sweeps").fill(run);
      await page.getByRole("link", { name: sweep, exact: true }).waitFor({ state: "detached" });
      assert.ok(await page.getByRole("link", { name: run, exact: true }).first().isVisible());
    }));

  test("the curves of a run are drawn, with what happened", () =>
    onPage(views.run, async (page) => {
      for (const title of ["Loss", "Accuracy", "Learning rate", "Gradient norm", "Samples per second", "Step time", "Share of time outside the model"]) {
        await page.locator(".plot-title", { hasText: title }).first().waitFor();
      }
      await until("the loss has a value", async () => /^[\d.]+(e-\d+)?$/.test(await page.locator(".plot").first().locator(".legend-item b").first().innerText()));
      const inked = await page.locator(".plot canvas").first().evaluate((canvas) => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return data.some((value, i) => i % 4 === 3 && value > 200);
      });
      assert.ok(inked, "something is drawn");
      await page.getByRole("region", { name: "Checkpoints" }).first().locator("tbody tr").first().waitFor();
      assert.match(await page.getByLabel("Groups and failures").innerText(), /generation/);
      await page.locator(".marks-legend").getByText("checkpoint", { exact: false }).first().waitFor();
    }));

  test("the configuration, and how it differs from another", () =>
    onPage(views.configuration, async (page) => {
      await page.getByRole("rowheader", { name: "train.global_batch" }).waitFor();
      await page.getByLabel("Compare with").fill(`${sweep}.0`);
      await page.keyboard.press("Enter");
      await page.getByLabel("Compare with").blur();
      await page.getByLabel("Differences only").check();
      await page.getByRole("columnheader", { name: `${sweep}.0` }).waitFor();
      await page.getByRole("rowheader", { name: "name", exact: true }).waitFor();
      assert.equal(await page.getByRole("rowheader", { name: "version", exact: true }).count(), 0);
    }));

  test("the log, searched and by source", () =>
    onPage(views.log, async (page) => {
      await page.locator(".log-line").first().waitFor();
      const all = await page.locator(".log-line").count();
      const word = (await page.locator(".log-line .log-text").first().textContent()).split(/\s+/)[0];
      await page.getByLabel("Search").fill(word);
      await until("lines are fewer or all have the word", async () => {
        const texts = await page.locator(".log-line .log-text").allTextContents();
        return texts.length > 0 && texts.length <= all + 5 && texts.every((text) => text.toLowerCase().includes(word.toLowerCase()));
      });
      await page.getByLabel("Search").fill("no line says this");
      await page.getByText("No line matches").waitFor();
      await page.getByLabel("Search").fill("");
      await page.locator(".log-line").first().waitFor();
      const source = await page.locator(".log-line .source").first().textContent();
      await page.getByLabel("Source").selectOption(source);
      await until("one source is left", async () => {
        const sources = await page.locator(".log-line .source").allTextContents();
        return sources.length > 0 && sources.every((one) => one === source);
      });
    }));

  test("the ledger and the layers", () =>
    onPage(views.data, async (page) => {
      await page.getByText("The ledger agrees with the plan").waitFor();
      assert.ok((await page.getByRole("region", { name: "Ledger by epoch" }).first().locator("tbody tr").count()) > 0);
      await page.getByRole("tab", { name: "Model" }).click();
      await page.getByRole("region", { name: "Layers" }).locator("tbody tr").first().waitFor();
      assert.match(await page.locator(".panel .note").first().innerText(), /parameters in \d+ tensors/);
    }));

  test("several runs beside each other", () =>
    onPage(`/compare?runs=${run}`, async (page) => {
      await page.locator(".plot").first().waitFor();
      await page.getByLabel("Add a run").fill(`${sweep}.0`);
      await page.getByRole("button", { name: "Add" }).click();
      await page.locator(".plot").first().locator(".legend-item", { hasText: `${sweep}.0` }).waitFor();
      assert.deepEqual(new URL(page.url()).searchParams.get("runs") ?? "", `${run},${sweep}.0`);
      await page.getByRole("button", { name: `Remove ${sweep}.0` }).click();
      await page.locator(".legend-item", { hasText: `${sweep}.0` }).first().waitFor({ state: "detached" });
    }));

  test("what came of a sweep", () =>
    onPage(views.results, async (page) => {
      await page.locator(".plot-title").first().waitFor();
      await page.getByRole("heading", { name: "Importance of parameters" }).waitFor();
      await page.getByText("that no other one beats").waitFor();
      await page.getByLabel("Over").selectOption("time");
      await page.getByText("time since the sweep began").waitFor();
      await page.getByLabel("Objective").selectOption("eval_loss");
      await page.locator(".plot-title", { hasText: "eval_loss" }).waitFor();
    }));

  test("two parameters, and a point that is picked", () =>
    onPage(views.parameters, async (page) => {
      const canvas = page.locator(".scatter canvas");
      await canvas.waitFor();
      const { trials, space } = (await ask(`/api/v1/sweeps/${sweep}`)).body;
      await page.getByRole("combobox", { name: "X", exact: true }).selectOption("number");
      await page.getByRole("combobox", { name: "Y", exact: true }).selectOption(`p:${space[0].path}`);
      assert.ok(trials.length > 0);
      const box = await canvas.boundingBox();
      await until("a point is found", async () => {
        for (let x = 66; x < box.width; x += 9) {
          for (let y = 10; y < box.height - 40; y += 18) {
            await page.mouse.move(box.x + x, box.y + y);
            if (await page.locator(".tip").isVisible()) {
              await page.mouse.down();
              await page.mouse.up();
              return true;
            }
          }
        }
        return false;
      });
      await page.locator("aside.side").waitFor();
      assert.match(new URL(page.url()).search, /trial=\d+/);
    }));

  test("rungs, and why trials were stopped", () =>
    onPage(views.rungs, async (page) => {
      await page.getByRole("region", { name: "Rungs" }).last().locator("tbody tr").first().waitFor();
      const { decisions } = (await ask(`/api/v1/sweeps/${sweep}/decisions`)).body;
      assert.ok(decisions.length > 0);
      const text = decisions.at(-1).text;
      await page.locator(".decisions .said", { hasText: text }).first().waitFor();
    }));

  test("a population has a lineage", () =>
    onPage(views.lineage, async (page) => {
      await page.locator(".family").first().waitFor();
      const { trials } = (await ask(`/api/v1/sweeps/${population}`)).body;
      assert.ok(trials.some((trial) => trial.parent !== null), "some trial is a copy");
      await page.locator(".family-link").first().waitFor({ state: "attached" });
      await page.locator(".family-row").first().focus();
      await page.keyboard.press("Enter");
      await page.locator("aside.side").waitFor();
    }));

  test("what is not there says what to do", async () => {
    await onPage("/runs/there-is-no-such-run", async (page) => page.getByRole("alert").waitFor(), { expectsErrors: true });
    await onPage("/nowhere/at/all", async (page) => page.getByText("There is no such page").waitFor());
  });
});

describe("the table of trials", () => {
  test("is sorted, filtered and narrowed by ranges", () =>
    onPage(views.sweep, async (page) => {
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
    onPage(views.sweep, async (page) => {
      await page.getByRole("button", { name: "Columns" }).click();
      await page.getByRole("dialog").getByLabel("eval_loss, min", { exact: false }).check();
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

  test("answers within 100 ms with 10,000 trials", () =>
    onPage("/", async (page) => {
      // The real answer, with its trials over and over.
      const real = (await ask(`/api/v1/sweeps/${sweep}`)).body;
      const trials = Array.from({ length: 10_000 }, (_, number) => ({ ...real.trials[number % real.trials.length], number, run: `${sweep}.${number}` }));
      await page.route(`**/api/v1/sweeps/${sweep}`, (route) => route.fulfill({ json: { ...real, trials } }));
      await page.goto(`${url}/sweeps/${sweep}`);
      await until("all are there", async () => (await page.getByRole("grid").getAttribute("aria-rowcount").catch(() => "")) === "10001");
      assert.ok((await page.locator(".grid-row").count()) < 60, "only rows in sight are in the page");
      await page.waitForTimeout(2_000);
      // From the event until its work is done, drawing of lines in the background left out.
      const took = await page.evaluate(async () => {
        const frame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
        const times = [];
        const timed = async (act) => {
          await frame();
          const begun = performance.now();
          act();
          await new Promise((resolve) => setTimeout(resolve));
          await new Promise((resolve) => setTimeout(resolve));
          times.push(performance.now() - begun);
          for (let i = 0; i < 40; i++) await frame();
        };
        const input = document.querySelector("input[type=search]");
        for (const text of ["number<5000", "completed", ""]) {
          await timed(() => {
            input.value = text;
            input.dispatchEvent(new InputEvent("input", { bubbles: true }));
          });
        }
        const heads = document.querySelectorAll(".grid-head button");
        for (let i = 0; i < 4; i++) await timed(() => heads[2 + (i % 3)].click());
        for (let i = 0; i < 3; i++) await timed(() => document.querySelectorAll(".grid-row")[i + 2].click());
        return times.sort((a, b) => a - b);
      });
      const middle = took[Math.floor(took.length / 2)];
      console.log(`interactions with 10,000 trials took ${took.map((ms) => Math.round(ms)).join(", ")} ms`);
      assert.ok(middle < 100, `the middle of ${took} is not below 100 ms`);
    }));
});

describe("the address", () => {
  test("restores a run's view", () =>
    onPage(views.run, async (page) => {
      const plot = page.locator(".plot-canvas").first();
      await plot.waitFor();
      await page.getByLabel("Smoothing").fill("0.6");
      await page.getByLabel("Logarithmic").check();
      await plot.focus();
      await page.keyboard.press("+");
      await page.getByRole("button", { name: "Show all steps" }).and(page.locator(":enabled")).waitFor();
      await page.keyboard.press("ArrowLeft");
      await page.waitForTimeout(400);
      const before = new URL(page.url()).searchParams;
      assert.ok(before.get("zoom") && before.get("smooth") === "0.6" && before.get("log") === "1", page.url());
      await page.reload();
      await plot.waitFor();
      assert.equal(await page.getByLabel("Smoothing").inputValue(), "0.6");
      assert.ok(await page.getByLabel("Logarithmic").isChecked());
      assert.ok(await page.getByRole("button", { name: "Show all steps" }).isEnabled());
      await page.getByRole("button", { name: "Show all steps" }).click();
      await until("the address forgets the range", async () => !new URL(page.url()).searchParams.has("zoom"));
    }));

  test("a dragged range is kept, and a double click shows all", () =>
    onPage(views.run, async (page) => {
      const plot = page.locator(".plot .u-over").first();
      await plot.waitFor();
      const box = await plot.boundingBox();
      await page.mouse.move(box.x + box.width * 0.3, box.y + 50);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width * 0.6, box.y + 50, { steps: 5 });
      await page.mouse.up();
      await until("the range is in the address", async () => new URL(page.url()).searchParams.has("zoom"));
      await page.mouse.dblclick(box.x + box.width / 2, box.y + 50);
      await until("the range is gone", async () => !new URL(page.url()).searchParams.has("zoom"));
    }));

  test("restores a sweep's view", () =>
    onPage(views.sweep, async (page) => {
      await page.locator(".grid-row").first().waitFor();
      await page.getByLabel("Filter").fill("number<5");
      await page.getByRole("columnheader", { name: "eval_loss" }).first().getByRole("button").click();
      await until("five are left", async () => (await page.locator(".grid-row").count()) === 5);
      await page.locator(".grid-row").nth(1).click();
      await page.locator("aside.side").waitFor();
      const order = await page.locator(".grid-row").evaluateAll((rows) => rows.map((row) => row.id));
      const title = await page.locator("aside.side h2").innerText();
      await page.waitForTimeout(400);
      await page.reload();
      await until("five are left again", async () => (await page.locator(".grid-row").count()) === 5);
      assert.deepEqual(await page.locator(".grid-row").evaluateAll((rows) => rows.map((row) => row.id)), order);
      assert.equal(await page.locator("aside.side h2").innerText(), title);
    }));
});

describe("texts of others", () => {
  test("are shown as they are and do nothing", async () => {
    for (const path of [views.failed, `${views.failed}?tab=configuration`, "/", `/compare?runs=${run},${hostile}&only=0`]) {
      await onPage(path, async (page) => {
        await settled(page);
        await until(`the text is on ${path}`, async () => (await page.locator("main").innerText()).includes(hostileText));
        assert.equal(await page.locator("img, main script, iframe").count(), 0);
        const isolated = await page.evaluate((text) => {
          const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
          while (walker.nextNode()) {
            const node = walker.currentNode;
            if (node.data.includes(text) && !node.parentElement.closest("bdi, title")) return node.parentElement.outerHTML;
          }
          return "";
        }, hostileText);
        assert.equal(isolated, "", "the direction of the text is isolated");
      });
    }
  });
});

describe("keyboard and screen readers", () => {
  for (const [name, path] of Object.entries(views)) {
    test(`axe finds nothing serious on ${name}`, async () => {
      for (const scheme of ["light", "dark"]) {
        await onPage(path, async (page) => {
          await settled(page);
          await accessible(page, `${name}, ${scheme}`);
        }, { scheme });
      }
    });
  }

  test("axe finds nothing serious on a narrow page and in dialogs", async () => {
    await onPage(views.sweep, async (page) => {
      await settled(page);
      await accessible(page, "sweep, narrow");
      await page.getByRole("button", { name: "Columns" }).click();
      await accessible(page, "columns");
    }, { width: 390, height: 844 });
    await onPage(views.run, async (page) => {
      await settled(page);
      await page.getByRole("button", { name: "Stop", exact: true }).click();
      await accessible(page, "stop");
    });
  });

  test("the first stop skips to the content, and tabs follow the arrows", () =>
    onPage(views.run, async (page) => {
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
    onPage(views.sweep, async (page) => {
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
    onPage(views.run, async (page) => {
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

describe("transport", () => {
  test("the page is small, comes with its policy, and asks nobody else", async () => {
    await onPage("/", async (page) => {
      await settled(page);
      const bytes = await page.evaluate(() =>
        [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
          .filter((entry) => !new URL(entry.name).pathname.startsWith("/api"))
          .reduce((sum, entry) => sum + entry.transferSize, 0),
      );
      console.log(`the page is ${(bytes / 1000).toFixed(1)} kB`);
      assert.ok(bytes > 10_000 && bytes < 100_000, `${bytes} bytes`);
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

test("pictures of every view, which fit their width", async () => {
  const folder = new URL("../../../../target/dashboard/", import.meta.url);
  mkdirSync(folder, { recursive: true });
  for (const [width, height] of [[1280, 900], [390, 844]]) {
    for (const scheme of ["light", "dark"]) {
      for (const [name, path] of Object.entries(views)) {
        await onPage(path, async (page) => {
          await settled(page);
          await page.screenshot({ path: new URL(`${name}-${width}-${scheme}.png`, folder).pathname, fullPage: true });
          const wide = await page.evaluate(() => document.documentElement.scrollWidth);
          assert.ok(wide <= width, `${name} is ${wide} wide on ${width}`);
        }, { width, height, scheme });
      }
    }
  }
});

// Last, since they change what the coordinator does.
describe("actions", () => {
  test("a run is live, stopped and resumed", () =>
    onPage(views.run, async (page) => {
      const step = async () => Number((await stat(page, "Step").innerText()).split("/")[0].replace(/\D/g, ""));
      const before = await step();
      await until("steps come in by themselves", async () => (await step()) > before);
      await page.getByRole("button", { name: "Stop", exact: true }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
      await page.getByRole("dialog").waitFor({ state: "detached" });
      assert.ok(await page.getByRole("button", { name: "Stop", exact: true }).isVisible(), "cancelling changes nothing");
      await page.getByRole("button", { name: "Stop", exact: true }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Stop" }).click();
      await page.getByRole("status").getByText("is stopping").waitFor();
      await page.locator(".head .state", { hasText: "stopped" }).waitFor();
      assert.equal((await ask(`/api/v1/runs/${run}`)).body.state, "stopped");
      await page.getByRole("button", { name: "Resume" }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Resume" }).click();
      await page.locator(".head .state", { hasText: "running" }).waitFor();
    }));

  test("a checkpoint is pinned", () =>
    onPage(views.run, async (page) => {
      await page.getByRole("region", { name: "Checkpoints" }).last().locator("tbody tr").first().waitFor();
      if (!(await offers("/api/v1/runs/{name}/pin"))) {
        assert.equal(await page.getByRole("button", { name: "Pin" }).count(), 0);
        return;
      }
      const row = page.getByRole("region", { name: "Checkpoints" }).last().locator("tbody tr", { has: page.getByRole("button", { name: "Pin" }) }).first();
      await row.getByRole("button", { name: "Pin" }).click();
      const title = await page.getByRole("dialog").innerText();
      const number = Number(/checkpoint of step (\d+)/.exec(title)[1]);
      await page.getByRole("dialog").getByRole("button", { name: "Pin" }).click();
      await page.locator(".tag", { hasText: "pinned" }).first().waitFor();
      const { checkpoints } = (await ask(`/api/v1/runs/${run}`)).body;
      assert.equal(checkpoints.find((one) => one.step === number).pinned, true);
    }));

  test("results are exported", () =>
    onPage(views.run, async (page) => {
      for (const [path, file] of [[views.run, run], [views.sweep, sweep]]) {
        await page.goto(url + path);
        await page.getByRole("button", { name: "Export CSV" }).click();
        const download = page.waitForEvent("download");
        await page.getByRole("link", { name: "Download" }).click();
        const text = readFileSync(await (await download).path(), "utf8");
        assert.ok(text.split("\n").length > 3, `${file}.csv has lines`);
        assert.match(text.split("\n")[0], /,/);
      }
    }));

  test("a sweep is stopped, resumed and given a priority", () =>
    onPage(`/sweeps/${process.env["PHALANX_LIVE_SWEEP"]}`, async (page) => {
      const stop = page.getByRole("button", { name: "Stop", exact: true });
      await stop.waitFor();
      if (await offers("/api/v1/sweeps/{name}/priority")) {
        await page.getByRole("button", { name: "Priority" }).click();
        await page.getByRole("dialog").getByLabel("Priority").fill("5");
        await page.getByRole("dialog").getByRole("button", { name: "Change" }).click();
        await until("the priority is shown", async () => (await stat(page, "Priority").innerText()) === "5");
      } else {
        assert.equal(await page.getByRole("button", { name: "Priority" }).count(), 0);
      }
      await stop.click();
      await page.getByRole("dialog").getByRole("button", { name: "Stop" }).click();
      await page.locator(".head .state", { hasText: "stopped" }).waitFor({ timeout: 60_000 });
      await page.getByRole("button", { name: "Resume" }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Resume" }).click();
      await page.locator(".head .state", { hasText: /running|waiting/ }).waitFor();
    }));

  test("a refusal is shown in the dialog", () =>
    onPage(views.run, async (page) => {
      await page.route("**/stop", (route) => route.continue({ headers: { ...route.request().headers(), "x-phalanx": "0" } }));
      await page.getByRole("button", { name: "Stop", exact: true }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Stop" }).click();
      await page.getByRole("dialog").getByRole("alert").waitFor();
    }, { expectsErrors: true }));

  test("a worker is drained", () =>
    onPage("/", async (page) => {
      const workers = page.getByRole("region", { name: "Workers" }).last();
      await workers.locator("tbody tr").first().waitFor();
      if (!(await offers("/api/v1/workers/{id}/drain"))) {
        assert.equal(await page.getByRole("button", { name: "Drain" }).count(), 0);
        return;
      }
      const row = workers.locator("tbody tr", { has: page.getByRole("button", { name: "Drain" }) }).first();
      const id = await row.getByRole("rowheader").innerText();
      await row.getByRole("button", { name: "Drain" }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Drain" }).click();
      await page.getByRole("status").getByText("takes no further work").waitFor();
      await until("the worker drains or has gone", async () => {
        const worker = (await ask("/api/v1/cluster")).body.workers.find((one) => one.id === id);
        return worker === undefined || worker.draining || !worker.connected;
      });
    }));
});
