// What each view shows, and what can be set in it.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { ask, onPage, population, run, sweep, until, views } from "./browser.mjs";

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
      const count = await page.evaluate(() => [".events li", ".time-line circle"].map((one) => document.querySelectorAll(one).length));
      assert.equal(count[0], count[1], "a dot for each event");
      await page.getByRole("link", { name: run, exact: true }).first().click();
      await page.getByRole("heading", { level: 1, name: run }).waitFor();
      assert.equal(new URL(page.url()).pathname, `/runs/${run}`);
      await page.goBack();
      await page.getByRole("region", { name: "Workers" }).first().waitFor();
    }));

  test("the cluster shows how sinks are doing", () =>
    onPage("/", async (page) => {
      const rows = page.getByRole("region", { name: "Sinks" }).last().locator("tbody tr");
      await until("the server is missed", async () => /behind.*it cannot be reached/s.test(await rows.nth(1).innerText()));
      assert.match(await rows.nth(0).innerText(), /^tensorboard[\s\S]*up to date$/);
    }));

  test("filtering names runs and sweeps", () =>
    onPage("/", async (page) => {
      await page.getByLabel("Filter runs and sweeps").fill(run);
      await page.getByRole("link", { name: sweep, exact: true }).waitFor({ state: "detached" });
      assert.ok(await page.getByRole("link", { name: run, exact: true }).first().isVisible());
    }));

  test("the curves of a run are drawn, with what happened", () =>
    onPage(views.run.path, async (page) => {
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
      await page.locator(".group-line .trouble").first().waitFor({ state: "attached" });
      const troubles = await page.locator(".group-line .trouble title").allTextContents();
      assert.ok(troubles.some((text) => /worker lost: worker [0-9a-f]{8} is gone/.test(text)), `lost workers are on the line: ${troubles}`);
      await page.locator(".marks-legend").getByText("rolled back").waitFor();
      await page.getByLabel("X axis").selectOption("time");
      await page.locator(".plot-foot").getByText("seconds of training").first().waitFor();
      await page.getByLabel("X axis").selectOption("epoch");
      await page.locator(".plot-foot").getByText("epoch").first().waitFor();
      await page.locator(".marks-legend").getByText("checkpoint", { exact: false }).first().waitFor();
    }));

  test("the configuration, and how it differs from another", () =>
    onPage(views.configuration.path, async (page) => {
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
    onPage(views.log.path, async (page) => {
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
      assert.ok((await page.getByLabel("Source").locator("option").allTextContents()).some((text) => /^rank \d: [0-9a-f]{8}$/.test(text)) || source === "coordinator");
      await until("one source is left", async () => {
        const sources = await page.locator(".log-line .source").allTextContents();
        return sources.length > 0 && sources.every((one) => one === source);
      });
    }));

  test("the ledger and the layers", () =>
    onPage(views.data.path, async (page) => {
      await page.getByText("The ledger agrees with the plan").waitFor();
      assert.ok((await page.getByRole("region", { name: "Ledger by epoch" }).first().locator("tbody tr").count()) > 0);
      await page.getByRole("tab", { name: "Model" }).click();
      await page.getByRole("region", { name: "Layers" }).locator("tbody tr").first().waitFor();
      assert.match(await page.getByRole("region", { name: "Model", exact: true }).locator(".note").innerText(), /parameters in \d+ tensors/);
    }));

  test("the inside of a model: histograms over time, and what attention looks at", () =>
    onPage(views.model.path, async (page) => {
      const { inspections, tensors } = (await ask(`/api/v1/runs/${run}/inspections`)).body;
      const live = inspections.filter(({ rolled_back }) => !rolled_back);
      assert.ok(live.length > 1 && tensors.length > 10);
      const inked = (canvas) => canvas.evaluate((canvas) => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return new Set(Array.from({ length: data.length / 4 }, (_, i) => data.slice(4 * i, 4 * i + 3).join())).size;
      });
      const maps = page.locator(".inside-map canvas");
      await until("the heat maps are drawn", async () => (await maps.count()) === 2 && (await inked(maps.first())) > 5 && (await inked(maps.last())) > 5);
      const pattern = page.locator(".heads canvas").nth(1);
      assert.ok((await inked(pattern)) > 5, "a pattern is drawn");
      assert.match(await page.locator(".heads canvas").first().getAttribute("aria-label"), /^The input: 8 × 8 pixels of class \d$/);
      assert.equal(await page.locator(".heads canvas").count(), 5, "the input and four heads");

      // By the keyboard: another tensor, another step, another layer, another sample.
      const name = tensors.at(-1).name;
      await page.getByRole("combobox", { name: "Tensor", exact: true }).selectOption(name);
      await page.getByRole("region", { name: "Histograms" }).locator(".note").getByText(name).waitFor();
      await page.getByRole("combobox", { name: "Step", exact: true }).selectOption(String(live[0].step));
      await page.getByRole("region", { name: "Attention" }).locator(".note").getByText(`step ${live[0].step.toLocaleString("en-US")},`).waitFor();
      const { steps } = (await ask(`/api/v1/runs/${run}/histograms?tensor=${name}`)).body;
      assert.deepEqual(steps.map(({ step }) => step), live.map(({ step }) => step));
      await page.getByRole("combobox", { name: "Layer", exact: true }).selectOption("vit.encoder.layer.2");
      await page.getByRole("combobox", { name: "Sample", exact: true }).selectOption("1");
      await page.getByRole("img", { name: /^Head 3 of vit.encoder.layer.2 on sample 1: 5 × 5/ }).waitFor();
      await until("all of it is in the address", async () => {
        const at = new URL(page.url()).searchParams;
        return at.get("tensor") === name && at.get("at") === String(live[0].step) && at.get("layer") === "vit.encoder.layer.2" && at.get("sample") === "1";
      });
      // By the mouse: the last column of a heat map is the newest step.
      const box = await maps.first().boundingBox();
      await maps.first().click({ position: { x: box.width - 8, y: 60 } });
      await until("the newest step is chosen", async () => !new URL(page.url()).searchParams.has("at"));
    }));

  test("a model that nobody looks into says how to look", () =>
    onPage(`/runs/${sweep}.0?tab=model`, async (page) => {
      await page.getByText("inspect: {every_epochs: 1}").waitFor();
      await page.getByRole("region", { name: "Layers" }).locator("tbody tr").first().waitFor();
    }));

  test("several runs beside each other", () =>
    onPage(`/compare?runs=${run}`, async (page) => {
      await page.locator(".plot").first().waitFor();
      await page.getByLabel("Add a run").fill(`${sweep}.0`);
      await page.getByRole("button", { name: "Add" }).click();
      await page.locator(".plot").first().locator(".legend-item", { hasText: `${sweep}.0` }).waitFor();
      await until("both are in the address", async () => new URL(page.url()).searchParams.get("runs") === `${run},${sweep}.0`);
      await page.getByRole("button", { name: `Remove ${sweep}.0` }).click();
      await page.locator(".legend-item", { hasText: `${sweep}.0` }).first().waitFor({ state: "detached" });
    }));

  test("what came of a sweep", () =>
    onPage(views.results.path, async (page) => {
      await page.locator(".plot-title").first().waitFor();
      await page.getByRole("heading", { name: "Importance of parameters" }).waitFor();
      await page.getByText("that no other one beats").waitFor();
      await page.getByLabel("Over").selectOption("time");
      await page.getByText("time since the sweep began").waitFor();
      await page.getByLabel("Objective").selectOption("eval_loss");
      await page.locator(".plot-title", { hasText: "eval_loss" }).waitFor();
    }));

  test("two parameters, and a point that is picked", () =>
    onPage(views.parameters.path, async (page) => {
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
      await until("it is in the address", async () => /trial=\d+/.test(new URL(page.url()).search));
    }));

  test("rungs, and why trials were stopped", () =>
    onPage(views.rungs.path, async (page) => {
      await page.getByRole("region", { name: "Rungs" }).last().locator("tbody tr").first().waitFor();
      const { decisions } = (await ask(`/api/v1/sweeps/${sweep}/decisions`)).body;
      assert.ok(decisions.length > 0);
      const text = decisions.at(-1).text;
      await page.locator(".decisions .said", { hasText: text }).first().waitFor();
      const { rungs } = (await ask(`/api/v1/sweeps/${sweep}`)).body;
      const rung = rungs.find(({ stopped }) => stopped > 0);
      await page.getByTitle("Who was stopped here, and why").first().click();
      await until("those who were stopped at the rung are listed", async () => (await page.locator(".decisions li").count()) === rung.stopped);
      const kinds = await page.locator(".decisions .kind").allTextContents();
      assert.ok(kinds.every((kind) => kind === "stopped"), `${kinds}`);
    }));

  test("a population has a lineage", () =>
    onPage(views.lineage.path, async (page) => {
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
